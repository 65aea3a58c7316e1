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
    body = re.sub(r'call (<\d+ x i32>) asm "", "=v,0"\(<\d+ x i32> (%\w+)\)', r"freeze \1 \2", body)
    for name in sorted(set(re.findall(_NAMES, body))):
        body = re.sub(rf"declare .*@{re.escape(name)}\(.*\n", "", body).replace(f"@{name}(", f"@{model_name(name)}(")
        body += _model(name)
    return body


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
