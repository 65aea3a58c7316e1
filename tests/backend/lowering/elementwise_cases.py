"""The table of elementwise operations: the same cases for the host and for emulated Arm CPUs."""

import numpy as np
import references as ref
import torch
from elementwise_case import TORCH, Case

from hf_tle_int8.backend.vector_math import MAX_ULP

FLAGS = "<{overflowFlags = #arith.overflow<none>}>"
INTEGERS = ("i8", "i16", "i32", "i64")
FLOATS = ("f16", "bf16", "f32", "f64")


def predicate(number: int) -> str:
    return f"<{{predicate = {number} : i64}}>"


CASES: list[Case] = []
# LLVM leaves remainders of floats to the C library, which is there in a process but not on the emulated CPUs.
HOST_CASES = [Case("arith.remf", (_kind, _kind), _kind, ref.in_double(torch.fmod)) for _kind in FLOATS]
for _kind in INTEGERS:
    _pair = (_kind, _kind)
    for _name, _function in (("addi", torch.add), ("subi", torch.sub), ("muli", torch.mul)):
        CASES.append(Case(f"arith.{_name}", _pair, _kind, _function, FLAGS))
    for _name, _function in (("andi", torch.bitwise_and), ("ori", torch.bitwise_or), ("xori", torch.bitwise_xor)):
        CASES.append(Case(f"arith.{_name}", _pair, _kind, _function))
    CASES.append(Case("arith.divsi", _pair, _kind, ref.truncated_quotient, defined=ref.divisor_is_not_zero))
    CASES.append(Case("arith.remsi", _pair, _kind, ref.truncated_remainder, defined=ref.divisor_is_not_zero))
    CASES.append(
        Case(
            "arith.divui",
            _pair,
            _kind,
            ref.by_numpy(_kind, np.floor_divide),
            defined=ref.divisor_is_not_zero,
        )
    )
    CASES.append(
        Case(
            "arith.remui",
            _pair,
            _kind,
            ref.by_numpy(_kind, np.remainder),
            defined=ref.divisor_is_not_zero,
        )
    )
    for _name in ("shli", "shrsi", "shrui"):
        CASES.append(Case(f"arith.{_name}", _pair, _kind, ref.shift_reference(_kind, _name)))
    CASES.append(Case("arith.maxsi", _pair, _kind, torch.maximum))
    CASES.append(Case("arith.minsi", _pair, _kind, torch.minimum))
    CASES.append(Case("arith.maxui", _pair, _kind, ref.by_numpy(_kind, np.maximum)))
    CASES.append(Case("arith.minui", _pair, _kind, ref.by_numpy(_kind, np.minimum)))
    CASES.append(Case("math.absi", (_kind,), _kind, torch.abs))
    for _number, _function in enumerate((torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge)):
        CASES.append(Case("arith.cmpi", _pair, "i1", _function, predicate(_number)))
    for _number, _ufunc in enumerate((np.less, np.less_equal, np.greater, np.greater_equal), start=6):
        CASES.append(Case("arith.cmpi", _pair, "i1", ref.by_numpy(_kind, _ufunc), predicate(_number)))
    CASES.append(Case("arith.select", ("i1", *_pair), _kind, torch.where))
CASES.append(Case("tt.mulhiui", ("i32", "i32"), "i32", ref.by_numpy("i32", ref.upper_half)))
for _from, _to in ((a, b) for a in ("i1", *INTEGERS) for b in ("i1", *INTEGERS) if a != b):
    if int(_from[1:]) > int(_to[1:]):
        CASES.append(Case("arith.trunci", (_from,), _to, ref.low_bits(_to), FLAGS))
    else:
        CASES.append(Case("arith.extui", (_from,), _to, ref.extended(_from, _to, signed=False)))
        CASES.append(Case("arith.extsi", (_from,), _to, ref.extended(_from, _to, signed=True)))
