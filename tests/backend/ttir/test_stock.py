"""The installed Triton still prints what the reader knows. A failure here means that a new release changed the form."""

import inspect

import pytest
import triton
import triton.language as tl
from ttir_support import stock_module

from hf_tle_int8.backend.ttir import DenseElements, FloatType, IntegerType, TensorType
from hf_tle_int8.backend.ttir.stock import read

POINTERS = {"x_ptr": "*fp32", "y_ptr": "*fp32"}


@triton.jit
def larger(x, y):
    return tl.maximum(x, y)


@triton.jit
def everything(x_ptr, y_ptr, q_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    if n > 4000:
        return
    x = tl.load(x_ptr + offsets, mask=mask, other=-float("inf"))
    x = tl.exp(x - tl.max(x, axis=0)) * 0.1
    i = 0
    while i < n:
        x = larger(x, 0.5)
        i += BLOCK
    rows = tl.arange(0, 16)
    tile = tl.load(q_ptr + rows[:, None] * 16 + rows[None, :])
    total = tl.zeros((16, 16), tl.int32)
    for _ in range(0, n, 16):
        total = tl.dot(tile, tl.trans(tile), total, out_dtype=tl.int32)
    tl.store(q_ptr + rows[:, None] * 16 + rows[None, :], total.to(tl.int8))
    tl.store(y_ptr + offsets, x + tl.argmax(x, 0), mask=mask)


@triton.jit
def constants(x_ptr, y_ptr):
    offsets = tl.arange(0, 4)
    tl.store(x_ptr + offsets, tl.load(y_ptr + offsets) * (1 / 3))
    tl.store(x_ptr + offsets, tl.full((4,), float("nan"), tl.float32))
    tl.store(y_ptr + offsets, tl.full((4,), 65504.0, tl.float32))


@pytest.fixture(scope="module")
def kernel():
    module = stock_module(everything, {**POINTERS, "q_ptr": "*i8", "n": "i32"}, BLOCK=64)
    return read(module).kernel


def operations(kernel, name: str):
    return [operation for operation in kernel.walk() if operation.name == name]


def test_signature(kernel):
    assert kernel.attributes["sym_name"] == "everything"
    assert str(kernel.attributes["function_type"]) == "(!tt.ptr<f32>, !tt.ptr<f32>, !tt.ptr<i8>, i32) -> ()"


def test_calls_are_inlined(kernel):
    assert not operations(kernel, "tt.call")


def test_load_segments(kernel):
    masked, plain = (load.operand_segments() for load in operations(kernel, "tt.load"))
    assert [len(segment) for segment in masked] == [1, 1, 1]
    assert [len(segment) for segment in plain] == [1, 0, 0]


def test_float_constants_arrive(kernel):
    values = [op.attributes["value"] for op in operations(kernel, "arith.constant")]
    floats = [v for v in values if isinstance(v, DenseElements) and v.type.element == FloatType("f32")]
    assert {v.values[0] for v in floats} >= {float("-inf"), 0.5}
    assert any(v.values[0] == pytest.approx(0.1) for v in floats)


def test_dot_and_trans(kernel):
    (dot,) = operations(kernel, "tt.dot")
    assert dot.result.type == TensorType((16, 16), IntegerType(32))
    assert dot.operands[1].defining_op.attributes["order"] == [1, 0]
    assert dot.parent.region.parent.name == "scf.for"


def test_reductions_have_their_combine_function(kernel):
    maximum, arg_maximum = operations(kernel, "tt.reduce")
    assert maximum.attributes["axis"] == 0
    assert [op.name for op in maximum.regions[0].entry.operations] == ["arith.maxnumf", "tt.reduce.return"]
    assert len(arg_maximum.results) == 2
    assert len(arg_maximum.regions[0].entry.arguments) == 4


def test_control_flow(kernel):
    (branch,) = operations(kernel, "cf.cond_br")
    assert len(branch.successors) == 2
    assert operations(kernel, "scf.while")
    assert [op.name for op in branch.successors[0].operations] == ["tt.return"]


def test_locations_lead_to_the_kernel(kernel):
    lines, start = inspect.getsourcelines(everything.fn)
    (exp,) = operations(kernel, "math.exp")
    line = start + next(i for i, text in enumerate(lines) if "tl.exp" in text)
    assert exp.location.frames[-1] == (__file__, line)
    maximum = operations(kernel, "tt.reduce")[0]
    assert maximum.location.frames[-1] == (__file__, line)
    assert maximum.location.frames[0][0].endswith("standard.py")


def test_exact_constants():
    kernel = read(stock_module(constants, POINTERS)).kernel
    values = [op.attributes["value"].values[0] for op in operations(kernel, "arith.constant")
              if isinstance(op.attributes["value"], DenseElements)]  # fmt: skip
    floats = [value for value in values if isinstance(value, float)]
    assert 65504.0 in floats
    assert any(value != value for value in floats)
    assert any(abs(value - 1 / 3) < 1e-8 for value in floats)
