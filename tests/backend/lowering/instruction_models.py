"""Instructions of x86-64 that the host may lack, as functions in IR of the same meaning.

Intel SDM, volume 2: VPDPBUSD adds the products of four unsigned bytes by four signed ones to an int32, VPMADDWD
sums those of two int16, VDPBF16PS adds those of two bf16 to an fp32.
"""

import re
from collections.abc import Callable

from hf_tle_int8.backend.casts import widen_float
from hf_tle_int8.backend.ir import (
    BFLOAT,
    FLOAT,
    I8,
    I16,
    I32,
    FunctionBuilder,
    IRType,
    ModuleBuilder,
    Operand,
    constant,
)

_NAMES = r"llvm\.x86\.avx512(?:bf16)?\.(?:vpdpbusd|dpbf16ps|pmaddw\.d)\.\d+"


def with_models(body: str) -> str:
    """A module in which calls of these instructions are calls of functions that it also defines.

    Empty instructions on vectors, which the host may lack as well, are left out.
    """
    body = _with_tiles(body)
    body = re.sub(r'call (<\d+ x i\d+>) asm "", "=v,0"\(<\d+ x i\d+> (%\w+)\)', r"freeze \1 \2", body)
    for name in sorted(set(re.findall(_NAMES, body))):
        body = re.sub(rf"declare .*@{re.escape(name)}\(.*\n", "", body).replace(f"@{name}(", f"@{model_name(name)}(")
        body += _model(name)
    return body


def _with_tiles(body: str) -> str:
    """A module in which tiles are vectors, and the instructions of AMX are functions of the same meaning.

    Intel SDM, volume 2: a tile has 16 rows of 64 bytes; TDPBSSD adds to the int32 of row m and column n the products of
    the bytes 4k to 4k + 3 of row m of one tile with the bytes 4n to 4n + 3 of row k of the other.
    """
    if "x86_amx" not in body:
        return body
    body = re.sub(r"^declare .*@llvm\.x86\.t(?:ile|dp)\w+\.internal.*\n", "", body, flags=re.MULTILINE)
    body = re.sub(r"@llvm\.x86\.(t(?:ile|dp)\w+)\.internal", r"@\1", body)
    return f"{body}\n{_TILES}".replace("x86_amx", "<256 x i32>")


