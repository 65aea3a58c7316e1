"""Going through all elements of a tensor, a vector at a time: written out where that is short, in loops where not."""

from collections.abc import Callable

from hf_tle_int8.backend.ir import I1, I8, I64, IRType, Operand, constant
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.index import Index, Lane, LoopBit, LoopVariable, Source
from hf_tle_int8.backend.tensors.memory import row_major, store
from hf_tle_int8.backend.tensors.stored import Registers, as_element, literal_chunks
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor

# Vectors that one iteration of a loop computes, as a power of two: independent work for the CPU.
_UNROLLED_BITS = 2


def lane_bits(target: Target, element: IRType, bits: int) -> int:
    """log2 of the lanes that suit elements of this type in a tensor of ``1 << bits`` elements."""
    return min(bits, target.lanes(element.bits).bit_length() - 1)


def fits_registers(target: Target, element: IRType, bits: int) -> bool:
    """Whether a tensor is short enough to be written out and kept in registers."""
    return 1 << (bits - lane_bits(target, element, bits)) <= target.vector_registers


def make_indexable(e: Evaluator, tensor: Tensor) -> None:
    """Copy what loop variables cannot index, among all that ``tensor`` is computed from, into memory now."""
    if isinstance(tensor, Registers):
        e.in_memory(tensor, tensor.spilled)
    for part in tensor.parts:
        make_indexable(e, part)


def for_each_chunk(e: Evaluator, bits: int, lanes: int, inner: int, body: Callable[[Index], None]) -> None:
    """Loops around ``body``, which writes the code for one vector, row-major.

    Args:
        e: where the code goes.
        bits: log2 of the number of elements.
        lanes: log2 of those of a vector.
        inner: bits of the last dimension, which has a loop of its own.
        body: gets the index of the vector.
    """
    unrolled = min(lanes + _UNROLLED_BITS, bits)
    split = min(max(inner, unrolled), bits)

    def run(sources: tuple[Source, ...], low: int, high: int, nested: Callable[[tuple[Source, ...]], None]) -> None:
        if low == high:
            nested(sources)
            return
        stop, step = constant(I64, 1 << high), constant(I64, 1 << low)
        loop = e.f.counted_loop(constant(I64, 0), stop, step)
        variable = LoopVariable(loop.index, (1 << high) - (1 << low))
        with e.scope():
            nested(tuple(LoopBit(variable, bit) if low <= bit < high else s for bit, s in enumerate(sources)))
        loop.close()

    def innermost(sources: tuple[Source, ...]) -> None:
        for number in range(1 << (unrolled - lanes)):
            literal = tuple(number >> bit & 1 for bit in range(unrolled - lanes))
            body(Index((*(Lane(bit) for bit in range(lanes)), *literal, *sources[unrolled:]), lanes))

    run((0,) * bits, split, bits, lambda sources: run(sources, unrolled, split, innermost))


def in_registers(e: Evaluator, target: Target, tensor: Tensor) -> Registers:
    """All elements, computed now, row-major."""
    lanes = lane_bits(target, tensor.element, tensor.bits)
    return Registers([e.at(tensor, index) for index in literal_chunks(tensor.bits, lanes)], range(tensor.bits))


def in_memory(e: Evaluator, target: Target, tensor: Tensor, inner: int, pointer: Operand | None = None) -> Tensor:
    """All elements, computed now and stored row-major in memory of the kernel's own, or at ``pointer``.

    Truth values are bytes there.
    """
    if tensor.element == I1:
        bytes_of = Elementwise(I8, tensor.bits, [tensor], lambda f, operands: f.cast("zext", operands[0], I8))
        return as_element(in_memory(e, target, bytes_of, inner, pointer), I1)
    place = pointer or e.f.allocate(tensor.element, 1 << tensor.bits)
    result = row_major(place, tensor.element, tensor.bits)
    lanes = lane_bits(target, tensor.element, tensor.bits)

    def copy(index: Index) -> None:
        store(e, result.address, index, e.at(tensor, index), None)

    with e.scope():
        if isinstance(tensor, Registers) or fits_registers(target, tensor.element, tensor.bits):
            for index in literal_chunks(tensor.bits, lanes):
                copy(index)
        else:
            make_indexable(e, tensor)
            for_each_chunk(e, tensor.bits, lanes, inner, copy)
    return result
