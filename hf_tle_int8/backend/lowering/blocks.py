"""Bodies of functions: blocks that branches join, which is what a ``return`` inside of an ``if`` becomes."""

from collections.abc import Sequence

from hf_tle_int8.backend.lowering.elementwise import UnsupportedOperationError
from hf_tle_int8.backend.lowering.function import Lowered, Lowering
from hf_tle_int8.backend.lowering.joins import Join
from hf_tle_int8.backend.ttir import Block, Operation, Region, Value


def lower_body(lowering: Lowering, body: Region, results: Sequence[Value]) -> Sequence[Lowered]:
    """Lower a function whose arguments are defined; its returns go on behind it.

    Args:
        lowering: where the instructions go.
        body: of the function.
        results: values of the types that it returns.

    Returns:
        What it returns.

    Raises:
        UnsupportedOperationError: an operation is not supported, or a branch goes back to an earlier block.
    """
    if len(body.blocks) == 1:
        return [lowering.lowered(value) for value in lowering.run(body.entry).operands]
    behind = Join(lowering, "return", results)
    joins: dict[Block, Join] = {}
    for block in forward(body):
        # What a block has computed is known only to blocks behind it, but what the first one has, to all.
        if block is body.entry:
            _end(lowering, lowering.run(block), joins, behind)
            continue
        lowering.define(block.arguments, joins[block].place())
        with lowering.e.scope():
            _end(lowering, lowering.run(block), joins, behind)
    return behind.place()


def _end(lowering: Lowering, terminator: Operation, joins: dict[Block, Join], behind: Join) -> None:
    f = lowering.f
    if terminator.name == "tt.return":
        behind.enter(terminator.operands)
        return
    for successor in terminator.successors:
        if successor not in joins:
            joins[successor] = Join(lowering, "block", successor.arguments)
    if terminator.name == "cf.br":
        joins[terminator.successors[0]].enter(terminator.operands)
        return
    if terminator.name != "cf.cond_br":
        raise UnsupportedOperationError(terminator)
    (condition,), *values = terminator.operand_segments()
    edges = f.label("yes"), f.label("no")
    f.branch(lowering.scalar(condition), *edges)
    for edge, successor, given in zip(edges, terminator.successors, values, strict=True):
        f.place(edge)
        with lowering.e.scope():
            joins[successor].enter(given)


def forward(body: Region) -> list[Block]:
    """The blocks that control reaches, each behind all that lead to it.

    Raises:
        UnsupportedOperationError: a branch goes back to an earlier one.
    """
    ordered: list[Block] = []
    open_blocks: list[Block] = []

    def visit(block: Block) -> None:
        open_blocks.append(block)
        for successor in block.terminator.successors:
            if successor in open_blocks:
                raise UnsupportedOperationError(block.terminator, "to an earlier block is not supported on CPUs")
            if successor not in ordered:
                visit(successor)
        open_blocks.pop()
        ordered.insert(0, block)

    visit(body.entry)
    return ordered
