"""Going through all elements of a tensor, a vector at a time: written out where that is short, in loops where not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.ir import I1, I8, I64, CountedLoop, FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.guards import versioned
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


def make_indexable(e: Evaluator, tensors: Iterable[Tensor]) -> None:
    """Copy what loop variables cannot index, among all that ``tensors`` are computed from, into memory now."""
    pending, seen = list(tensors), set[Tensor]()
    while pending:
        tensor = pending.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        if isinstance(tensor, Registers):
            e.in_memory(tensor, tensor.spilled)
        pending += tensor.parts


@dataclass(frozen=True)
class Chunks:
    """Vectors that are computed together.

    Attributes:
        tensors: what they are computed from.
        body: writes the code for vectors at the given indices, and may be called more than once for each.
        masks: what else must be true for ``body`` to be plain loads and stores, see `versioned`.
    """

    tensors: Sequence[Tensor]
    body: Callable[[Sequence[Index]], None]
    masks: Sequence[Tensor] = ()

    def write(self, e: Evaluator, sources: tuple[Source, ...], lanes: int, high: int) -> None:
        """Write the code for all vectors of ``1 << lanes`` elements whose bits from ``high`` on are ``sources``."""

        def one_by_one() -> None:
            loop, variable = bit_loop(e.f, lanes, high)
            middle = (LoopBit(variable, bit) for bit in range(lanes, high))
            with e.scope():
                self.body([Index((*map(Lane, range(lanes)), *middle, *sources[high:]), lanes)])
            loop.close()

        self.write_together(e, sources, lanes, high, one_by_one)

    def write_together(
        self, e: Evaluator, sources: tuple[Source, ...], lanes: int, high: int, otherwise: Callable[[], object]
    ) -> None:
        """Write the code for all these vectors where they are regular, and ``otherwise`` for where they are not."""
        whole = Index((*map(Lane, range(high)), *sources[high:]), high)
        indices = [Index((*i.sources[:high], *sources[high:]), lanes) for i in literal_chunks(high, lanes)]

        def together() -> Sequence[Operand]:
            self.body(indices)
            return ()

        def apart() -> Sequence[Operand]:
            otherwise()
            return ()

        versioned(e, self.tensors, self.masks, whole, together, apart)


def bit_loop(f: FunctionBuilder, low: int, high: int) -> tuple[CountedLoop, LoopVariable]:
    """A loop over all numbers that have only bits from ``low`` to below ``high``."""
    loop = f.counted_loop(constant(I64, 0), constant(I64, 1 << high), constant(I64, 1 << low))
    return loop, LoopVariable(loop.index, (1 << high) - (1 << low))


def for_each_chunk(e: Evaluator, bits: int, lanes: int, inner: int, chunks: Chunks) -> None:
    """Write loops over all vectors, row-major.

    Args:
        e: where the code goes.
        bits: log2 of the number of elements.
        lanes: log2 of those of a vector.
        inner: bits of the last dimension, which has a loop of its own.
        chunks: what to write in them.
    """
    unrolled = min(lanes + _UNROLLED_BITS, bits)
    split = min(max(inner, unrolled), bits)

    def run(sources: tuple[Source, ...], low: int, high: int, nested: Callable[[tuple[Source, ...]], None]) -> None:
        if low == high:
            nested(sources)
            return
        loop, variable = bit_loop(e.f, low, high)
        with e.scope():
            nested(tuple(LoopBit(variable, bit) if low <= bit < high else s for bit, s in enumerate(sources)))
        loop.close()

    def innermost(sources: tuple[Source, ...]) -> None:
        chunks.write(e, sources, lanes, unrolled)

    run((0,) * bits, split, bits, lambda sources: run(sources, unrolled, split, innermost))


def in_registers(e: Evaluator, target: Target, tensor: Tensor) -> Registers:
    """All elements, computed now, row-major."""
    if isinstance(tensor, Registers):
        return tensor
    lanes = lane_bits(target, tensor.element, tensor.bits)
    whole = Index(tuple(map(Lane, range(tensor.bits))), tensor.bits)

    def vectors() -> Sequence[Operand]:
        return [e.at(tensor, index) for index in literal_chunks(tensor.bits, lanes)]

    return Registers(versioned(e, [tensor], (), whole, vectors, vectors), range(tensor.bits))


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

    def copy(indices: Sequence[Index]) -> None:
        for index in indices:
            store(e, result.address, index, e.at(tensor, index), None)

    with e.scope():
        if isinstance(tensor, Registers) or tensor.bits <= lanes + _UNROLLED_BITS:
            copy(list(literal_chunks(tensor.bits, lanes)))
        else:
            make_indexable(e, [tensor])
            for_each_chunk(e, tensor.bits, lanes, inner, Chunks([tensor], copy))
    return result
