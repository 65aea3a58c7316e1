"""Loops and branches."""

from collections.abc import Sequence

from hf_tle_int8.backend.ir import Label, Operand
from hf_tle_int8.backend.lowering.accumulators import accumulator_slot
from hf_tle_int8.backend.lowering.carried import Slot, loop_slot, slot_for
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering
from hf_tle_int8.backend.ttir import Operation, Region


def _for(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    bounds, initials = operation.operands[:3], operation.operands[3:]
    block = operation.regions[0].entry
    index, arguments = block.arguments[0], block.arguments[1:]
    triples = zip(initials, arguments, block.terminator.operands, strict=True)
    slots = [accumulator_slot(lowering, triple[1]) or loop_slot(lowering, *triple) for triple in triples]
    start = _fill(slots, [lowering.lowered(value) for value in initials])
    low, high, step = map(lowering.scalar, bounds)
    loop = lowering.f.counted_loop(low, high, step, _flat(start))
    with lowering.e.scope():
        lowering.define([index], [loop.index])
        lowering.define(arguments, _values(slots, start, loop.carried))
        terminator = lowering.run(block)
        following = _fill(slots, [lowering.lowered(value) for value in terminator.operands])
    loop.close(_flat(following))
    return _values(slots, start, loop.carried)


def _fill(slots: Sequence[Slot], values: Sequence[Lowered]) -> list[list[Operand]]:
    parts = [slot.operands(value) for slot, value in zip(slots, values, strict=True)]
    for slot in slots:
        slot.commit()
    return parts


def _values(slots: Sequence[Slot], shape: list[list[Operand]], operands: Sequence[Operand]) -> list[Lowered]:
    """The values of the slots from all of their operands in a row; ``shape`` has as many a slot."""
    values, position = [], 0
    for slot, part in zip(slots, shape, strict=True):
        values.append(slot.value(operands[position : position + len(part)]))
        position += len(part)
    return values


def _if(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    f, slots = lowering.f, [slot_for(lowering, result) for result in operation.results]
    yes, no, behind = f.label("then"), f.label("else"), f.label("behind")
    f.branch(lowering.scalar(operation.operands[0]), yes, no)
    sides = zip(operation.regions, (yes, no), strict=True)
    ends = [_branch(lowering, region, slots, label, behind) for region, label in sides]
    f.place(behind)
    joined = [_join(lowering, ends, number) for number in range(len(_flat(ends[0][1])))]
    return _values(slots, ends[0][1], joined)


def _branch(
    lowering: Lowering, region: Region, slots: Sequence[Slot], label: Label, behind: Label
) -> tuple[Label, list[list[Operand]]]:
    """Lower one side of a branch; gives where it ends and what it fills the slots with."""
    f = lowering.f
    f.place(label)
    parts: list[list[Operand]] = []
    if region.blocks:
        with lowering.e.scope():
            terminator = lowering.run(region.entry)
            parts = _fill(slots, [lowering.lowered(value) for value in terminator.operands])
    end = f.current
    f.jump(behind)
    return end, parts


def _join(lowering: Lowering, ends: Sequence[tuple[Label, list[list[Operand]]]], number: int) -> Operand:
    values = [(end, _flat(parts)[number]) for end, parts in ends]
    phi = lowering.f.phi(values[0][1].type)
    for end, value in values:
        lowering.f.add_incoming(phi, value, end)
    return phi


def _while(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    f, e = lowering.f, lowering.e
    before, after = (region.entry for region in operation.regions)
    slots = [slot_for(lowering, argument) for argument in before.arguments]
    passed = [slot_for(lowering, argument) for argument in after.arguments]
    initial = _fill(slots, [lowering.lowered(value) for value in operation.operands])
    entered, header, body, leave = f.current, f.label("while"), f.label("do"), f.label("done")
    f.jump(header)
    f.place(header)
    phis = [f.phi(operand.type) for operand in _flat(initial)]
    for phi, operand in zip(phis, _flat(initial), strict=True):
        f.add_incoming(phi, operand, entered)
    with e.scope():
        lowering.define(before.arguments, _values(slots, initial, phis))
        condition, *values = lowering.run(before).operands
        parts = _fill(passed, [lowering.lowered(value) for value in values])
        f.branch(lowering.scalar(condition), body, leave)
        f.place(body)
        with e.scope():
            lowering.define(after.arguments, _values(passed, parts, _flat(parts)))
            following = _fill(slots, [lowering.lowered(value) for value in lowering.run(after).operands])
        for phi, operand in zip(phis, _flat(following), strict=True):
            f.add_incoming(phi, operand, f.current)
        f.jump(header)
    f.place(leave)
    return _values(passed, parts, _flat(parts))


def _flat(parts: Sequence[Sequence[Operand]]) -> list[Operand]:
    return [operand for part in parts for operand in part]


CONTROL_FLOW: dict[str, Handler] = {"scf.for": _for, "scf.if": _if, "scf.while": _while}
