"""Code written twice: once for elements whose masks are all true and whose offsets are consecutive, once for others.

What the first needs is tested by a few scalar instructions for many vectors at once; tails take the second. There
may be a third, for vectors behind the end of what there is, whose masks are all false.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence

from hf_tle_int8.backend.ir import I1, Operand
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
        otherwise: writes the general case, and in loops once more for where all masks are false.

    Returns:
        What the one that was run gave.
    """
    wanted = [*((mask, index) for mask in masks), *assumptions(tensors, index)]
    regular, conditions = _tests(e, wanted, True)
    if not conditions:
        return list(body())

    def assuming(assumed: Mapping[tuple[Tensor, Index], bool], write: Body) -> Body:
        def under() -> Sequence[Operand]:
            with e.scope(assumed):
                return write()

        return under

    def rest() -> Sequence[Operand]:
        absent, tests = _tests(e, [pair for pair in wanted if pair[0].element == I1], False)
        if index.is_literal or not tests or len(absent) < sum(mask.element == I1 for mask, _ in dict.fromkeys(wanted)):
            return otherwise()
        return choose(e, _all(e, tests), assuming(absent, otherwise), otherwise)

    return choose(e, _all(e, conditions), assuming(regular, body), rest, likely=True)


def assumptions(tensors: Sequence[Tensor], index: Index) -> list[tuple[Tensor, Index]]:
    """What must be regular, and where, for the elements of ``tensors`` at ``index`` to be read as plain vectors."""
    return [(t.assumption, place) for t, place in reached(tensors, index) if t.assumption is not None]


def _tests(
    e: Evaluator, asked: Sequence[tuple[Tensor, Index]], wanted: bool
) -> tuple[dict[tuple[Tensor, Index], bool], list[Operand]]:
    """Those tensors that have a test at each index that they are asked for, with ``wanted``, and these tests."""
    tests = {pair: pair[0].test(e, pair[1], wanted) for pair in asked}
    untested = {tensor for (tensor, _), test in tests.items() if test is None}
    known = {pair: test for pair, test in tests.items() if test is not None and pair[0] not in untested}
    return dict.fromkeys(known, wanted), list(dict.fromkeys(known.values()))


def _all(e: Evaluator, conditions: Sequence[Operand]) -> Operand:
    return functools.reduce(lambda a, b: e.f.binary("and", a, b), conditions)
