"""What the functions share: floating-point formats, Horner's scheme, and the detour of the 16-bit types over fp32."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_tle_int8.backend import casts
from hf_tle_int8.backend.ir import DOUBLE, FLOAT, I32, I64, FunctionBuilder, IRType, Operand, constant

Emitter = Callable[[FunctionBuilder, Operand], Operand]


@dataclass(frozen=True)
class Format:
    """An IEEE 754 format in which the functions compute.

    Attributes:
        integer: the integer type as wide as the format.
        mantissa_bits: stored bits of the significand.
        bias: of the exponent, which is also the largest exponent.
    """

    integer: IRType
    mantissa_bits: int
    bias: int

    @property
    def smallest_exponent(self) -> int:
        """Two to this power is the smallest subnormal."""
        return 1 - self.bias - self.mantissa_bits

    @property
    def shifter(self) -> float:
        """Added to a float far below it, leaves the float's nearest integer in the last bits of the sum."""
        return 1.5 * 2.0**self.mantissa_bits


_FORMATS = {FLOAT: Format(I32, 23, 127), DOUBLE: Format(I64, 52, 1023)}


def format_of(x: Operand) -> Format:
    """The format of a ``float`` or ``double`` operand."""
    return _FORMATS[x.type.scalar]


def in_float(emit: Emitter) -> Emitter:
    """Lets ``emit``, which knows ``float`` and ``double``, take ``half`` and ``bfloat`` as well.

    They are widened to ``float`` and the result is rounded to nearest even. Other types raise TypeError.
    """

    @functools.wraps(emit)
    def wrapper(function: FunctionBuilder, x: Operand) -> Operand:
        if not x.type.is_float:
            raise TypeError(f"{emit.__name__} is defined on floats, not on {x.type}.")
        return casts.in_float32(function, [x], lambda wide: emit(function, wide))

    return wrapper


def like(x: Operand, value: int | float) -> Operand:
    """A literal of the type of ``x``."""
    return constant(x.type, value)


def multiply_add(function: FunctionBuilder, a: Operand, b: Operand, c: Operand) -> Operand:
    """``a * b + c``, fused where the target has the instruction; callers must be right either way."""
    return function.intrinsic("fmuladd", a, b, c)


def horner(function: FunctionBuilder, x: Operand, coefficients: Sequence[float]) -> Operand:
    """The polynomial in ``x``, coefficient of the constant term first."""
    value = like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = multiply_add(function, value, x, like(x, coefficient))
    return value


def at_most(function: FunctionBuilder, x: Operand, high: float) -> Operand:
    """The smaller of ``x`` and ``high``; NaN stays NaN."""
    limit = like(x, high)
    return function.select(function.compare("ogt", x, limit), limit, x)


def at_least(function: FunctionBuilder, x: Operand, low: float) -> Operand:
    """The larger of ``x`` and ``low``; NaN stays NaN."""
    limit = like(x, low)
    return function.select(function.compare("olt", x, limit), limit, x)
