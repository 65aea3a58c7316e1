"""Integers that are affine in the bits of the element number: what addresses and masks are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_tle_int8.backend.casts import integer_cast
from hf_tle_int8.backend.ir import FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.values import Evaluator, Splat, Tensor


@dataclass(frozen=True)
class Term:
    """``stride`` times the sum of ``coefficients[b]`` over the set bits b; a stride of None is 1."""

    stride: Operand | None
    coefficients: tuple[int, ...]


@dataclass(eq=False)
class Affine(Tensor):
    """``base`` plus the sum of the terms, in integers that wrap as those of their type do."""

    base: Operand
    terms: tuple[Term, ...]
    bits: int

    @property
    def element(self) -> IRType:  # type: ignore[override]
        """The type of the integers."""
        return self.base.type

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        f, first, vector = e.f, self.base, None
        for term in self.terms:
            literal = index.weighted(term.coefficients)
            first = _plus(f, first, _times(f, self._uniform(f, index, term, int(literal[0])), term.stride))
            if np.any(literal != literal[0]):
                lanes = constant(self.element.vector(index.lanes), (literal - literal[0]).tolist())
                if term.stride is not None:
                    lanes = f.binary("mul", lanes, f.splat(term.stride, index.lanes))
                vector = lanes if vector is None else f.binary("add", vector, lanes)
        if not index.lane_bits:
            return first
        whole = f.splat(first, index.lanes)
        return whole if vector is None else f.binary("add", whole, vector)

    def varies(self, index: Index) -> bool:
        """Where a term does."""
        return any(np.ptp(index.weighted(term.coefficients)) for term in self.terms)

    def distances(self, e: Evaluator, index: Index) -> np.ndarray | None:
        """Sums of literal multiples of the bits; None where they do not fit the type."""
        total = np.zeros(index.lanes, np.int64)
        for term in self.terms:
            literal = index.weighted(term.coefficients)
            if term.stride is None:
                total += literal - literal[0]
            elif np.ptp(literal):
                return None
        return total if np.ptp(total) < 1 << (self.element.bits - 1) else None

    def _uniform(self, f: FunctionBuilder, index: Index, term: Term, literal: int) -> Operand:
        """The coefficients' sum for lane 0, as a scalar of this type."""
        value = constant(self.element, literal)
        loop = index.loop_part(f, term.coefficients)
        if loop is None:
            return value
        return _plus(f, integer_cast(f, True, loop, self.element), value)


def as_affine(tensor: Tensor) -> Affine | None:
    """The tensor as an affine one, if it is: a splat has no terms."""
    if isinstance(tensor, Splat) and not tensor.element.is_float and tensor.element.base != "ptr":
        return Affine(tensor.scalar, (), tensor.bits)
    return tensor if isinstance(tensor, Affine) else None


def add(f: FunctionBuilder, a: Affine, b: Affine) -> Affine:
    """The sum."""
    return Affine(_plus(f, a.base, b.base), _merged((*a.terms, *b.terms)), a.bits)


def multiply(f: FunctionBuilder, a: Affine, factor: Operand) -> Affine:
    """Each element times a scalar of its type."""
    if factor.is_literal:
        number = int(factor.text)
        terms = [Term(t.stride, tuple(number * c for c in t.coefficients)) for t in a.terms]
    else:
        terms = [Term(_times(f, factor, t.stride), t.coefficients) for t in a.terms]
    return Affine(_times(f, a.base, factor), _merged(terms), a.bits)


def viewed(a: Affine, source_bits: Sequence[int | None], bits: int) -> Affine:
    """A view: bit i of an element's number in ``a`` is bit ``source_bits[i]`` of the result's."""

    def moved(coefficients: Sequence[int]) -> tuple[int, ...]:
        new = [0] * bits
        for coefficient, bit in zip(coefficients, source_bits, strict=True):
            if bit is not None:
                new[bit] += coefficient
        return tuple(new)

    return Affine(a.base, _merged([Term(t.stride, moved(t.coefficients)) for t in a.terms]), bits)


def make_range(start: int, bits: int, element: IRType) -> Affine:
    """``start``, ``start + 1``, …"""
    term = Term(None, tuple(1 << bit for bit in range(bits)))
    return Affine(constant(element, start), (term,) if bits else (), bits)


def _merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    sums: dict[Operand | None, tuple[int, ...]] = {}
    for term in terms:
        old = sums.get(term.stride, (0,) * len(term.coefficients))
        sums[term.stride] = tuple(a + b for a, b in zip(old, term.coefficients, strict=True))
    return tuple(Term(stride, coefficients) for stride, coefficients in sums.items() if any(coefficients))


def _plus(f: FunctionBuilder, a: Operand, b: Operand) -> Operand:
    if a.is_literal and b.is_literal:
        return constant(a.type, int(a.text) + int(b.text))
    if b.is_literal and b.text == "0":
        return a
    return b if a.is_literal and a.text == "0" else f.binary("add", a, b)


def _times(f: FunctionBuilder, a: Operand, b: Operand | None) -> Operand:
    if b is None:
        return a
    if a.is_literal and b.is_literal:
        return constant(a.type, int(a.text) * int(b.text))
    if a.is_literal and int(a.text) in (0, 1):
        return b if int(a.text) else a
    if b.is_literal and int(b.text) in (0, 1):
        return a if int(b.text) else b
    return f.binary("mul", a, b)
