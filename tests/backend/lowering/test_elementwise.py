import numpy as np
import pytest
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from elementwise_case import operation
from elementwise_cases import CASES, HOST_CASES
from jit_support import run

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.ir import FLOAT, I32, I64, PTR, FunctionBuilder, ModuleBuilder, constant
from hf_tle_int8.backend.lowering import ELEMENTWISE, UnsupportedOperationError, ir_type, lower_elementwise
from hf_tle_int8.backend.ttir import FunctionType, OpaqueType


@pytest.mark.parametrize("case", CASES + HOST_CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    body = case.ir()
    case.check(lambda *arrays: run(body, "f", *arrays))


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    require_emulator()
    chosen = target.named(name)
    entries = [f"case{index}" for index in range(len(CASES))]
    module = ModuleBuilder()
    for case, entry in zip(CASES, entries, strict=True):
        case.add_to(module, entry)
    program = link([codegen.compile_module(chosen, str(module)).object_code], entries, tmp_path)
    with ArmProcess(program, entries, CPU_OF_TARGET[name]) as arm:
        for case, entry in zip(CASES, entries, strict=True):
            case.check(lambda *arrays, entry=entry: arm.call(entry, *arrays))


def test_every_operation_has_a_case():
    tested = {case.name for case in CASES + HOST_CASES}
    assert set(ELEMENTWISE) - tested == {"tt.int_to_ptr", "tt.ptr_to_int"}


@pytest.mark.parametrize("chosen", target.TARGETS.values(), ids=lambda chosen: chosen.name)
@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("arith.truncf", "arith.sitofp", "tt.fp_to_fp")], ids=lambda c: c.id
)
def test_conversions_call_no_library(case, chosen):
    assembly = codegen.compile_module(chosen, case.ir()).assembly
    assert "call" not in assembly
    assert "\tbl\t" not in assembly


def test_unsupported_operations_are_named_with_their_line():
    unknown = operation("tt.histogram", ("i32",), "i32")
    module = ModuleBuilder()
    f = FunctionBuilder(module, "f", {"x": I32})
    with pytest.raises(UnsupportedOperationError, match=r"an unknown line: tt\.histogram is not supported on CPUs"):
        lower_elementwise(f, unknown, list(f.parameters.values()))


def test_other_rounding_modes_are_refused():
    found = operation("tt.fp_to_fp", ("f32",), "bf16", "<{rounding = 0 : i32}>")
    f = FunctionBuilder(ModuleBuilder(), "f", {"x": FLOAT})
    with pytest.raises(UnsupportedOperationError, match="rounding mode 0"):
        lower_elementwise(f, found, list(f.parameters.values()))


@pytest.mark.parametrize("kind", [OpaqueType("f8E4M3FN"), FunctionType((), ())])
def test_types_without_arithmetic_are_refused(kind):
    with pytest.raises(TypeError, match="not supported on CPUs"):
        ir_type(kind)


def test_scalars_work_as_vectors_do():
    module = ModuleBuilder()
    f = FunctionBuilder(module, "f", {"x": PTR, "y": PTR})
    value = f.load(I32, f.parameters["x"])
    quotient = lower_elementwise(f, operation("arith.divsi", ("i32", "i32"), "i32"), [value, constant(I32, 0)])
    shifted = lower_elementwise(f, operation("arith.shli", ("i32", "i32"), "i32"), [value, constant(I32, 40)])
    f.store(quotient, f.parameters["y"])
    f.store(shifted, f.parameters["y"])
    f.return_()
    f.finish()
    x, y = np.array([17], np.int32), np.array([-1], np.int32)
    run(str(module), "f", x, y)
    assert y[0] == 0


def test_pointers_and_integers_convert_into_each_other():
    module = ModuleBuilder()
    f = FunctionBuilder(module, "f", {"x": PTR, "y": PTR})
    number = lower_elementwise(f, operation("tt.ptr_to_int", ("!tt.ptr<i32>",), "i64"), [f.parameters["x"]])
    following = f.binary("add", number, constant(I64, 4))
    pointer = lower_elementwise(f, operation("tt.int_to_ptr", ("i64",), "!tt.ptr<i32>"), [following])
    f.store(f.load(I32, pointer), f.parameters["y"])
    f.return_()
    f.finish()
    x, y = np.array([17, 19], np.int32), np.array([-1], np.int32)
    run(str(module), "f", x, y)
    assert y[0] == 19
