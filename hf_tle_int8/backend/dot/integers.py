"""int8 products summed in int32, exactly: smmla, sdot, vpdpbusd, vpmaddubsw, tdpbssd, widening multiplies elsewhere."""

from collections.abc import Callable, Sequence

from hf_tle_int8.backend.dot.instruction import Instruction, Prepared, as_it_is, repeat_group
from hf_tle_int8.backend.dot.tiles import multiply_add
from hf_tle_int8.backend.ir import I1, I8, I16, I32, FunctionBuilder, Operand, constant
from hf_tle_int8.backend.target import Target

_V4I32, _V8I16, _V16I8 = I32.vector(4), I16.vector(8), I8.vector(16)
# Each of these multiplies four k at a time.
_BY_FOUR = 2


def smmla(_: Target) -> Instruction:
    """Armv8.6: 2 rows of 8 k by 8 k of 2 columns."""

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        return f.call("llvm.aarch64.neon.smmla.v4i32.v16i8", _V4I32, accumulator, *rows, *columns)

    return Instruction("smmla", I32, 1, 1, 3, 3, as_it_is, as_it_is, multiply)


def sdot(_: Target) -> Instruction:
    """Armv8.2: one row of 4 k, which the instruction takes from any quarter of a register, by 4 columns."""

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        return f.call("llvm.aarch64.neon.sdot.v4i32.v16i8", _V4I32, accumulator, *columns, *rows)

    return Instruction("sdot", I32, 2, 0, _BY_FOUR, 4, _repeated(16), as_it_is, multiply)


def neon_widening(_: Target) -> Instruction:
    """Armv8.0: what sdot does, through products in int16."""

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        pairs = []
        for half in (range(8), range(8, 16)):
            a, b = (f.cast("sext", f.shuffle(operand, None, half), I16) for operand in (*rows, *columns))
            pairs.append(f.call("llvm.aarch64.neon.saddlp.v4i32.v8i16", _V4I32, f.binary("mul", a, b)))
        sums = f.call("llvm.aarch64.neon.addp.v4i32", _V4I32, *pairs)
        return _opaque(f, f.binary("add", accumulator, sums), "w")

    return Instruction("widening", I32, 2, 0, _BY_FOUR, 4, _repeated(16), as_it_is, multiply)


def vpdpbusd(target: Target) -> Instruction:
    """AVX512-VNNI and AVX-VNNI: unsigned rows by signed columns.

    With their sign bits flipped, the rows are unsigned and greater by 128: for each column, 128 times its sum over k is
    too much, which the same instruction adds up.
    """
    lanes = target.vector_bytes
    name = f"llvm.x86.avx512.vpdpbusd.{8 * lanes}"

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        return f.call(name, accumulator.type, accumulator, *rows, *columns)

    def compensation(f: FunctionBuilder, excess: Operand, columns: Prepared) -> Operand:
        return f.call(name, excess.type, excess, constant(I8.vector(lanes), -128), *columns)

    bits = (lanes // 4).bit_length() - 1
    return Instruction(
        "vpdpbusd", I32, bits, 0, _BY_FOUR, _BY_FOUR, _repeated(lanes), as_it_is, multiply, compensation, True
    )


def vpmaddubsw(target: Target) -> Instruction:
    """AVX2: ``|column| * (row with the column's sign)``, of rows that hold no -128.

    Two products of at most 128 * 127 are summed in int16, where a row of -128 would make them saturate, and its
    negation too; vpmaddwd by ones sums the pairs.
    """
    lanes = target.vector_bytes
    ones = constant(I16.vector(lanes // 2), 1)

    def columns(f: FunctionBuilder, vector: Operand) -> Prepared:
        return [vector, f.intrinsic("abs", vector, constant(I1, 0))]

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        signs, magnitudes = columns
        signed = f.call("llvm.x86.avx2.psign.b", signs.type, *rows, signs)
        pairs = f.call("llvm.x86.avx2.pmadd.ub.sw", ones.type, magnitudes, signed)
        products = f.call("llvm.x86.avx2.pmadd.wd", accumulator.type, pairs, ones)
        return _opaque(f, f.binary("add", accumulator, products), "v")

    bits = (lanes // 4).bit_length() - 1
    return Instruction(
        "vpmaddubsw", I32, bits, 0, _BY_FOUR, _BY_FOUR, _repeated(lanes), columns, multiply, column_registers=2,
        row_registers=2, one_by_one=True,
    )  # fmt: skip


def x86_widening(target: Target) -> Instruction:
    """AVX2 and AVX512: what vpdpbusd does, signed, through the even and the odd k as int16 (vpmaddwd)."""
    lanes = target.vector_bytes
    name = {32: "llvm.x86.avx2.pmadd.wd", 64: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
    repeated = _repeated(lanes)

    def halves(f: FunctionBuilder, vector: Operand) -> Prepared:
        words = f.reinterpret(vector, I16.vector(lanes // 2))
        eight = constant(words.type, 8)
        return [f.binary("ashr", f.binary("shl", words, eight), eight), f.binary("ashr", words, eight)]

    def rows(f: FunctionBuilder, vector: Operand, number: int) -> Prepared:
        return halves(f, *repeated(f, vector, number))

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        for pair in zip(rows, columns, strict=True):
            accumulator = _opaque(f, f.binary("add", accumulator, f.call(name, accumulator.type, *pair)), "v")
        return accumulator

    bits = (lanes // 4).bit_length() - 1
    return Instruction(
        "widening", I32, bits, 0, _BY_FOUR, _BY_FOUR, rows, halves, multiply, column_registers=2, row_registers=3
    )


def tdpbssd(_: Target) -> Instruction:
    """AMX-INT8: 16 rows of 64 k by 16 columns, signed."""

    def multiply(f: FunctionBuilder, accumulator: Operand, rows: Prepared, columns: Prepared) -> Operand:
        return multiply_add(f, accumulator, *rows, *columns)

    return Instruction("tdpbssd", I32, 4, 4, 6, 6, as_it_is, as_it_is, multiply, column_k_bits=_BY_FOUR, tiles=True)


def _opaque(f: FunctionBuilder, sums: Operand, registers: str) -> Operand:
    """``sums`` from an empty instruction: LLVM would add what follows in trees, whose partial sums spill.

    Args:
        registers: LLVM's letter for those that are vectors.
    """
    return f.emit(sums.type, f'call {sums.type} asm "", "={registers},0"({sums.typed})')


def _repeated(lanes: int) -> Callable[[FunctionBuilder, Operand, int], Sequence[Operand]]:
    return lambda f, vector, number: [repeat_group(f, vector, number, 1 << _BY_FOUR, lanes)]


INT8_DOTS: dict[tuple[str, str], Callable[[Target], Instruction]] = {
    ("aarch64", "smmla"): smmla,
    ("aarch64", "sdot"): sdot,
    ("aarch64", "widening"): neon_widening,
    ("x86_64", "vpdpbusd"): vpdpbusd,
    ("x86_64", "vpmaddubsw"): vpmaddubsw,
    ("x86_64", "widening"): x86_widening,
    ("x86_64", "tdpbssd"): tdpbssd,
}


def int8_dot(target: Target, without_least: bool) -> Instruction:
    """The target's instruction; its widening multiplies where that one would need rows ``without_least``, -128."""
    name = target.int8_dot
    return INT8_DOTS[target.arch, "widening" if name == "vpmaddubsw" and not without_least else name](target)
