"""Tensors whose elements are known or in registers; a loop variable indexes a copy of them in memory."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hf_tle_int8.backend.ir import I1, I8, FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.tensors.index import Index, Lane, Source
from hf_tle_int8.backend.tensors.memory import row_major, store
from hf_tle_int8.backend.tensors.shuffles import pick
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor


@dataclass(eq=False)
class Literal(Tensor):
    """Elements known when the kernel is compiled, row-major."""

    element: IRType
    values: Sequence[int | float]
    bits: int

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        if not index.is_literal:
            return e.at(e.in_memory(self, self._table), index)
        numbers = index.numbers()
        if not index.lane_bits:
            return constant(self.element, self.values[numbers[0]])
        return constant(self.element.vector(index.lanes), [self.values[number] for number in numbers])

    def _table(self, e: Evaluator) -> Tensor:
        kind = stored_type(self.element)
        table = constant(kind.vector(len(self.values)), self.values)
        return as_element(row_major(e.f.module.add_table(table), kind, self.bits), self.element)


class Spillable(Tensor):
    """Elements in registers, which no loop variable can index."""

    @abstractmethod
    def spilled(self, e: Evaluator) -> Tensor:
        """A copy in memory."""


@dataclass(eq=False)
class Registers(Spillable):
    """Vectors in registers.

    Attributes:
        vectors: all of one type.
        layout: bits of the element number: those of the lane's number first, lowest first, then those of the vector's;
            lanes that differ in a bit of None hold the same element.
    """

    vectors: Sequence[Operand]
    layout: Sequence[int | None]
    element: IRType = field(init=False)
    bits: int = field(init=False)

    def __post_init__(self) -> None:
        self.element = self.vectors[0].type.scalar
        self.bits = sum(bit is not None for bit in self.layout)

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        if not index.is_literal:
            return e.at(e.in_memory(self, self.spilled), index)
        positions = np.zeros(index.lanes, np.int64)
        for position, bit in enumerate(self.layout):
            if bit is not None:
                positions |= (index.numbers() >> bit & 1) << position
        return pick(e.f, self.vectors, positions.tolist())

    def spilled(self, e: Evaluator) -> Tensor:
        """A copy in memory."""
        kind = stored_type(self.element)
        copy = row_major(e.f.allocate(kind, 1 << self.bits), kind, self.bits)
        lanes = max(self.vectors[0].type.lanes, 1).bit_length() - 1
        for index, vector in zip(literal_chunks(self.bits, lanes, self.layout), self.vectors, strict=True):
            store(e, copy.address, index, as_stored(e.f, vector), None)
        return as_element(copy, self.element)


def stored_type(element: IRType) -> IRType:
    """What elements are in memory: truth values are bytes."""
    return I8 if element == I1 else element


def as_stored(f: FunctionBuilder, values: Operand) -> Operand:
    """Truth values as bytes; other elements as they are."""
    return f.cast("zext", values, I8) if values.type.scalar == I1 else values


def as_element(stored: Tensor, element: IRType) -> Tensor:
    """Truth values of bytes; other tensors as they are."""
    if element != I1:
        return stored
    return Elementwise(I1, stored.bits, [stored], lambda f, operands: f.cast("trunc", operands[0], I1))


def literal_chunks(bits: int, lanes: int, layout: Sequence[int | None] | None = None) -> Iterator[Index]:
    """Every vector of a tensor in the order of ``layout`` (see `Registers`), row-major by default."""
    order = range(bits) if layout is None else layout
    for number in range(1 << (len(order) - lanes)):
        sources: list[Source] = [0] * bits
        for position, bit in enumerate(order):
            if bit is not None:
                sources[bit] = Lane(position) if position < lanes else number >> (position - lanes) & 1
        yield Index(tuple(sources), lanes)
