"""The table of tiles in kernels/README.md is that of `dispatch.SCHEMES`, with the registers that the compiler plans."""

from collections import defaultdict

from conftest import REPOSITORY
from linear_runs import choices

from hf_tle_int8.backend.dot.plan import plan
from hf_tle_int8.backend.ir import I8
from hf_tle_int8.backend.target import TARGETS
from hf_tle_int8.dispatch import SCHEMES

HEAD = (
    "| targets | instruction | k | tile | accumulators | weights | activations | compensation | of |",
    "|---|---|---|---|---|---|---|---|---|",
)


def planned(target, choice):
    k = choice.steps * SCHEMES[target.name].packing.group
    return plan(target, I8, (choice.tile_m, k), (k, choice.tile_n), without_least=True)


def registers(target, choice):
    """Those of accumulators, weights, activations and compensation, as the compiler plans them, and all there are."""
    found = planned(target, choice)
    assert found.in_registers
    weights, rows = found.instruction.column_registers, found.instruction.row_registers
    if found.holds_columns:
        weights <<= found.column_block
    else:
        rows <<= found.row_block
    excess = 1 << found.column_block if found.compensated else 0
    there_are = target.tile_registers if found.instruction.tiles else target.vector_registers
    return 1 << (found.row_block + found.column_block), weights, rows, excess, there_are


def lines(target):
    """A line for each tile, without the name of the target."""
    for choice in choices(target):
        k, tile = choice.steps * SCHEMES[target.name].packing.group, f"{choice.tile_m} by {choice.tile_n}"
        instruction = planned(target, choice).instruction.name
        yield " | ".join([instruction, str(k), tile, *map(str, registers(target, choice))])


def table():
    """Targets with the same tiles share their lines."""
    names = defaultdict(list)
    for target in TARGETS.values():
        names[tuple(lines(target))].append(target.name)
    return [*HEAD, *(f"| {', '.join(same)} | {line} |" for group, same in names.items() for line in group)]


def test_the_table_of_tiles():
    text = (REPOSITORY / "kernels/README.md").read_text()
    assert "\n".join(table()) in text, "the table is to be:\n" + "\n".join(table())


def test_tiles_fit_the_registers():
    for target in TARGETS.values():
        for choice in choices(target):
            *used, there_are = registers(target, choice)
            assert sum(used) < there_are, "one is for a constant or for what is multiplied at the moment"
