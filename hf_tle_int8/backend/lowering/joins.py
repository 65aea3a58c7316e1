"""Places that control reaches from several others, each with values of its own."""

from collections.abc import Sequence

from hf_tle_int8.backend.ir import Label, Operand
from hf_tle_int8.backend.lowering.carried import Slot, slot_for
from hf_tle_int8.backend.lowering.function import Lowered, Lowering
from hf_tle_int8.backend.ttir import Value


class Join:
    """A place in the function that `enter` jumps to, with values for slots of the types of ``given``."""

    def __init__(self, lowering: Lowering, hint: str, given: Sequence[Value]):
        self._lowering = lowering
        self._label = lowering.f.label(hint)
        self._slots = [slot_for(lowering, value) for value in given]
        self._ends: list[tuple[Label, list[list[Operand]]]] = []

    def enter(self, values: Sequence[Value]) -> None:
        """Go there from the current block."""
        parts = fill(self._slots, [self._lowering.lowered(value) for value in values])
        self._ends.append((self._lowering.f.current, parts))
        self._lowering.f.jump(self._label)

    def place(self) -> list[Lowered]:
        """Continue there, behind all calls of `enter`; gives what is in the slots."""
        f, shape = self._lowering.f, self._ends[0][1]
        f.place(self._label)
        joined = [f.phi(operand.type) for operand in flat(shape)]
        for end, parts in self._ends:
            for phi, operand in zip(joined, flat(parts), strict=True):
                f.add_incoming(phi, operand, end)
        return values_of(self._slots, shape, joined)


def fill(slots: Sequence[Slot], values: Sequence[Lowered]) -> list[list[Operand]]:
    """Put a value into each slot; gives the operands of each."""
    parts = [slot.operands(value) for slot, value in zip(slots, values, strict=True)]
    for slot in slots:
        slot.commit()
    return parts


def values_of(slots: Sequence[Slot], shape: list[list[Operand]], operands: Sequence[Operand]) -> list[Lowered]:
    """The values of the slots from all of their operands in a row; ``shape`` has as many a slot."""
    values, position = [], 0
    for slot, part in zip(slots, shape, strict=True):
        values.append(slot.value(operands[position : position + len(part)]))
        position += len(part)
    return values


def flat(parts: Sequence[Sequence[Operand]]) -> list[Operand]:
    """The operands of all slots in a row."""
    return [operand for part in parts for operand in part]
