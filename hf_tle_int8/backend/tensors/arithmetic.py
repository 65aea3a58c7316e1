"""Operations on indices whose meaning decides how memory is accessed: comparisons, sums, remainders."""

from dataclasses import dataclass

import numpy as np

from hf_tle_int8.backend.ir import Operand, constant
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor

# Of integer predicates: whether the left side is the smaller one, and which predicate orders the operands.
_ORDERS = {
    **dict.fromkeys(("slt", "sle"), (True, "sle")),
    **dict.fromkeys(("sgt", "sge"), (False, "sle")),
    **dict.fromkeys(("ult", "ule"), (True, "ule")),
    **dict.fromkeys(("ugt", "uge"), (False, "ule")),
}


@dataclass(eq=False)
class Comparison(Elementwise):
    """Integers compared by ``predicate``, as LLVM calls it."""

    predicate: str

    def regular_if(self, e: Evaluator, index: Index) -> Operand | None:
        """Whether the largest of what must be small is smaller than the smallest of the other side."""
        if not self.varies(index) or self.predicate not in _ORDERS:
            return super().regular_if(e, index)
        ascending, order = _ORDERS[self.predicate]
        a, b = (_ends(e, operand, index) for operand in self.operands)
        if a is None or b is None:
            return None
        condition = e.f.compare(self.predicate, a[ascending], b[not ascending])
        for low, high in (a, b):
            # Lanes that wrap make the last one the smaller.
            if low != high:
                condition = e.f.binary("and", condition, e.f.compare(order, low, high))
        return condition


@dataclass(eq=False)
class Conjunction(Elementwise):
    """The bitwise conjunction of integers: of truth values, true where both operands are."""

    def regular_if(self, e: Evaluator, index: Index) -> Operand | None:
        """Whether both operands are true everywhere."""
        a, b = (operand.regular_if(e, index) for operand in self.operands)
        return None if a is None or b is None else e.f.binary("and", a, b)


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
    """Integers extended by sign."""

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
        return self.operands[0].distances(e, index) if e.is_regular(self) else super().distances(e, index)

    def regular_if(self, e: Evaluator, index: Index) -> Operand | None:
        """Whether first and last are as far apart as their dividends: then all have been divided alike."""
        if not self.varies(index) or self.operands[1].varies(index):
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
