"""``tl.assume``: what a kernel promises, taken out of its code before that is lowered.

One promise changes what is written: ``tl.assume(tl.min(x) > -128)`` of an int8 ``x`` that is the left operand of a
``tl.dot``. What a promise alone needs is not computed.
"""

from hf_tle_int8.backend.ttir import Block, Operation, Value

# The attribute of a product whose left operand holds no -128.
WITHOUT_LEAST = "without_least"

_ASSUME = "llvm.intr.assume"
_LEAST_OF_INT8 = -128
# What keeps every element of a tensor, and changes none.
_KEEPING = frozenset({"arith.extsi", "tt.reshape", "tt.trans", "tt.expand_dims"})
# What may go where nothing reads it.
_PURE = _KEEPING | {"arith.constant", "arith.cmpi", "arith.andi", "tt.reduce", "tt.splat", "tt.broadcast"}
_GREATER, _GREATER_OR_EQUAL = 4, 5


def take_assumptions(function: Operation) -> None:
    """Mark the products that a promise speaks of by `WITHOUT_LEAST`, and remove all promises from ``function``."""
    for assumption in [operation for operation in function.walk() if operation.name == _ASSUME]:
        for value in _without_least(assumption.operands[0]):
            for use in value.uses:
                if use.name == "tt.dot" and use.operands[0] is value and _is_inside(use, assumption.parent):
                    use.attributes[WITHOUT_LEAST] = True
        _remove(assumption)


def _is_inside(operation: Operation, block: Block | None) -> bool:
    """Whether ``operation`` is in ``block`` or nested in it: what is promised there holds for it."""
    around = operation.parent
    while around is not None and around is not block:
        owner = around.region.parent if around.region else None
        around = owner.parent if owner else None
    return around is not None


def _without_least(condition: Value) -> list[Value]:
    """The tensors of which ``condition`` says that their least element is more than -128."""
    comparison = condition.defining_op
    if comparison is None or comparison.name != "arith.cmpi":
        return []
    least, bound = (operand.defining_op for operand in comparison.operands)
    if bound is None or bound.name != "arith.constant" or least is None or least.name != "tt.reduce":
        return []
    least_allowed = {_GREATER: _LEAST_OF_INT8, _GREATER_OR_EQUAL: _LEAST_OF_INT8 + 1}
    if bound.attributes["value"] < least_allowed.get(comparison.attributes["predicate"], float("inf")):
        return []
    first, *_ = least.regions[0].entry.operations
    if first.name != "arith.minsi" or least.regions[0].entry.terminator.operands != first.results:
        return []
    found = [least.operands[0]]
    while (source := found[-1].defining_op) is not None and source.name in _KEEPING:
        found.append(source.operands[0])
    return found


def _remove(operation: Operation) -> None:
    """Take ``operation`` out, and what was computed for it alone."""
    assert operation.parent is not None
    operation.parent.operations.remove(operation)
    for operand in operation.operands:
        operand.uses.remove(operation)
    for operand in operation.operands:
        source = operand.defining_op
        if source is not None and source.name in _PURE and source.parent is not None and not operand.uses:
            _remove(source)
