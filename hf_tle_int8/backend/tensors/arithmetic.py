"""Operations on indices whose meaning decides how memory is accessed: comparisons, sums, remainders."""

from dataclasses import dataclass

import numpy as np

from hf_tle_int8.backend.ir import Operand, constant
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor

_INVERSES = {"slt": "sge", "sle": "sgt", "ult": "uge", "ule": "ugt"}
_INVERSES |= {inverse: predicate for predicate, inverse in _INVERSES.items()}


@dataclass(eq=False)
class Comparison(Elementwise):
    """Integers compared by ``predicate``, as LLVM calls it."""

    predicate: str

    def test(self, e: Evaluator, index: Index, wanted: bool) -> Operand | None:
        """Whether the largest of what must be small is smaller than the smallest of the other side."""
        if not self.varies(index) or self.predicate not in _INVERSES:
            return super().test(e, index, wanted)
        a, b = (_ends(e, operand, index) for operand in self.operands)
        if a is None or b is None:
            return None
        predicate = self.predicate if wanted else _INVERSES[self.predicate]
        ascending = predicate[1] == "l"
        condition = e.f.compare(predicate, a[ascending], b[not ascending])
        for low, high in (a, b):
            # Lanes that wrap make the last one the smaller.
            if low != high:
                condition = e.f.binary("and", condition, e.f.compare(f"{predicate[0]}le", low, high))
        return condition


@dataclass(eq=False)
class Conjunction(Elementwise):
    """The bitwise conjunction of integers: of truth values, true where both operands are."""

    def test(self, e: Evaluator, index: Index, wanted: bool) -> Operand | None:
        """Whether both operands are true everywhere, or one is false everywhere."""
        a, b = (operand.test(e, index, wanted) for operand in self.operands)
        if a is None or b is None:
            return None if wanted else a or b
        return e.f.binary("and" if wanted else "or", a, b)


@dataclass(eq=False)
class ExclusiveOr(Elementwise):
    """The bits that differ."""


@dataclass(eq=False)
class Sum(Elementwise):
    """The sum of integers."""

    def distances(self, e: Evaluator, index: Index) -> np.ndarray | None:
        """Those of the one operand that varies."""
        if all(operand.varies(index) for operand in self.operands):
            return None
        a, b = (operand.distances(e, index) for operand in self.operands)
        return None if a is None or b is None else a + b


@dataclass(eq=False)
class Extension(Elementwise):
    """Wider integers of the same values."""

    def distances(self, e: Evaluator, index: Index) -> np.ndarray | None:
        """Those of the narrow integers."""
        return self.operands[0].distances(e, index)


@dataclass(eq=False)
class Remainder(Elementwise):
    """Remainders of a division.

    Attributes:
        kept: the remainders, where they have been computed already.
    """

    kept: Tensor | None = None

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        return super().compute(e, index) if self.kept is None else e.at(self.kept, index)

    @property
    def assumption(self) -> Tensor | None:
        """This one."""
        return self

    def distances(self, e: Evaluator, index: Index) -> np.ndarray | None:
        """Those of the dividends, where the remainders are consecutive."""
        return self.operands[0].distances(e, index) if e.assumed(self) else super().distances(e, index)

    def test(self, e: Evaluator, index: Index, wanted: bool) -> Operand | None:
        """Whether first and last are as far apart as their dividends: then all have been divided alike."""
        if not wanted or not self.varies(index) or self.operands[1].varies(index):
            return None
        distances = self.operands[0].distances(e, index)
        if distances is None:
            return None
        low, high = (e.at(self, index.lane(int(lane))) for lane in (distances.argmin(), distances.argmax()))
        return e.f.compare("eq", e.f.binary("sub", high, low), constant(low.type, int(np.ptp(distances))))


def _ends(e: Evaluator, tensor: Tensor, index: Index) -> tuple[Operand, Operand] | None:
    """The smallest and the largest of the lanes of ``index``, if these do not wrap."""
    distances = tensor.distances(e, index)
    if distances is None:
        return None
    low, high = (e.at(tensor, index.lane(int(lane))) for lane in (distances.argmin(), distances.argmax()))
    return low, high
