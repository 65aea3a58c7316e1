"""Code written twice: once for elements whose masks are all true and whose offsets are consecutive, once for others.

What the first needs is tested by a few scalar instructions for many vectors at once; tails take the second.
"""

import functools
from collections.abc import Iterable, Sequence

from hf_tle_int8.backend.ir import Operand
from hf_tle_int8.backend.tensors.branches import Body, choose
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor


def reached(tensors: Iterable[Tensor], index: Index) -> list[tuple[Tensor, Index]]:
    """All that the elements of ``tensors`` at ``index`` are computed from, each with the index that it is asked for."""
    found: dict[tuple[Tensor, Index], None] = {}
    pending = [(tensor, index) for tensor in tensors]
    while pending:
        pair = pending.pop()
        if pair not in found:
            found[pair] = None
            pending += pair[0].inputs(pair[1])
    return list(found)


def versioned(
    e: Evaluator, tensors: Sequence[Tensor], masks: Sequence[Tensor], index: Index, body: Body, otherwise: Body
) -> list[Operand]:
    """Write ``body`` for regular elements and ``otherwise`` for the rest.

    Args:
        e: where the code goes.
        tensors: what the two compute with.
        masks: further tensors that must be true.
        index: a lane for each element that the two ask for.
        body: writes the common case, in which masks are not looked at; gives as many operands as ``otherwise``.
        otherwise: writes the general case.

    Returns:
        What the one that was run gave.
    """
    conditions, regular = _conditions(e, [*((mask, index) for mask in masks), *_assumptions(tensors, index)])
    if not conditions:
        return list(body())

    def plain() -> Sequence[Operand]:
        with e.scope(regular):
            return body()

    return choose(e, functools.reduce(lambda a, b: e.f.binary("and", a, b), conditions), plain, otherwise, likely=True)


def _assumptions(tensors: Sequence[Tensor], index: Index) -> list[tuple[Tensor, Index]]:
    return [(t.assumption, place) for t, place in reached(tensors, index) if t.assumption is not None]


def _conditions(e: Evaluator, wanted: Sequence[tuple[Tensor, Index]]) -> tuple[list[Operand], set[Tensor]]:
    """Tests for all tensors that have one for each index at which they are asked for, and these tensors."""
    tests = {pair: pair[0].regular_if(e, pair[1]) for pair in wanted}
    untested = {tensor for (tensor, _), test in tests.items() if test is None}
    known = {pair[0]: None for pair in tests if pair[0] not in untested}
    return list(dict.fromkeys(test for (t, _), test in tests.items() if test and t in known)), set(known)
