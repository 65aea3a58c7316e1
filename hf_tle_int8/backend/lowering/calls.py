"""``tt.call``: what Triton's inliner leaves, lowered in place at each call."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hf_tle_int8.backend.ir import Operand
from hf_tle_int8.backend.lowering.blocks import lower_body
from hf_tle_int8.backend.lowering.elementwise import UnsupportedOperationError
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.affine import Affine
from hf_tle_int8.backend.tensors.stored import Literal
from hf_tle_int8.backend.tensors.values import Splat
from hf_tle_int8.backend.ttir import Operation, Region, Value


@contextmanager
def called(lowering: Lowering, call: Operation) -> Iterator[Region]:
    """The body of the function that ``call`` names, to be lowered inside of this context.

    Raises:
        UnsupportedOperationError: the function is being lowered already.
    """
    if call.callee in lowering.callees:
        raise UnsupportedOperationError(call, "of a function that calls itself is not supported on CPUs")
    lowering.callees.append(call.callee)
    yield call.callee.regions[0]
    lowering.callees.pop()


def _call(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    with called(lowering, operation) as body:
        lowering.define(body.entry.arguments, [_argument(lowering, value) for value in operation.operands])
        return lower_body(lowering, body, operation.results)


def _argument(lowering: Lowering, value: Value) -> Lowered:
    """A value that costs little wherever the function uses it."""
    given = lowering.lowered(value)
    return given if isinstance(given, Operand | Splat | Affine | Address | Literal) else lowering.keep(value, given)


CALLS: dict[str, Handler] = {"tt.call": _call}
