"""What a loop carries when it adds products to it: accumulators as they are, in registers or in memory."""

from collections.abc import Sequence

from hf_tle_int8.backend.dot.accumulator import Accumulator, no_excess, start
from hf_tle_int8.backend.dot.plan import Plan
from hf_tle_int8.backend.ir import Operand
from hf_tle_int8.backend.lowering.carried import Slot
from hf_tle_int8.backend.lowering.dot import accumulated_by
from hf_tle_int8.backend.lowering.function import Lowered, Lowering
from hf_tle_int8.backend.tensors.reordered import Reordered, copy_reordered
from hf_tle_int8.backend.tensors.values import Tensor
from hf_tle_int8.backend.ttir import TensorType, Value


class AccumulatorSlot(Slot):
    """Accumulators in registers."""

    def __init__(self, lowering: Lowering, plan: Plan):
        self._lowering, self._plan = lowering, plan

    def operands(self, value: Lowered) -> list[Operand]:
        """The accumulators, and what is too much in them."""
        assert isinstance(value, Tensor)
        sums = start(self._lowering.e, self._plan, value)
        return [*sums.vectors, *sums.pending]

    def value(self, operands: Sequence[Operand]) -> Lowered:
        """The tensor."""
        count = len(operands) - len(no_excess(self._plan))
        return Accumulator(self._plan, operands[:count], operands[count:])


class BlocksSlot(Slot):
    """Accumulators in memory of the slot's own, to which products may be added in place."""

    def __init__(self, lowering: Lowering, plan: Plan):
        self._lowering = lowering
        kind = plan.instruction.accumulator
        place = lowering.f.allocate(kind, 1 << len(plan.layout))
        self._tensor = Reordered(place, kind, plan.layout)
        self._staged: Tensor | None = None

    def operands(self, value: Lowered) -> list[Operand]:
        """None; what is not in the slot already is computed into other memory, from which `commit` copies it."""
        assert isinstance(value, Tensor)
        self._staged = None if value is self._tensor else self._copy(value)
        return []

    def commit(self) -> None:
        """Copy what `operands` was given last into the slot."""
        if self._staged is not None:
            self._copy(self._staged, self._tensor.place)

    def value(self, operands: Sequence[Operand]) -> Lowered:
        """The tensor."""
        return self._tensor

    def _copy(self, tensor: Tensor, place: Operand | None = None) -> Tensor:
        return copy_reordered(self._lowering.e, self._lowering.target, tensor, self._tensor.order, place)


def accumulator_slot(lowering: Lowering, argument: Value) -> Slot | None:
    """A slot for an argument of a loop that products are added to; None for any other."""
    plan = accumulated_by(lowering.target, argument) if isinstance(argument.type, TensorType) else None
    if plan is None:
        return None
    return AccumulatorSlot(lowering, plan) if plan.in_registers else BlocksSlot(lowering, plan)
