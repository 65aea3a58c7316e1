"""Elementary functions, lane by lane, as LLVM IR without branches and without calls of a math library.

Every function takes the builder to write to and a scalar or vector of ``half``, ``bfloat``, ``float`` or ``double``,
and returns an operand of the same type; any other type raises TypeError. Subnormal operands and results, signed zeros,
infinities and NaN come out as IEEE 754 and C demand. The bounds of `MAX_ULP` hold with and without fused multiply-add.
The polynomials are derived and measured by ``tests/benchmarks/vector_math_errors.py``.
"""

from hf_tle_int8.backend.ir import FunctionBuilder, Operand
from hf_tle_int8.backend.vector_math.common import Emitter, in_float, like
from hf_tle_int8.backend.vector_math.exponentials import exp, exp2
from hf_tle_int8.backend.vector_math.logarithms import log, log2
from hf_tle_int8.backend.vector_math.saturating import erf, tanh

__all__ = ["FUNCTIONS", "MAX_ULP", "Emitter", "erf", "exp", "exp2", "log", "log2", "rsqrt", "tanh"]


@in_float
def rsqrt(function: FunctionBuilder, x: Operand) -> Operand:
    """1 by the square root of ``x``."""
    return function.binary("fdiv", like(x, 1.0), function.intrinsic("sqrt", x))


def _instruction(name: str) -> Emitter:
    """A function that every target has as an instruction, behind LLVM's intrinsic ``name``."""

    @in_float
    def emit(function: FunctionBuilder, x: Operand) -> Operand:
        return function.intrinsic(name, x)

    return emit


FUNCTIONS: dict[str, Emitter] = {
    "math.exp": exp,
    "math.exp2": exp2,
    "math.log": log,
    "math.log2": log2,
    "math.tanh": tanh,
    "math.erf": erf,
    "math.rsqrt": rsqrt,
    "math.sqrt": _instruction("sqrt"),
    "math.floor": _instruction("floor"),
    "math.ceil": _instruction("ceil"),
    "math.roundeven": _instruction("roundeven"),
    "math.absf": _instruction("fabs"),
}
"""The emitters by the names of MLIR's operations."""

MAX_ULP: dict[str, float] = {
    "math.exp": 1.0,
    "math.exp2": 1.0,
    "math.log": 1.0,
    "math.log2": 1.0,
    "math.tanh": 2.0,
    "math.erf": 2.0,
    "math.rsqrt": 1.5,
    "math.sqrt": 0.5,
    "math.floor": 0.0,
    "math.ceil": 0.0,
    "math.roundeven": 0.0,
    "math.absf": 0.0,
}
"""Bounds of the error in units in the last place of the exact result, for ``float`` and ``double``.

``half`` and ``bfloat`` results are those of ``float`` rounded once more, which makes them exact to 0.501 ulp.
"""
