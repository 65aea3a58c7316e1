"""Tensors of pointers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_tle_int8.backend.casts import integer_cast
from hf_tle_int8.backend.ir import I64, PTR, IRType, Operand
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor


@dataclass(eq=False)
class Address(Tensor):
    """Pointers: a scalar or a tensor of them, and offsets in elements of ``pointee``, extended by sign and added.

    Within one tensor, an affine offset is taken not to wrap between lanes, as Triton's own analysis of contiguity does.
    """

    base: Operand | Tensor
    offsets: tuple[Tensor, ...]
    pointee: IRType
    bits: int
    element: IRType = PTR

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The pointers at ``index``."""
        f = e.f
        pointer = self.base if isinstance(self.base, Operand) else e.at(self.base, index)
        for offset in self.offsets:
            pointer = f.offset(pointer, integer_cast(f, True, e.at(offset, index), I64), self.pointee)
        return pointer

    def varies(self, index: Index) -> bool:
        """Where the base or an offset does."""
        base_varies = isinstance(self.base, Tensor) and self.base.varies(index)
        return base_varies or any(offset.varies(index) for offset in self.offsets)

    @property
    def parts(self) -> Sequence[Tensor]:
        """Base and offsets."""
        return (*((self.base,) if isinstance(self.base, Tensor) else ()), *self.offsets)

    def neighbours(self, e: Evaluator, index: Index) -> tuple[Operand, list[int]] | None:
        """The pointer of lane 0 and the distance of each lane to it in elements; None where these are not literals."""
        distances = self.distances(e, index)
        return None if distances is None else (e.at(self, index.first_lane), distances.tolist())

    def is_contiguous(self, e: Evaluator, index: Index) -> bool:
        """Whether each lane is known to be the neighbour of the one before."""
        distances = self.distances(e, index)
        return distances is not None and bool(np.all(np.diff(distances) == 1))

    def distances(self, e: Evaluator, index: Index) -> np.ndarray | None:
        """How many elements each lane is behind lane 0, int64 ``[lanes]``; None where that is not known."""
        if isinstance(self.base, Tensor) and self.base.varies(index):
            return None
        total = np.zeros(index.lanes, np.int64)
        for offset in self.offsets:
            distances = offset.distances(e, index)
            if distances is None:
                return None
            total += distances
        return total
