"""Loops and branches."""

from collections.abc import Sequence

from hf_tle_int8.backend.lowering.accumulators import accumulator_slot
from hf_tle_int8.backend.lowering.carried import loop_slot, slot_for
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering
from hf_tle_int8.backend.lowering.joins import Join, fill, flat, values_of
from hf_tle_int8.backend.ttir import Operation


def _for(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    bounds, initials = operation.operands[:3], operation.operands[3:]
    block = operation.regions[0].entry
    index, arguments = block.arguments[0], block.arguments[1:]
    triples = zip(initials, arguments, block.terminator.operands, strict=True)
    slots = [accumulator_slot(lowering, triple[1]) or loop_slot(lowering, *triple) for triple in triples]
    start = fill(slots, [lowering.lowered(value) for value in initials])
    low, high, step = map(lowering.scalar, bounds)
    loop = lowering.f.counted_loop(low, high, step, flat(start), "unsignedCmp" in operation.attributes)
    with lowering.e.scope():
        lowering.define([index], [loop.index])
        lowering.define(arguments, values_of(slots, start, loop.carried))
        terminator = lowering.run(block)
        following = fill(slots, [lowering.lowered(value) for value in terminator.operands])
    loop.close(flat(following))
    return values_of(slots, start, loop.carried)


def _if(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    f, behind = lowering.f, Join(lowering, "behind", operation.results)
    sides = f.label("then"), f.label("else")
    f.branch(lowering.scalar(operation.operands[0]), *sides)
    for region, side in zip(operation.regions, sides, strict=True):
        f.place(side)
        with lowering.e.scope():
            behind.enter(lowering.run(region.entry).operands if region.blocks else ())
    return behind.place()


def _while(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    f, e = lowering.f, lowering.e
    before, after = (region.entry for region in operation.regions)
    slots = [slot_for(lowering, argument) for argument in before.arguments]
    passed = [slot_for(lowering, argument) for argument in after.arguments]
    initial = fill(slots, [lowering.lowered(value) for value in operation.operands])
    entered, header, body, leave = f.current, f.label("while"), f.label("do"), f.label("done")
    f.jump(header)
    f.place(header)
    phis = [f.phi(operand.type) for operand in flat(initial)]
    for phi, operand in zip(phis, flat(initial), strict=True):
        f.add_incoming(phi, operand, entered)
    with e.scope():
        lowering.define(before.arguments, values_of(slots, initial, phis))
        condition, *values = lowering.run(before).operands
        parts = fill(passed, [lowering.lowered(value) for value in values])
        f.branch(lowering.scalar(condition), body, leave)
        f.place(body)
        with e.scope():
            lowering.define(after.arguments, values_of(passed, parts, flat(parts)))
            following = fill(slots, [lowering.lowered(value) for value in lowering.run(after).operands])
        for phi, operand in zip(phis, flat(following), strict=True):
            f.add_incoming(phi, operand, f.current)
        f.jump(header)
    f.place(leave)
    return values_of(passed, parts, flat(parts))


def _nothing(_: Lowering, __: Operation) -> Sequence[Lowered]:
    """What only helps other compilers, or orders the threads of a program, which is one thread here."""
    return ()


CONTROL_FLOW: dict[str, Handler] = {
    "scf.for": _for,
    "scf.if": _if,
    "scf.while": _while,
    "ttg.barrier": _nothing,
}
