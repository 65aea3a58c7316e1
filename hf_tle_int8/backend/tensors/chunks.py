"""Going through all elements of a tensor, a vector at a time: written out where that is short, in loops where not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.ir import I1, I8, I64, CountedLoop, FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.guards import versioned
from hf_tle_int8.backend.tensors.index import Index, Lane, LoopBit, LoopVariable, Source
from hf_tle_int8.backend.tensors.memory import row_major, store
from hf_tle_int8.backend.tensors.orders import Order, order_for, row_major_order
from hf_tle_int8.backend.tensors.stored import Registers, Spillable, as_element, literal_chunks
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor


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
        if isinstance(tensor, Spillable):
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

    def write(self, e: Evaluator, order: Order, outer: Sequence[Source]) -> None:
        """Write the code for vectors that are computed together; ``outer`` are the sources of the bits of the loops."""

        def one_by_one() -> None:
            loop, variable = bit_loop(e.f, order.lanes, order.together)
            middle = (LoopBit(variable, bit) for bit in range(order.lanes, order.together))
            with e.scope():
                self.body([order.index((*map(Lane, range(order.lanes)), *middle, *outer), order.lanes)])
            loop.close()

        self.write_together(e, order, outer, one_by_one)

    def write_together(
        self, e: Evaluator, order: Order, outer: Sequence[Source], otherwise: Callable[[], object]
    ) -> None:
        """As `write`, with ``otherwise`` for where they are not regular."""
        whole = order.index((*map(Lane, range(order.together)), *outer), order.together)
        vectors = literal_chunks(order.together, order.lanes)
        indices = [order.index((*vector.sources, *outer), order.lanes) for vector in vectors]

        def together() -> Sequence[Operand]:
            self.body(indices)
            return ()

        def apart() -> Sequence[Operand]:
            otherwise()
            return ()

        versioned(e, self.tensors, self.masks, whole, together, apart)


def bit_loop(
    f: FunctionBuilder, low: int, high: int, carried: Sequence[Operand] = ()
) -> tuple[CountedLoop, LoopVariable]:
    """A loop over all numbers that have only bits from ``low`` to below ``high``; ``carried``: see `counted_loop`."""
    loop = f.counted_loop(constant(I64, 0), constant(I64, 1 << high), constant(I64, 1 << low), carried)
    return loop, LoopVariable(loop.index, (1 << high) - (1 << low))


def for_each_chunk(e: Evaluator, order: Order, chunks: Chunks) -> None:
    """Write loops over all vectors."""
    bits = len(order.bits)

    def run(low: int, high: int, outer: Sequence[Source], nested: Callable[[Sequence[Source]], None]) -> None:
        if low == high:
            nested(outer)
            return
        loop, variable = bit_loop(e.f, low, high)
        with e.scope():
            nested([*(LoopBit(variable, bit) for bit in range(low, high)), *outer])
        loop.close()

    def inner(outer: Sequence[Source]) -> None:
        run(order.together, order.split, outer, lambda sources: chunks.write(e, order, sources))

    run(order.split, bits, (), inner)


def in_registers(e: Evaluator, target: Target, tensor: Tensor) -> Registers:
    """All elements, computed now, row-major."""
    if isinstance(tensor, Registers):
        return tensor
    lanes = lane_bits(target, tensor.element, tensor.bits)
    whole = Index(tuple(map(Lane, range(tensor.bits))), tensor.bits)

    def vectors(source: Tensor = tensor) -> Sequence[Operand]:
        return [e.at(source, index) for index in literal_chunks(tensor.bits, lanes)]

    def by_memory() -> Sequence[Operand]:
        return vectors(in_memory(e, target, tensor, tensor.bits))

    return Registers(versioned(e, [tensor], (), whole, vectors, by_memory), range(tensor.bits))


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

    order = row_major_order(tensor.bits, lanes, inner)
    with e.scope():
        if isinstance(tensor, Registers) or order.together == tensor.bits:
            copy(list(literal_chunks(tensor.bits, lanes)))
        else:
            make_indexable(e, [tensor])
            for_each_chunk(e, order_for(e, [tensor], None, tensor.bits, lanes, inner), Chunks([tensor], copy))
    return result
