"""Conversions between types, rounded once to nearest even, and the same on CPUs with and without 16-bit instructions.

LLVM would call library functions to narrow to bf16, and from fp64 to fp16, and turns ``floor(fpext bf16)`` back into a
floor of bf16, which is such a call again; an instruction of x86-64 that narrows to bf16 flushes subnormal numbers. None
of this happens here: bf16 is the upper half of an fp32, reached and rounded by integer arithmetic.
"""

from collections.abc import Callable, Sequence

from hf_tle_int8.backend.ir import BFLOAT, DOUBLE, FLOAT, HALF, I16, I32, FunctionBuilder, IRType, Operand, constant

NARROW = (HALF, BFLOAT)


def widen_float(f: FunctionBuilder, a: Operand, kind: IRType) -> Operand:
    """A float as a wider float; exact."""
    if a.type.scalar == kind:
        return a
    if a.type.scalar != BFLOAT:
        return f.cast("fpext", a, kind)
    bits = f.cast("zext", f.cast("bitcast", a, I16), I32)
    single = f.cast("bitcast", f.binary("shl", bits, constant(bits.type, 16)), FLOAT)
    return single if kind == FLOAT else f.cast("fpext", single, kind)


def narrow_float(f: FunctionBuilder, a: Operand, kind: IRType) -> Operand:
    """A float rounded once to a narrower type; NaN stays NaN."""
    if a.type.scalar == DOUBLE and kind in NARROW:
        a = _round_to_odd(f, a)
    if a.type.scalar == DOUBLE or kind == HALF:
        return f.cast("fptrunc", a, kind)
    return _narrow_to_bfloat(f, a)


def _narrow_to_bfloat(f: FunctionBuilder, a: Operand) -> Operand:
    bits = f.cast("bitcast", a, I32)
    upper = f.binary("lshr", bits, constant(bits.type, 16))
    odd = f.binary("and", upper, constant(bits.type, 1))
    rounded = f.binary("add", bits, f.binary("add", odd, constant(bits.type, 0x7FFF)))
    quiet = f.binary("or", bits, constant(bits.type, 0x400000))
    chosen = f.select(f.compare("uno", a, a), quiet, rounded)
    return f.cast("bitcast", f.cast("trunc", f.binary("lshr", chosen, constant(bits.type, 16)), I16), BFLOAT)


def _round_to_odd(f: FunctionBuilder, a: Operand) -> Operand:
    """fp64 as fp32, inexact results with an odd last bit, so that a second rounding gives what one would have given.

    The method is that of Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using
    rounding to odd" (2008).
    """
    nearest = f.cast("fptrunc", a, FLOAT)
    back = f.cast("fpext", nearest, DOUBLE)
    bits = f.cast("bitcast", nearest, I32)
    one = constant(bits.type, 1)
    too_large = f.compare("ogt", f.intrinsic("fabs", back), f.intrinsic("fabs", a))
    toward_zero = f.select(too_large, f.binary("sub", bits, one), bits)
    inexact = f.compare("one", back, a)
    return f.cast("bitcast", f.select(inexact, f.binary("or", toward_zero, one), bits), FLOAT)


def at_least_float32(f: FunctionBuilder, a: Operand) -> Operand:
    """A float of a type that CPUs compute in: fp16 and bf16 as fp32."""
    return widen_float(f, a, FLOAT) if a.type.scalar in NARROW else a


def in_float32(f: FunctionBuilder, operands: Sequence[Operand], compute: Callable[..., Operand]) -> Operand:
    """Compute on floats of one type; fp16 and bf16 in fp32 with one more rounding.

    For + - * / and square roots, that second rounding changes nothing, as fp32 has more than twice their digits
    (Figueroa, "When is double rounding innocuous?", 1995).
    """
    kind = operands[0].type.scalar
    result = compute(*(at_least_float32(f, operand) for operand in operands))
    return narrow_float(f, result, kind) if kind in NARROW else result


def convert_float(f: FunctionBuilder, a: Operand, kind: IRType) -> Operand:
    """A float as any other float type; fp16 and bf16 convert into each other through fp32."""
    if a.type.scalar == kind:
        return a
    if kind.bits > a.type.bits:
        return widen_float(f, a, kind)
    return narrow_float(f, at_least_float32(f, a), kind)


def integer_to_float(f: FunctionBuilder, op: str, a: Operand, kind: IRType) -> Operand:
    """``sitofp`` or ``uitofp``, rounded once.

    Up to 32 bits, fp64 holds the integer exactly. Of 64 bits, all but the leading 52 matter to a 16-bit float only as
    being zero or not: one bit behind them says which, and fp64 holds these 53 exactly.
    """
    if kind not in NARROW:
        return f.cast(op, a, kind)
    if a.type.bits <= 32:
        return narrow_float(f, f.cast(op, a, DOUBLE), kind)
    sticky = f.binary("and", a, constant(a.type, 0xFFF))
    kept = f.binary("and", a, constant(a.type, ~0xFFF))
    marked = f.select(f.compare("ne", sticky, constant(a.type, 0)), f.binary("or", kept, constant(a.type, 0x800)), kept)
    small = f.compare("ult", f.binary("add", a, constant(a.type, 1 << 52)), constant(a.type, 1 << 53))
    return narrow_float(f, f.cast(op, f.select(small, a, marked), DOUBLE), kind)


def float_to_integer(f: FunctionBuilder, signed: bool, a: Operand, kind: IRType) -> Operand:
    """A float toward zero; what does not fit becomes the nearest integer that does, and NaN becomes 0."""
    wide = at_least_float32(f, a)
    result = wide.type.of(kind)
    name = f"llvm.fpto{'s' if signed else 'u'}i.sat.{result.mangled}.{wide.type.mangled}"
    return f.call(name, result, wide)


def bitcast(f: FunctionBuilder, a: Operand, kind: IRType) -> Operand:
    """The same bits as another type of the same width; between pointers and integers as well."""
    if a.type.base == "ptr" and kind.base != "ptr":
        return f.cast("ptrtoint", a, kind)
    if kind.base == "ptr" and a.type.base != "ptr":
        return f.cast("inttoptr", a, kind)
    return f.cast("bitcast", a, kind)


def integer_cast(f: FunctionBuilder, signed: bool, a: Operand, kind: IRType) -> Operand:
    """An integer of another width: the lower bits, or extended by sign or by zeros."""
    if kind.bits == a.type.bits:
        return a
    if kind.bits < a.type.bits:
        return f.cast("trunc", a, kind)
    return f.cast("sext" if signed else "zext", a, kind)
