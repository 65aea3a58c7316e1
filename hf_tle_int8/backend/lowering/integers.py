"""Integer arithmetic with Triton's semantics, defined for every input.

Addition, subtraction and multiplication wrap. LLVM leaves division by zero, the quotient of the smallest integer by -1
and shifts by the width or more undefined, and x86-64 traps on the first two, also in lanes that a mask switches off:

- a division by zero gives an unspecified number;
- the smallest integer divided by -1 is itself, with remainder 0;
- a shift by the width or more shifts everything out.
"""

from hf_tle_int8.backend.ir import FunctionBuilder, IRType, Operand, constant


def divide(f: FunctionBuilder, op: str, a: Operand, b: Operand) -> Operand:
    """``sdiv``, ``udiv``, ``srem`` or ``urem`` that never traps."""
    zero, one = constant(b.type, 0), constant(b.type, 1)
    divisor = f.select(f.compare("eq", b, zero), one, b)
    if op in ("udiv", "urem"):
        return f.binary(op, a, divisor)
    minus_one = f.compare("eq", b, constant(b.type, -1))
    quotient = f.binary(op, a, f.select(minus_one, one, divisor))
    if op == "srem":
        return f.select(minus_one, zero, quotient)
    return f.select(minus_one, f.binary("sub", zero, a), quotient)


def shift(f: FunctionBuilder, op: str, a: Operand, count: Operand) -> Operand:
    """``shl``, ``lshr`` or ``ashr`` that is defined for every count, read as unsigned."""
    width = a.type.bits
    if op == "ashr":
        return f.binary(op, a, f.intrinsic("umin", count, constant(count.type, width - 1)))
    inside = f.compare("ult", count, constant(count.type, width))
    shifted = f.binary(op, a, f.select(inside, count, constant(count.type, 0)))
    return f.select(inside, shifted, constant(a.type, 0))


def absolute(f: FunctionBuilder, a: Operand) -> Operand:
    """The absolute value; that of the smallest integer is itself."""
    return f.select(f.compare("slt", a, constant(a.type, 0)), f.binary("sub", constant(a.type, 0), a), a)


def multiply_high(f: FunctionBuilder, a: Operand, b: Operand) -> Operand:
    """The upper half of the unsigned product, for integers of up to 64 bits."""
    width = a.type.bits
    wide = IRType(f"i{2 * width}")
    product = f.binary("mul", f.cast("zext", a, wide), f.cast("zext", b, wide))
    return f.cast("trunc", f.binary("lshr", product, constant(product.type, width)), a.type.scalar)
