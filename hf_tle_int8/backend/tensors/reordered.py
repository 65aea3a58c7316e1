"""Tensors in memory of the kernel's own whose elements lie in an order other than row-major."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_tle_int8.backend.ir import I8, IRType, Operand
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.chunks import in_memory
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.memory import row_major
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor, View


@dataclass(eq=False)
class Reordered(Tensor):
    """Bit i of an element's place in memory is bit ``order[i]`` of its number.

    Attributes:
        view: of the memory.
    """

    place: Operand
    element: IRType
    order: Sequence[int]
    bits: int = field(init=False)
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.bits = len(self.order)
        self.view = View(row_major(self.place, self.element, self.bits), self.order, self.bits)

    @property
    def address(self) -> Address:
        """Where the elements are, by their places."""
        return row_major(self.place, self.element, self.bits).address

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        return e.at(self.view, index)

    @property
    def parts(self) -> Sequence[Tensor]:
        """The memory."""
        return (self.view,)


def copy_reordered(
    e: Evaluator, target: Target, tensor: Tensor, order: Sequence[int], place: Operand | None = None
) -> Reordered:
    """All elements, computed now and stored in ``order`` (see `Reordered`) in new memory, or at ``place``."""
    assert tensor.element.bits >= I8.bits
    result = Reordered(place or e.f.allocate(tensor.element, 1 << tensor.bits), tensor.element, order)
    by_place = View(tensor, [order.index(bit) for bit in range(tensor.bits)], tensor.bits)
    in_memory(e, target, by_place, 0, result.place)
    return result
