"""``exp`` and ``exp2``: argument reduction, a polynomial, and a scaling by a power of two.

The reduction is that of W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980): with n the
integer nearest to x / ln 2, x - n * ln 2 is computed by a ln 2 split in two, of which the first part has so few bits
that its product with n is exact.
"""

import math

from hf_tle_int8.backend.ir import FunctionBuilder, Operand
from hf_tle_int8.backend.vector_math import tables
from hf_tle_int8.backend.vector_math.common import at_least, at_most, format_of, horner, in_float, like, multiply_add


@in_float
def exp(function: FunctionBuilder, x: Operand) -> Operand:
    """e to the power ``x``."""
    x = _clamped(function, x, math.log(2))
    shifted = multiply_add(function, x, like(x, 1 / math.log(2)), like(x, format_of(x).shifter))
    n = function.binary("fsub", shifted, like(x, format_of(x).shifter))
    high, low = tables.LN2[x.type.base]
    r = multiply_add(function, n, like(x, -high), x)
    r = multiply_add(function, n, like(x, -low), r)
    square = function.binary("fmul", r, r)
    rest = multiply_add(function, square, horner(function, r, tables.EXP[x.type.base]), r)
    power = function.binary("fadd", rest, like(x, 1.0))
    return _scaled_with_underflow(function, power, _exponent(function, shifted))


@in_float
def exp2(function: FunctionBuilder, x: Operand) -> Operand:
    """2 to the power ``x``; exact where ``x`` is an integer."""
    power, exponent = _exp2_parts(function, _clamped(function, x, 1.0))
    return _scaled_with_underflow(function, power, exponent)


def moderate_exp2(function: FunctionBuilder, x: Operand) -> Operand:
    """2 to the power ``x`` for ``float`` and ``double`` ``x`` whose result is neither subnormal nor overflows."""
    power, exponent = _exp2_parts(function, x)
    return function.binary("fmul", power, _power_of_two(function, exponent, power))


def _clamped(function: FunctionBuilder, x: Operand, unit: float) -> Operand:
    """``x`` between the powers, in units of ``unit``, from which results are 0 and infinite for certain."""
    form = format_of(x)
    return at_least(function, at_most(function, x, (form.bias + 2) * unit), (form.smallest_exponent - 2) * unit)


def _exp2_parts(function: FunctionBuilder, x: Operand) -> tuple[Operand, Operand]:
    """2 to the power of the distance from ``x`` to its nearest integer, and that integer."""
    shifter = like(x, format_of(x).shifter)
    shifted = function.binary("fadd", x, shifter)
    r = function.binary("fsub", x, function.binary("fsub", shifted, shifter))
    # The product with 0.5 is exact and leaves little to the other product and its rounding errors.
    rest = function.binary("fmul", r, horner(function, r, tables.EXP2[x.type.base]))
    power = function.binary("fadd", multiply_add(function, r, like(x, 0.5), rest), like(x, 1.0))
    return power, _exponent(function, shifted)


def _exponent(function: FunctionBuilder, shifted: Operand) -> Operand:
    """The integer in the last bits of a float to which `Format.shifter` was added; of NaN, any."""
    integer = format_of(shifted).integer
    shifter = function.cast("bitcast", like(shifted, format_of(shifted).shifter), integer)
    return function.binary("sub", function.cast("bitcast", shifted, integer), shifter)


def _scaled_with_underflow(function: FunctionBuilder, x: Operand, exponent: Operand) -> Operand:
    """``x * 2**exponent``, rounded once: the first of two halves of the scaling is exact."""
    half = function.binary("ashr", exponent, like(exponent, 1))
    rest = function.binary("sub", exponent, half)
    partly = function.binary("fmul", x, _power_of_two(function, half, x))
    return function.binary("fmul", partly, _power_of_two(function, rest, x))


def _power_of_two(function: FunctionBuilder, exponent: Operand, x: Operand) -> Operand:
    """2 to an integer, in the type of ``x``; the result must be normal."""
    form = format_of(x)
    biased = function.binary("add", exponent, like(exponent, form.bias))
    return function.cast("bitcast", function.binary("shl", biased, like(exponent, form.mantissa_bits)), x.type.scalar)
