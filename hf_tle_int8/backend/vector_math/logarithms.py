"""``log`` and ``log2``: the exponent, and a polynomial in the significand's distance from 1."""

import math

from hf_tle_int8.backend.ir import I32, FunctionBuilder, Operand
from hf_tle_int8.backend.vector_math import tables
from hf_tle_int8.backend.vector_math.common import format_of, horner, in_float, like, multiply_add


@in_float
def log(function: FunctionBuilder, x: Operand) -> Operand:
    """The natural logarithm of ``x``.

    For x = 2**n * (1 + f) it is n * ln 2 + f + f**2 * W(f), with ln 2 split as by Cody and Waite.
    """
    n, f = _split(function, x)
    high, low = tables.LN2[x.type.base]
    square = function.binary("fmul", f, f)
    rest = function.binary("fmul", n, like(x, low))
    rest = multiply_add(function, square, horner(function, f, tables.LOG[x.type.base]), rest)
    small = function.binary("fadd", f, rest)
    return _with_special_values(function, x, multiply_add(function, n, like(x, high), small))


@in_float
def log2(function: FunctionBuilder, x: Operand) -> Operand:
    """The binary logarithm of ``x``; exact where ``x`` is a power of two.

    For x = 2**n * (1 + f) it is n + 1.5 * f + f * W(f). The product with 1.5 is exact, because f has a bit less than
    the format, and leaves little to the other product and its rounding errors.
    """
    n, f = _split(function, x)
    rest = function.binary("fmul", f, horner(function, f, tables.LOG2[x.type.base]))
    small = multiply_add(function, f, like(x, 1.5), rest)
    return _with_special_values(function, x, function.binary("fadd", n, small))


def _split(function: FunctionBuilder, x: Operand) -> tuple[Operand, Operand]:
    """n and f, both floats, for x = 2**n * (1 + f) with 1 + f from sqrt(1/2) to sqrt(2); of special values, any."""
    form = format_of(x)
    subnormal = function.compare("olt", x, like(x, 2.0 ** (1 - form.bias)))
    normal = function.select(subnormal, function.binary("fmul", x, like(x, 2.0 ** (form.mantissa_bits + 1))), x)
    bits = function.cast("bitcast", normal, form.integer)
    start = function.cast("bitcast", like(x, math.sqrt(0.5)), form.integer)
    n = function.binary("ashr", function.binary("sub", bits, start), like(bits, form.mantissa_bits))
    significand = function.binary("sub", bits, function.binary("shl", n, like(bits, form.mantissa_bits)))
    f = function.binary("fsub", function.cast("bitcast", significand, x.type.scalar), like(x, 1.0))
    # Not every target converts 64-bit integers to double by an instruction.
    exponent = function.cast("sitofp", function.cast("trunc", n, I32), x.type.scalar)
    scale = function.select(subnormal, like(x, -(form.mantissa_bits + 1.0)), like(x, 0.0))
    return function.binary("fadd", exponent, scale), f


def _with_special_values(function: FunctionBuilder, x: Operand, result: Operand) -> Operand:
    """``result`` where ``x`` is positive and finite; infinity and NaN of themselves, -inf of 0, NaN of less."""
    zero = like(x, 0.0)
    result = function.select(function.compare("olt", x, like(x, math.inf)), result, x)
    result = function.select(function.compare("oeq", x, zero), like(x, -math.inf), result)
    return function.select(function.compare("olt", x, zero), like(x, math.nan), result)