for _kind in FLOATS:
    _pair = (_kind, _kind)
    for _name, _function in (("addf", torch.add), ("subf", torch.sub), ("mulf", torch.mul), ("divf", torch.div)):
        CASES.append(Case(f"arith.{_name}", _pair, _kind, ref.in_double(_function)))
    CASES.append(Case("tt.precise_divf", _pair, _kind, ref.in_double(torch.div)))
    CASES.append(Case("arith.maxnumf", _pair, _kind, torch.fmax, defined=ref.not_both_zero))
    CASES.append(Case("arith.minnumf", _pair, _kind, torch.fmin, defined=ref.not_both_zero))
    CASES.append(Case("arith.maximumf", _pair, _kind, torch.maximum, defined=ref.not_both_zero))
    CASES.append(Case("arith.minimumf", _pair, _kind, torch.minimum, defined=ref.not_both_zero))
    CASES.append(Case("arith.negf", (_kind,), _kind, torch.neg))
    CASES.append(Case("math.sqrt", (_kind,), _kind, ref.correct_sqrt))
    CASES.append(Case("tt.precise_sqrt", (_kind,), _kind, ref.correct_sqrt))
    CASES.append(Case("math.absf", (_kind,), _kind, torch.abs))
    for _name, _function in (("floor", torch.floor), ("ceil", torch.ceil), ("roundeven", torch.round)):
        CASES.append(Case(f"math.{_name}", (_kind,), _kind, _function))
    for _number, _function in enumerate(ref.FLOAT_COMPARISONS):
        CASES.append(Case("arith.cmpf", _pair, "i1", _function, predicate(_number)))
    for _to in INTEGERS:
        CASES.append(Case("arith.fptosi", (_kind,), _to, ref.saturated(TORCH[_to])))
        CASES.append(Case("arith.fptoui", (_kind,), _to, ref.saturated(TORCH[_to], signed=False)))
        CASES.append(Case("arith.sitofp", (_to,), _kind, ref.integer_to_float_reference(TORCH[_kind])))
        CASES.append(Case("arith.uitofp", (_to,), _kind, ref.integer_to_float_reference(TORCH[_kind], signed=False)))
for _from, _to in (("i32", "index"), ("index", "i32"), ("i64", "index")):
    CASES.append(Case("arith.index_cast", (_from,), _to, lambda t, b=_to: t.to(TORCH[b])))
CASES.append(Case("arith.index_castui", ("i32",), "index", ref.by_numpy("i32", lambda a: a.astype("u8"))))
CASES.append(Case("arith.bitcast", ("i32",), "f32", lambda t: t.view(torch.float32)))
for _from, _to in (("f16", "f32"), ("bf16", "f32"), ("f16", "f64"), ("bf16", "f64"), ("f32", "f64")):
    CASES.append(Case("arith.extf", (_from,), _to, lambda t, b=_to: t.to(TORCH[b])))
for _from, _to in (("f32", "f16"), ("f32", "bf16"), ("f64", "f32"), ("f64", "f16")):
    CASES.append(Case("arith.truncf", (_from,), _to, lambda t, b=_to: t.to(TORCH[b])))
for _from, _to in (("f16", "bf16"), ("bf16", "f16"), ("f32", "bf16"), ("bf16", "f32")):
    CASES.append(Case("tt.fp_to_fp", (_from,), _to, lambda t, b=_to: t.to(TORCH[b]), "<{rounding = 1 : i32}>"))
for _from, _to in (("f32", "i32"), ("i32", "f32"), ("bf16", "i16"), ("i64", "f64")):
    CASES.append(Case("tt.bitcast", (_from,), _to, lambda t, b=_to: t.view(TORCH[b])))
for _kind in ("f32", "f64"):
    CASES.append(Case("math.fma", (_kind,) * 3, _kind, lambda a, b, c: a * b + c, draw=ref.quarters))
    CASES.append(Case("tt.clampf", (_kind,) * 3, _kind, ref.clamped, "<{propagateNan = 0 : i32}>", ref.no_zero))
for _name, _function in ref.TRANSCENDENTAL.items():
    CASES.append(Case(_name, ("f32",), "f32", ref.exactly(_function), max_ulp=MAX_ULP[_name]))
