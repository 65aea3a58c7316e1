"""Linears in machine code: the bits of those in Python, arguments that do not go together, and what cannot be had."""

import contextlib
import dataclasses
import itertools
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NEEDS_KERNELS
from torch import nn

from hf_tle_int8 import execution, explain, native, ops
from hf_tle_int8.arithmetic import int8_linear
from hf_tle_int8.backend import torch_abi
from hf_tle_int8.errors import UnsupportedPlacementError
from hf_tle_int8.nn import TLEInt8Linear
from hf_tle_int8.report import environment

pytestmark = NEEDS_KERNELS

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def layer(n=33, k=70, bias=None):
    made = TLEInt8Linear(torch.randint(-128, 128, (n, k), dtype=torch.int8), torch.rand(n) + 0.1)
    if bias is not None:
        made.bias = nn.Parameter(torch.randn(n).to(bias), requires_grad=False)
    return made.pack_()


def operands(made):
    own = [made._weight().detach(), made.weight_scale, *([] if made.bias is None else [made.bias]), made.in_features]
    name = "default" if made.bias is None else "bias"
    return getattr(torch.ops.tle_int8.packed_linear, name), own


def run(made, x):
    operator, own = operands(made)
    return operator(x, *own)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("bias", [None, *TYPES], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_bits_are_those_of_the_reference(dtype, bias):
    for n, k in ((33, 70), (64, 64), (1, 1), (129, 200)):
        made, x = layer(n, k, bias), torch.randn(33, k).to(dtype)
        x[3], x[7, k // 2], x[9, 0] = 0, torch.nan, torch.inf
        expected = int8_linear(x, made.weight.detach(), made.weight_scale, made.bias)
        made.pack_()
        for m in range(1, 34):
            found = run(made, x[:m])
            assert found.dtype == dtype
            assert torch.equal(found.nan_to_num(nan=7), expected[:m].nan_to_num(nan=7))
            assert torch.equal(found.isnan(), expected[:m].isnan())


@pytest.mark.parametrize("shape", [(70,), (1, 70), (0, 70), (2, 0, 70), (2, 3, 70), (1,) * 62 + (2, 70)], ids=len)
def test_shapes(shape):
    made, x = layer(), torch.randn(shape)
    found = run(made, x)
    assert found.shape == (*shape[:-1], 33)
    assert found.is_contiguous()
    assert torch.equal(found, execution.packed_linear(x, made._weight().detach(), made.weight_scale, None))


def test_bits_do_not_depend_on_threads_nor_on_who_else_calls(threads):
    made, x = layer(1100, 1000, torch.float32), torch.randn(40, 1000)
    expected = int8_linear(x, made.weight.detach(), made.weight_scale, made.bias)
    made.pack_()
    for count in (1, 2, 3, 4):
        threads(count)
        assert torch.equal(run(made, x), expected)
    wrong = []

    def call(row):
        threads(1)
        for _ in range(50):
            if not torch.equal(run(made, x[row : row + 3]), expected[row : row + 3]):
                wrong.append(row)

    callers = [threading.Thread(target=call, args=(row,)) for row in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_layers_call_it_where_they_need_not_share(monkeypatch):
    calls, call = [], ops._call_native
    monkeypatch.setattr(ops, "_call_native", lambda *arguments: calls.append(1) or call(*arguments))
    made, x = layer(bias=torch.float32), torch.randn(4, 70)
    expected = run(made, x)
    assert torch.equal(made(x), expected)
    assert len(calls) == 1
    # What it does not take runs in Python, with the same results.
    assert torch.equal(made(x.t().contiguous().t()), expected)
    made.bias.data = made.bias.data.double()
    assert torch.equal(made(x), expected)
    made.weight_scale.data = made.weight_scale.data.double()
    assert torch.equal(made(x), expected)
    assert len(calls) == 1


REFUSED = {
    "last dimension": lambda o, x, w, s, k: o(x[..., :5].contiguous(), w, s, k),
    "not float32, float16 or bfloat16": lambda o, x, w, s, k: o(x.double(), w, s, k),
    "not packed for this CPU and these sizes": lambda o, x, w, s, k: o(x, w.flatten(), s, k),
    "not packed for this CPU": lambda o, x, w, s, k: o(x, w[:-1], s, k),
    "these sizes": lambda o, x, w, s, k: o(x[:, :1].contiguous(), w, s, 1),
    "call the layer once": lambda o, x, w, s, k: o(x, w.transpose(2, 3).contiguous(), s, k),
    "a tensor is not contiguous": lambda o, x, w, s, k: o(x[:1].expand(3, 70), w, s, k),
    "x has no dimensions": lambda o, x, w, s, k: o(torch.tensor(1.0), w, s, k),
    "or more than 64": lambda o, x, w, s, k: o(x.reshape((1,) * 63 + x.shape), w, s, k),
    "in_features is not positive": lambda o, x, w, s, k: o(x, w, s, 0),
    "the weight is not int8": lambda o, x, w, s, k: o(x, w.float(), s, k),
    "its scale not float32": lambda o, x, w, s, k: o(x, w, s.double(), k),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_go_together_is_refused(message):
    operator, own = operands(layer())
    x = torch.randn(3, 70)
    with pytest.raises(RuntimeError, match=message):
        REFUSED[message](operator, x, *own)
    assert operator(x, *own).shape == (3, 33)


@pytest.mark.parametrize("bad", [torch.randn(32), torch.ones(33, dtype=torch.int32)], ids=["short", "integers"])
def test_a_bias_that_does_not_fit_is_refused(bad):
    weight, scale, _, k = operands(layer(bias=torch.float32))[1]
    with pytest.raises(RuntimeError, match="bias"):
        torch.ops.tle_int8.packed_linear.bias(torch.randn(3, 70), weight, scale, bad, k)


def test_calls_and_refusals_keep_no_tensor():
    operator, (weight, scale, k) = operands(layer())
    memory = np.zeros((3, 70), np.float32)
    held = sys.getrefcount(memory)
    x = torch.from_numpy(memory)
    for in_features in (k, 3):
        with contextlib.suppress(RuntimeError):
            operator(x, weight, scale, in_features)
    assert sys.getrefcount(memory) == held + 1
    del x
    assert sys.getrefcount(memory) == held


def test_results_are_given_back():
    operator, own = operands(layer(1000, 70))
    x, pages = torch.randn(1000, 70), []
    for calls in (3, 100):
        for _ in range(calls):
            operator(x, *own)
        pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert (pages[1] - pages[0]) * os.sysconf("SC_PAGE_SIZE") < 100 * 4_000_000 / 4


@pytest.fixture(scope="module")
def another():
    """The operators of another namespace, whose kernels have not been compiled by any call."""
    library = torch.library.Library("tle_native_test", "DEF")
    arguments = "Tensor x, Tensor panels, Tensor weight_scale, {}int in_features"
    library.define(f"packed_linear({arguments.format('')}) -> Tensor")
    library.define(f"packed_linear.bias({arguments.format('Tensor bias, ')}) -> Tensor")
    native.implement("tle_native_test")
    yield torch.ops.tle_native_test.packed_linear
    library._destroy()


def test_kernels_are_compiled_when_they_are_needed(another, monkeypatch):
    made, x = layer(), torch.randn(2, 70)
    own = operands(made)[1]
    asked, addresses = [], execution.addresses
    monkeypatch.setattr(execution, "addresses", lambda *of: asked.append(of) or addresses(*of))
    for _ in range(2):
        assert torch.equal(another(x, *own), run(made, x))
    (tile,) = (tile for tile in execution.layout().tiles if tile[0] == 2)
    assert asked == [(tile, torch.float32, None)]
    biased = layer(bias=torch.bfloat16)
    another.bias(x.half(), *operands(biased)[1])
    assert asked[1:] == [(tile, torch.float16, torch.bfloat16)]


def test_a_compilation_that_fails_is_raised_and_tried_again(another, monkeypatch):
    made, x = layer(), torch.randn(1, 70).bfloat16()
    own = operands(made)[1]

    def fail(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(execution, "addresses", fail)
        with pytest.raises(RuntimeError, match="OSError: the disk is full"):
            another(x, *own)
    assert torch.equal(another(x, *own), run(made, x))


def test_operators_keep_their_schema():
    tests = "test_schema", "test_faketensor", "test_aot_dispatch_static"
    for made, m in itertools.product((layer(), layer(bias=torch.float32)), (0, 1, 3)):
        operator, own = operands(made)
        outcomes = torch.library.opcheck(operator, (torch.randn(m, 70), *own), test_utils=tests)
        assert outcomes == dict.fromkeys(tests, "SUCCESS")


@torch.no_grad()
def test_compiled_code_calls_it_for_one_row_and_for_many():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes if "tle_int8" in str(node.target)])
        return graph.forward

    made = layer()
    compiled = torch.compile(made, fullgraph=True, backend=backend)
    for rows in (1, 2, 5, 300):
        x = torch.randn(rows, 70)
        assert torch.equal(compiled(x), run(made, x))
    assert graphs == [["tle_int8.packed_linear.default"]] * 2, "one row, any other number"
    strided = torch.randn(70, 300).t()
    assert torch.equal(compiled(strided), run(made, strided.contiguous()))


def test_gradients_flow_as_ever_when_compiled():
    torch._dynamo.reset()
    made = layer(bias=torch.float32)
    leaves = [torch.ones(3, 70, requires_grad=True) for _ in range(2)]
    for call, leaf in zip((made, torch.compile(made, fullgraph=True, backend="aot_eager")), leaves, strict=True):
        call(leaf).sum().backward()
    assert leaves[0].grad.abs().sum() > 0
    assert torch.equal(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("transform", ["grad", "vjp", "jvp"])
def test_no_derivative_is_silently_zero_when_compiled(transform):
    torch._dynamo.reset()
    made, x = layer(), torch.ones(3, 70)

    def derivative(x):
        if transform == "grad":
            return torch.func.grad(lambda each: made(each).sum())(x)
        if transform == "vjp":
            return torch.func.vjp(lambda each: made(each).sum(), x)[1](torch.tensor(1.0))
        return torch.func.jvp(lambda each: made(each).sum(), (x,), (torch.ones_like(x),))

    with pytest.raises((torch._dynamo.exc.TorchDynamoException, NotImplementedError)):
        torch.compile(derivative, fullgraph=True, backend="aot_eager")(x)


@torch.no_grad()
def test_panels_of_another_cpu_run_where_they_are_compiled():
    torch._dynamo.reset()
    made, x = layer(), torch.randn(3, 70)
    expected = run(made, x)
    here = execution.layout().packing
    other = dataclasses.replace(here, columns=here.columns * 2, n_multiple=here.n_multiple * 2)
    made._weight().data = other.pack(made.weight.detach())
    ops._warn_of_other_weights.cache_clear()
    with pytest.warns(RuntimeWarning, match="packed for another CPU"):
        assert torch.equal(torch.compile(made, fullgraph=True, backend="aot_eager")(x), expected)


@torch.no_grad()
def test_more_dimensions_than_it_takes_run_in_python():
    made, x = layer(), torch.randn((1,) * 69 + (70,))
    assert torch.equal(made(x).flatten(), run(made, x.flatten()))


def test_tensors_of_several_devices_are_refused():
    operator, (weight, scale, bias, k) = operands(layer(bias=torch.float32))
    for given in ((weight, scale, bias.to("meta")), (weight, scale.to("meta"), bias), (weight.to("meta"), scale, bias)):
        with pytest.raises(UnsupportedPlacementError, match="meta|cpu"):
            operator(torch.randn(3, 70), *given, k)


def test_tensors_without_memory_are_refused():
    operator, own = operands(layer())
    x = torch.randn(3, 70)
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="a tensor has no memory"):
        operator(x, *own)


INTERRUPTED = """
import sys, time, torch
from hf_tle_int8 import TLEInt8Linear, execution

def interrupt(*_):
    raise {error}

layer = TLEInt8Linear(torch.ones(5, 7, dtype=torch.int8), torch.ones(5)).pack_()
addresses, execution.addresses = execution.addresses, interrupt
try:
    layer(torch.ones(1, 7))
    time.sleep(1)
except BaseException as error:
    print(type(error).__name__, error)
execution.addresses = addresses
assert (layer(torch.ones(1, 7)) == 7).all()
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(3)", "OSError('\\udc80')"])
def test_an_interrupted_compilation_is_raised(error):
    script = INTERRUPTED.format(error=error)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert error.split("(")[0] in done.stdout


@pytest.fixture
def failing(monkeypatch):
    """An installation that fails, though nothing is missing."""

    def fail(_):
        raise RuntimeError("torch refuses")

    with monkeypatch.context() as patch:
        patch.setattr(native, "implement", fail)
        patch.setattr(native, "_tried", False)
        patch.setattr(native, "_failure", "")
        patch.setattr(ops, "_native_packing", None)
        ops._warn_of_slow_calls.cache_clear()
        yield
    ops.prepare()


def test_layers_run_where_it_cannot_be_installed(failing):
    with pytest.warns(RuntimeWarning, match="through Python: the operator cannot be made: torch refuses"):
        made = layer()
    assert "torch refuses" in environment()["INT8 linears are called"]
    x = torch.randn(3, 70)
    assert torch.equal(made(x), execution.packed_linear(x, made._weight().detach(), made.weight_scale, None))


@pytest.fixture
def older_torch(monkeypatch):
    """A torch without the C interface."""

    def refuse():
        raise RuntimeError("torch 1.0 has no aoti_torch_check in its C interface. Install another torch.")

    def forget():
        native._missing.cache_clear()
        ops._warn_of_slow_calls.cache_clear()

    monkeypatch.setattr(torch_abi, "symbols", refuse)
    monkeypatch.setattr(ops, "_native_packing", None)
    forget()
    yield
    monkeypatch.undo()
    forget()
    ops.prepare()


def test_why_it_is_not_used_is_said_once_and_shown(older_torch):
    with pytest.warns(RuntimeWarning, match=r"through Python: torch 1.0 has no aoti_torch_check.*Install") as caught:
        made = layer()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer()
    x = torch.randn(3, 70)
    found = made(x)
    assert "aoti_torch_check" in environment()["INT8 linears are called"]
    assert "aoti_torch_check" in str(explain(made))
    assert torch.equal(found, execution.packed_linear(x, made._weight().detach(), made.weight_scale, None))


def test_it_is_shown_where_it_is_used():
    assert environment()["INT8 linears are called"] == "by torch's dispatcher, in machine code"
    assert "Python" not in str(explain(layer()))


def test_importing_makes_nothing():
    script = "import sys; from hf_tle_int8 import nn, ops; assert ops._native_packing is None; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "llvmlite.binding" not in done.stdout.split()
