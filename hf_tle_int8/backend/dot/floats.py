"""Products of floats: bf16 by the instructions that there are for them, the rest by fused multiply-add.

fp16 and bf16 are multiplied in fp32, where their products are exact. bfmmla and vdpbf16ps sum two products, or four,
before they round, and vdpbf16ps takes subnormal numbers for zero (Arm ARM, BFMMLA; Intel SDM, VDPBF16PS).
"""

from collections.abc import Callable

from hf_tle_int8.backend.casts import at_least_float32
from hf_tle_int8.backend.dot.instruction import Instruction, Prepared, as_it_is, repeat_group
from hf_tle_int8.backend.ir import BFLOAT, DOUBLE, FLOAT, FunctionBuilder, IRType, Operand
from hf_tle_int8.backend.target import Target


def bfmmla(_: Target) -> Instruction:
    """Armv8.6: 2 rows of 4 k by 4 k of 2 columns."""

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        return f.call("llvm.aarch64.neon.bfmmla", accumulator.type, accumulator, *rows, *columns)

    return Instruction("bfmmla", FLOAT, 1, 1, 2, 2, as_it_is, as_it_is, multiply)


def dpbf16(target: Target) -> Instruction:
    """AVX512-BF16: one row of 2 k by 16 columns."""
    lanes = target.lanes(16)
    name = f"llvm.x86.avx512bf16.dpbf16ps.{16 * lanes}"

    def rows(f: FunctionBuilder, vector: Operand, number: int) -> Prepared:
        return [repeat_group(f, vector, number, 2, lanes)]

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        return f.call(name, accumulator.type, accumulator, *rows, *columns)

    return Instruction("dpbf16", FLOAT, lanes.bit_length() - 2, 0, 1, 1, rows, as_it_is, multiply)


def fused_multiply_add(target: Target, element: IRType) -> Instruction:
    """One k of a row by a vector of columns, in fp32 or wider."""
    kind = DOUBLE if element == DOUBLE else FLOAT
    lanes = target.lanes(kind.bits)
    bits = lanes.bit_length() - 1

    def rows(f: FunctionBuilder, vector: Operand, number: int) -> Prepared:
        return [repeat_group(f, at_least_float32(f, vector), number, 1, lanes)]

    def columns(f: FunctionBuilder, vector: Operand) -> Prepared:
        return [at_least_float32(f, vector)]

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        return f.intrinsic("fma", *rows, *columns, accumulator)

    # fmla takes a lane of a register, vfmadd a scalar from memory.
    fetched = bits if target.arch == "aarch64" else 0
    return Instruction("fma", kind, bits, 0, 0, fetched, rows, columns, multiply)


BF16_DOTS: dict[str, Callable[[Target], Instruction]] = {
    "bfmmla": bfmmla,
    "dpbf16": dpbf16,
    "fma": lambda target: fused_multiply_add(target, BFLOAT),
}
