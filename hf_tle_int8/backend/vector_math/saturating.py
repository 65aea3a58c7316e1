"""``tanh`` and ``erf``: an odd polynomial around 0, and 1 minus something that exp2 computes farther out.

Both branches are computed in every lane and the right one is selected.
"""

import math

from hf_tle_int8.backend.ir import FunctionBuilder, Operand
from hf_tle_int8.backend.vector_math import tables
from hf_tle_int8.backend.vector_math.common import at_most, format_of, horner, in_float, like, multiply_add
from hf_tle_int8.backend.vector_math.exponentials import moderate_exp2


@in_float
def tanh(function: FunctionBuilder, x: Operand) -> Operand:
    """The hyperbolic tangent of ``x``; far from 0 it is 1 - 2 / (exp(2 * |x|) + 1)."""
    magnitude = function.intrinsic("fabs", x)
    square = function.binary("fmul", magnitude, magnitude)
    rest = function.binary("fmul", square, horner(function, square, tables.TANH[x.type.base]))
    near = multiply_add(function, magnitude, rest, magnitude)

    # 1 - tanh(x) is about 2 * exp(-2 * x): from here on less than a quarter of an ulp of 1.
    bounded = at_most(function, magnitude, (format_of(x).mantissa_bits + 4) * math.log(2) / 2)
    power = moderate_exp2(function, function.binary("fmul", bounded, like(x, 2 / math.log(2))))
    quotient = function.binary("fdiv", like(x, 2.0), function.binary("fadd", power, like(x, 1.0)))
    far = function.binary("fsub", like(x, 1.0), quotient)
    return _joined(function, x, near, far, tables.TANH_SWITCH)


@in_float
def erf(function: FunctionBuilder, x: Operand) -> Operand:
    """The error function of ``x``; far from 0 it is 1 - 2**G(|x|) with a polynomial G for log2(erfc)."""
    magnitude = function.intrinsic("fabs", x)
    square = function.binary("fmul", magnitude, magnitude)
    near = multiply_add(function, magnitude, horner(function, square, tables.ERF[x.type.base]), magnitude)

    bounded = at_most(function, magnitude, tables.ERF_IS_ONE[x.type.base])
    complement = moderate_exp2(function, horner(function, bounded, tables.LOG2_ERFC[x.type.base]))
    far = function.binary("fsub", like(x, 1.0), complement)
    return _joined(function, x, near, far, tables.ERF_SWITCH)


def _joined(function: FunctionBuilder, x: Operand, near: Operand, far: Operand, switch: float) -> Operand:
    """``near`` where ``|x| < switch``, ``far`` elsewhere (for NaN too), with the sign of ``x``."""
    magnitude = function.intrinsic("fabs", x)
    chosen = function.select(function.compare("olt", magnitude, like(x, switch)), near, far)
    return function.intrinsic("copysign", chosen, x)
