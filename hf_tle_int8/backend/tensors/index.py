"""Which elements of a tensor the lanes of a vector hold: where each bit of a row-major element number comes from.

All extents in Triton are powers of two, so an element number is a string of bits, and a view only moves, drops or
repeats bits: a transposition permutes them, a reshape leaves them as they are, a broadcast drops some. (The idea is
that of Triton's linear layouts: Zhou et al., "Linear Layouts: Robust Code Generation of Efficient Tensor Computation
Using F2", 2025; permutations of bits are enough here.)
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hf_tle_int8.backend.ir import I64, FunctionBuilder, Operand, constant


@dataclass(frozen=True)
class Lane:
    """Bit ``number`` of the lane's number."""

    number: int


@dataclass(frozen=True)
class LoopVariable:
    """An i64 loop variable of which only the bits of ``mask`` are ever set."""

    operand: Operand
    mask: int

    def scaled(self, f: FunctionBuilder, mask: int, factor: Fraction) -> Operand:
        """The bits of ``mask``, times ``factor``; the product of each with its weight is an integer."""
        value = self.operand
        if mask != self.mask:
            value = f.binary("and", value, constant(I64, mask))
        if factor.denominator > 1:
            shift = factor.denominator.bit_length() - 1
            value = f.binary("lshr", value, constant(I64, shift))
        return value if factor.numerator == 1 else f.binary("mul", value, constant(I64, factor.numerator))


@dataclass(frozen=True)
class LoopBit:
    """Bit ``number`` of a loop variable."""

    variable: LoopVariable
    number: int


Source = int | Lane | LoopBit


def bits_of(extent: int) -> int:
    """log2 of an extent.

    Raises:
        ValueError: it is not a power of two.
    """
    if extent < 1 or extent & (extent - 1):
        raise ValueError(f"extents of tensors are powers of two, and {extent} is not.")
    return extent.bit_length() - 1


def dimension_bits(shape: Sequence[int]) -> list[range]:
    """The bits of the element number that belong to each dimension; bit 0 is the last dimension's lowest."""
    ranges: list[range] = []
    low = 0
    for extent in reversed(shape):
        high = low + bits_of(extent)
        ranges.insert(0, range(low, high))
        low = high
    return ranges


@dataclass(frozen=True)
class Index:
    """Elements for each lane: ``sources[b]`` gives bit b of their numbers; there are ``1 << lane_bits`` lanes."""

    sources: tuple[Source, ...]
    lane_bits: int = 0

    @property
    def lanes(self) -> int:
        """The number of lanes; 1 is a scalar."""
        return 1 << self.lane_bits

    @property
    def is_literal(self) -> bool:
        """Whether no loop variable takes part."""
        return not any(isinstance(source, LoopBit) for source in self.sources)

    @property
    def first_lane(self) -> "Index":
        """Lane 0 alone."""
        return self.lane(0)

    def lane(self, number: int) -> "Index":
        """One lane alone."""
        return Index(tuple(number >> s.number & 1 if isinstance(s, Lane) else s for s in self.sources))

    def covers(self, other: "Index") -> bool:
        """Whether each element of ``other`` certainly is one of these."""
        pairs = zip(self.sources, other.sources, strict=True)
        return all(isinstance(mine, Lane) or mine == its for mine, its in pairs)

    def mapped(self, bits: Iterable[int | None]) -> tuple["Index", list[int] | None]:
        """The index into a source whose bit i is bit ``bits[i]`` of this one (None: zero).

        Returns:
            It, with as few lanes as vary, and which of its lanes each lane of this index reads; None if lane i reads
            lane i.
        """
        sources = [0 if bit is None else self.sources[bit] for bit in bits]
        used = sorted({source.number for source in sources if isinstance(source, Lane)})
        number = {lane: position for position, lane in enumerate(used)}
        renamed = tuple(Lane(number[source.number]) if isinstance(source, Lane) else source for source in sources)
        index = Index(renamed, len(used))
        if len(used) == self.lane_bits:
            return index, None
        return index, [sum((lane >> old & 1) << new for old, new in number.items()) for lane in range(self.lanes)]

    def numbers(self) -> np.ndarray:
        """The literal part of the element number of each lane, int64 ``[lanes]``."""
        return self.weighted([1 << bit for bit in range(len(self.sources))])

    def weighted(self, coefficients: Sequence[int]) -> np.ndarray:
        """Sum of ``coefficients[b]`` over the set bits b, loop variables left out; int64 ``[lanes]``."""
        lane = np.arange(self.lanes, dtype=np.int64)
        total = np.zeros(self.lanes, np.int64)
        for source, coefficient in zip(self.sources, coefficients, strict=True):
            if isinstance(source, Lane):
                total += (lane >> source.number & 1) * coefficient
            elif isinstance(source, int):
                total += source * coefficient
        return total

    def loop_part(self, f: FunctionBuilder, coefficients: Sequence[int]) -> Operand | None:
        """What loop variables add to `weighted`, i64; None for nothing."""
        masks: dict[tuple[LoopVariable, Fraction], int] = {}
        for source, coefficient in zip(self.sources, coefficients, strict=True):
            if isinstance(source, LoopBit) and coefficient:
                group = source.variable, Fraction(coefficient, 1 << source.number)
                masks[group] = masks.get(group, 0) | 1 << source.number
        terms = [variable.scaled(f, mask, factor) for (variable, factor), mask in masks.items()]
        return functools.reduce(lambda a, b: f.binary("add", a, b), terms) if terms else None
