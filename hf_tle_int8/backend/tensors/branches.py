"""One of two pieces of code that compute the same vectors."""

from collections.abc import Callable, Sequence

from hf_tle_int8.backend.ir import Operand
from hf_tle_int8.backend.tensors.values import Evaluator

Body = Callable[[], Sequence[Operand]]


def choose(e: Evaluator, condition: Operand, yes: Body, no: Body, likely: bool = False) -> list[Operand]:
    """Write both pieces, of which one is run.

    Args:
        e: where the code goes.
        condition: a scalar truth value.
        yes: writes what is run where it is true; gives as many operands as ``no``.
        no: writes what is run elsewhere.
        likely: whether nearly always ``yes`` is run.

    Returns:
        What the one that was run gave.
    """
    f, ends = e.f, []
    inside, outside, behind = f.label("yes"), f.label("no"), f.label("either")
    f.branch(condition, inside, outside, likely)
    for label, write in ((inside, yes), (outside, no)):
        f.place(label)
        with e.scope():
            results = write()
        ends.append((f.current, results))
        f.jump(behind)
    f.place(behind)
    phis = [f.phi(result.type) for result in ends[0][1]]
    for end, results in ends:
        for phi, result in zip(phis, results, strict=True):
            f.add_incoming(phi, result, end)
    return phis