_TILES = """
define internal x86_amx @tilezero(i16 %rows, i16 %bytes) noinline {
  ret x86_amx zeroinitializer
}
define internal x86_amx @tileloadd64(i16 %rows, i16 %bytes, ptr %from, i64 %stride) noinline {
entry:
  %tile = alloca x86_amx, align 64
  br label %loop
loop:
  %row = phi i64 [ 0, %entry ], [ %next, %loop ]
  %distance = mul i64 %row, %stride
  %source = getelementptr i8, ptr %from, i64 %distance
  %target = getelementptr [64 x i8], ptr %tile, i64 %row
  %values = load <16 x i32>, ptr %source, align 1
  store <16 x i32> %values, ptr %target, align 1
  %next = add i64 %row, 1
  %more = icmp ult i64 %next, 16
  br i1 %more, label %loop, label %leave
leave:
  %result = load x86_amx, ptr %tile, align 64
  ret x86_amx %result
}
define internal void @tilestored64(i16 %rows, i16 %bytes, ptr %to, i64 %stride, x86_amx %values) noinline {
entry:
  %tile = alloca x86_amx, align 64
  store x86_amx %values, ptr %tile, align 64
  br label %loop
loop:
  %row = phi i64 [ 0, %entry ], [ %next, %loop ]
  %distance = mul i64 %row, %stride
  %target = getelementptr i8, ptr %to, i64 %distance
  %source = getelementptr [64 x i8], ptr %tile, i64 %row
  %line = load <16 x i32>, ptr %source, align 1
  store <16 x i32> %line, ptr %target, align 1
  %next = add i64 %row, 1
  %more = icmp ult i64 %next, 16
  br i1 %more, label %loop, label %leave
leave:
  ret void
}
define internal x86_amx @tdpbssd(i16 %m, i16 %n, i16 %k, x86_amx %sums, x86_amx %a, x86_amx %b) noinline {
entry:
  %c = alloca x86_amx, align 64
  %rows = alloca x86_amx, align 64
  %columns = alloca x86_amx, align 64
  store x86_amx %sums, ptr %c, align 64
  store x86_amx %a, ptr %rows, align 64
  store x86_amx %b, ptr %columns, align 64
  br label %loop
loop:
  %step = phi i64 [ 0, %entry ], [ %next, %loop ]
  %row = lshr i64 %step, 6
  %byte = and i64 %step, 63
  %group = lshr i64 %byte, 2
  %place = getelementptr i8, ptr %rows, i64 %step
  %one = load i8, ptr %place, align 1
  %wide = sext i8 %one to i32
  %first = insertelement <16 x i32> poison, i32 %wide, i64 0
  %left = shufflevector <16 x i32> %first, <16 x i32> poison, <16 x i32> zeroinitializer
  %line = getelementptr [64 x i8], ptr %columns, i64 %group
  %words = load <16 x i32>, ptr %line, align 1
  %part = and i64 %byte, 3
  %bits = shl i64 %part, 3
  %narrow = trunc i64 %bits to i32
  %up = sub i32 24, %narrow
  %amount = insertelement <16 x i32> poison, i32 %up, i64 0
  %amounts = shufflevector <16 x i32> %amount, <16 x i32> poison, <16 x i32> zeroinitializer
  %shifted = shl <16 x i32> %words, %amounts
  %right = ashr <16 x i32> %shifted, splat (i32 24)
  %product = mul <16 x i32> %left, %right
  %to = getelementptr [64 x i8], ptr %c, i64 %row
  %before = load <16 x i32>, ptr %to, align 1
  %after = add <16 x i32> %before, %product
  store <16 x i32> %after, ptr %to, align 1
  %next = add i64 %step, 1
  %more = icmp ult i64 %next, 1024
  br i1 %more, label %loop, label %leave
leave:
  %result = load x86_amx, ptr %c, align 64
  ret x86_amx %result
}
"""


def model_name(name: str) -> str:
    """The name of the function for an intrinsic."""
    return name.replace("llvm.x86.", "").replace(".", "_")


def _model(name: str) -> str:
    lanes = int(name.split(".")[-1]) // 32
    if "dpbf16ps" in name:
        return _function(name, BFLOAT.vector(2 * lanes), FLOAT.vector(lanes), _bf16)
    if "pmaddw" in name:
        return _function(name, I16.vector(2 * lanes), I32.vector(lanes), _signed, adds=False)
    return _function(name, I8.vector(4 * lanes), I32.vector(lanes), _unsigned_by_signed)


def _function(name: str, operand: IRType, result: IRType, product: Callable[..., Operand], adds: bool = True) -> str:
    module = ModuleBuilder()
    parameters = {**({"sum": result} if adds else {}), "a": operand, "b": operand}
    f = FunctionBuilder(module, model_name(name), parameters, "internal", result)
    total = f.parameters.get("sum", constant(result, 0))
    group = operand.lanes // result.lanes
    for place in range(group):
        numbers = range(place, operand.lanes, group)
        total = product(f, total, *(f.shuffle(f.parameters[side], None, numbers) for side in "ab"))
    f.return_(total)
    f.finish()
    return f"\n{module}"


def _bf16(f: FunctionBuilder, total: Operand, a: Operand, b: Operand) -> Operand:
    return f.intrinsic("fma", widen_float(f, a, FLOAT), widen_float(f, b, FLOAT), total)


def _signed(f: FunctionBuilder, total: Operand, a: Operand, b: Operand) -> Operand:
    return f.binary("add", total, f.binary("mul", f.cast("sext", a, I32), f.cast("sext", b, I32)))


def _unsigned_by_signed(f: FunctionBuilder, total: Operand, a: Operand, b: Operand) -> Operand:
    return f.binary("add", total, f.binary("mul", f.cast("zext", a, I32), f.cast("sext", b, I32)))
