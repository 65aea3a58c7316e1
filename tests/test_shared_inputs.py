"""Linears that read one input quantize it once, never what has changed since, and give the same bits."""

import copy
import io
import subprocess
import sys
import threading
import weakref

import pytest
import torch
from conftest import NEEDS_KERNELS
from torch import nn
from torch.nn import functional

from hf_tle_int8 import activations, execution, ops
from hf_tle_int8.arithmetic import int8_linear
from hf_tle_int8.nn import TLEInt8Linear
from hf_tle_int8.shared_inputs import share_inputs

pytestmark = NEEDS_KERNELS


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(24, 40), nn.Linear(24, 40, bias=False), nn.Linear(40, 24)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Attention(nn.Module):
    """q and k read ``x``; v reads it too, where nobody changes it before."""

    def __init__(self, change=None):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(24, n) for n in (16, 8, 8))
        self.change = change

    def forward(self, x, y=None):
        q = self.q(x).relu()
        k, shape = self.k(x), x.shape
        if self.change is not None:
            self.change(x)
        v = self.v(x if y is None else y)
        return torch.cat([q, k, v.reshape(*shape[:-1], 8)], -1)


class Changed(Attention):
    """As if its source proved too much: all three share, whatever happens between."""

    def forward(self, x, y=None):
        parts = [self.q(x)]
        x = self.change(x)
        return torch.cat([*parts, self.k(x), self.v(x)], -1)


def int8(module, share=True):
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, TLEInt8Linear.from_linear(child))
    if share:
        share_inputs(module)
    return module


def shared(module):
    """The names of the linears of each shared input."""
    groups = {}
    for name, layer in module.named_modules():
        if getattr(layer, "_reader", None) is not None:
            groups.setdefault(id(layer._reader.of), set()).add(name)
    return sorted(map(sorted, groups.values()))


def all_share(module):
    """Let q, k and v share one input, against what the source of their module proves."""
    of = activations.SharedInput(type(module), 3)
    for bit, layer in enumerate((module.q, module.k, module.v)):
        layer._reader = activations.Reader(of, 1 << bit)
    return module


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """However little an input is, it is shared."""
    monkeypatch.setattr(ops, "LITTLE", -1)


@pytest.fixture
def quantized(monkeypatch):
    """How often rows were quantized, by themselves or by a linear in machine code."""
    times = []
    run, call = activations.Quantize.run, ops._call_native
    monkeypatch.setattr(activations.Quantize, "run", lambda *arguments: times.append(1) or run(*arguments))
    monkeypatch.setattr(ops, "_call_native", lambda x, *rest: times.extend([1][: x.numel()]) or call(x, *rest))
    return times


@torch.no_grad()
def test_little_is_quantized_by_each(quantized, monkeypatch):
    module, x = int8(Attention()), torch.randn(2, 24)
    expected = module(x)
    counts = []
    for most in (47, 48):
        monkeypatch.setattr(ops, "LITTLE", most)
        quantized.clear()
        assert torch.equal(module(x), expected)
        counts.append(len(quantized))
    assert counts == [2, 3]


def separately(module, *inputs):
    """What the module gives without sharing."""
    alone = copy.deepcopy(module)
    for layer in alone.modules():
        layer.__dict__.pop("_reader", None)
    assert shared(alone) == []
    with torch.no_grad():
        return alone(*inputs)


@pytest.mark.parametrize("shape", [(24,), (1, 24), (2, 3, 24), (40, 24), (0, 24)], ids=str)
@torch.no_grad()
def test_one_input_is_quantized_once(shape, quantized):
    mlp, attention = int8(Mlp()), int8(Attention())
    assert shared(mlp) == [["gate", "up"]]
    assert shared(attention) == [["k", "q"]]
    x = torch.randn(shape)
    for module, times in ((mlp, 2), (attention, 2)):
        expected = separately(module, x)
        for _ in range(2):
            quantized.clear()
            assert torch.equal(module(x), expected)
            assert len(quantized) == (times if x.numel() else 0)


class Looped(Attention):
    def forward(self, x, y=None):
        for _ in range(2):
            y = self.q(x)
            x = x + 1
            y = y[..., :8] + self.k(x)
        return y


class InBranches(Attention):
    def forward(self, x, y=None):
        if y is None:
            q = self.q(x)
        else:
            k = self.k(x)
            return k + self.v(x)
        return q


class PassedOn(Attention):
    def forward(self, x, y=None):
        q = self.q(x)
        y = functional.relu(x)
        return torch.cat([q, self.k(x), self.v(input=x), y], -1)


def test_what_the_source_proves():
    assert shared(int8(Looped())) == []
    assert shared(int8(InBranches())) == [["k", "v"]]
    assert shared(int8(PassedOn())) == []
    made = type("Made", (Attention,), {"forward": eval("lambda self, x: self.q(x) + self.k(x)")})()
    assert shared(int8(made)) == []
    mlp = Mlp()
    mlp.gate = TLEInt8Linear.from_linear(mlp.gate)
    share_inputs(mlp)
    assert shared(mlp) == [], "float linears quantize nothing"
    twice = Mlp()
    twice.up = twice.gate = TLEInt8Linear.from_linear(twice.gate)
    share_inputs(twice)
    assert shared(twice) == [], "one layer under two names"


def written_in_place(x):
    return x.mul_(-3)


def written_through_a_view(x):
    x[..., :5].zero_()
    return x


def another_of_the_same_memory(x):
    return x.view_as(x)


def other_memory(x):
    x.data = torch.randn_like(x)
    return x


@pytest.mark.parametrize("change", [written_in_place, written_through_a_view, another_of_the_same_memory, other_memory])
@torch.no_grad()
def test_what_has_changed_is_quantized_again(change, quantized):
    module = all_share(int8(Changed(change)))
    x = torch.randn(3, 24)
    before, after = x.clone(), torch.empty(0)

    def changed(given):
        nonlocal after
        given = change(given)
        after = given.clone()
        return given

    module.change = changed
    found = module(x)
    expected = [
        int8_linear(given, layer.weight, layer.weight_scale, layer.bias)
        for layer, given in ((module.q, before), (module.k, after), (module.v, after))
    ]
    assert torch.equal(found, torch.cat(expected, -1))
    assert len(quantized) == 2, "k and v read the same"


def _add_one(_, given):
    given[0].data.add_(1)


def _add_one_in_place(_, given):
    given[0].add_(1)


@torch.no_grad()
def test_only_the_code_that_was_read_shares(quantized):
    """Writes that no version counts, such as those of a user's kernel, are seen wherever the user calls the layers."""
    module = int8(Attention())
    x = torch.randn(2, 24)
    for _ in range(2):
        for layer in (module.q, module.k):
            x.data.add_(1)
            assert torch.equal(layer(x), int8_linear(x, layer.weight, layer.weight_scale, layer.bias))
            assert torch.equal(layer.forward(x), layer(x.clone()))
    module.k.register_forward_pre_hook(_add_one)
    before = x.clone()
    quantized.clear()
    found = module(x, before)
    assert len(quantized) == 3
    q, k, v = (layer(given) for layer, given in ((module.q, before), (module.k, before.clone()), (module.v, before)))
    assert torch.equal(found, torch.cat([q.relu(), k, v], -1))


def test_not_in_inference_mode_nor_where_gradients_flow(quantized):
    module = int8(Mlp())
    with torch.inference_mode():
        x = torch.randn(2, 24)
        assert torch.equal(module(x), separately(module, x))
    quantized.clear()
    with torch.inference_mode():
        module(x)
    assert len(quantized) == 3
    x = torch.randn(2, 24, requires_grad=True)
    expected = separately(module, x.detach())
    quantized.clear()
    y = module(x)
    assert torch.equal(y, expected)
    assert len(quantized) == 3
    y.sum().backward()
    assert x.grad.abs().sum() > 0


@torch.no_grad()
def test_interleaved_modules_and_other_layers_between(quantized):
    first, second = int8(Attention()), int8(Attention())
    x = torch.randn(5, 24)
    expected = [layer(x.clone()) for layer in (first.q, second.k, first.k, second.q)]
    quantized.clear()
    found = [layer(x) for layer in (first.q, second.k, first.k, second.q)]
    assert all(map(torch.equal, found, expected))
    assert len(quantized) == 4


class Through(nn.Module):
    """Writes through the address of its input, as a Triton kernel does: torch counts no new version."""

    def forward(self, x):
        x.numpy()[...] *= -3
        return x


class Between(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.between = between
        self.q, self.k, self.v = (nn.Linear(24, 8) for _ in range(3))

    def forward(self, x):
        q = self.q(x)
        changed = self.between(x)
        k = self.k(x)
        return torch.cat([q, k, self.v(x), changed], -1)


@pytest.mark.parametrize(("between", "compiled"), [(Through(), False), (nn.ReLU(inplace=True), True)])
@torch.no_grad()
def test_a_module_between_may_write_into_the_input(between, compiled):
    module, x = int8(Between(between)), torch.randn(3, 24)
    assert shared(module) == [["k", "v"]]
    expected = separately(module, x.clone())
    called = torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module
    assert torch.equal(called(x.clone()), expected)


@torch.no_grad()
def test_threads_do_not_share():
    module = int8(Mlp())
    inputs = [torch.randn(7, 24) for _ in range(4)]
    expected = [separately(module, x) for x in inputs]
    wrong = []

    def run(x, result):
        with torch.no_grad():
            wrong.extend(1 for _ in range(200) if not torch.equal(module(x), result))

    threads = [threading.Thread(target=run, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.no_grad()
def test_copies_share_among_themselves(quantized):
    module = int8(Mlp())
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    x = torch.randn(2, 24)
    expected = separately(module, x)
    for made in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
        assert shared(made) == [["gate", "up"]]
        assert made.gate._reader.of is not module.gate._reader.of
        made(x)
        quantized.clear()
        assert torch.equal(made(x), expected)
        assert len(quantized) == 2


@torch.no_grad()
def test_long_inputs_do_not_keep_their_memory(monkeypatch):
    monkeypatch.setattr(activations, "_MOST_KEPT", 1 << 10)
    module = int8(Attention())
    x = torch.randn(200, 24)
    expected = separately(module, x)
    module.v.bias.data = module.v.bias.data[::1].double()
    assert torch.equal(module(x), expected)
    assert execution._scratch._memory is None


BEFORE = "import torch._dynamo\nfrom hf_tle_int8 import activations"
AFTER = (
    "import sys\nfrom hf_tle_int8 import activations\nassert 'torch._dynamo' not in sys.modules\nimport torch._dynamo"
)


@pytest.mark.parametrize("imports", [BEFORE, AFTER], ids=["before", "after"])
def test_dynamo_takes_who_calls_for_a_constant_whenever_it_is_imported(imports):
    script = f"{imports}\nassert activations.traced_in._dynamo_marked_constant"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dynamic", [None, True])
@torch.no_grad()
def test_compiled(dynamic):
    graphs = []

    def backend(graph, _):
        graphs.append([node.target for node in graph.graph.nodes if "tle_int8" in str(node.target)])
        return graph.forward

    module = int8(Mlp())
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend=backend)
    for rows in (2, 5, 17):
        x = torch.randn(rows, 24)
        assert torch.equal(compiled(x), separately(module, x))
    names = [str(target).removeprefix("tle_int8.") for target in graphs[-1]]
    assert names == ["quantize", "linear_quantized", "linear_quantized", "packed_linear.bias"]
    assert len(graphs) <= 2, "one for the first shape, one for all others"
    assert module.gate._reader.of._codes is None


@torch.no_grad()
def test_a_reader_that_is_not_called_keeps_nothing_alive_when_compiled():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    module = int8(Attention())
    module.k.register_forward_hook(lambda module, inputs, output: None)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for _ in range(4):
        x = torch.randn(3, 24)
        assert torch.equal(compiled(x), separately(module, x))
    of = module.q._reader.of
    assert of is module.k._reader.of
    assert of._x is not None, "k has read nothing"
    seen = weakref.ref(x)
    del x
    assert seen() is None
    assert of._codes() is None
    assert len(graphs) <= 2


@pytest.mark.parametrize("hooked", [False, True])
@torch.no_grad()
def test_only_the_code_that_was_read_shares_when_compiled(hooked):
    module = int8(Attention())

    def by_hand(x):
        q = module.q(x)
        if not hooked:
            x.add_(1)
        return torch.cat([q.relu(), module.k(x), module.v(x)], -1)

    if hooked:
        module.k.register_forward_pre_hook(_add_one_in_place)
        module.change = None
    x = torch.randn(3, 24)
    expected = by_hand(x.clone())
    compiled = torch.compile(module if hooked else by_hand, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x.clone()), expected)


def test_compiled_with_gradients_and_exported():
    module = int8(Mlp())
    x = torch.randn(2, 24, requires_grad=True)
    expected = module(x)
    (expected_grad,) = torch.autograd.grad(expected.sum(), x)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), expected)
    assert torch.equal(torch.autograd.grad(compiled(x).sum(), x)[0], expected_grad)
    exported = torch.export.export(module, (x.detach(),))
    assert "quantize" not in exported.graph_module.code
    assert torch.equal(exported.module()(x.detach()), expected)


@torch.no_grad()
def test_operators_without_kernels(monkeypatch):
    """What was compiled with kernels runs where there are none, or where the weight is row-major."""
    layer = TLEInt8Linear.from_linear(nn.Linear(24, 9))
    x = torch.randn(3, 24)
    expected = layer(x)
    arguments = layer.weight_scale, layer.bias, 24
    operators = torch.ops.tle_int8
    panels = layer._weight().detach()
    assert torch.equal(operators.linear_quantized(x, operators.quantize(x), panels, *arguments), expected)
    row_major = layer.weight.detach()
    ops._warn_of_other_weights.cache_clear()
    with pytest.warns(RuntimeWarning, match="row-major"):
        assert torch.equal(operators.linear_quantized(x, operators.quantize(x), row_major, *arguments), expected)
    monkeypatch.setattr(execution, "unavailable", lambda: "no kernels")
    assert torch.equal(operators.linear_quantized(x, operators.quantize(x), panels, *arguments), expected)


@pytest.mark.parametrize("m", [0, 1, 3, 33])
def test_operators_keep_their_schema(m):
    x = torch.randn(m, 24)
    layer = TLEInt8Linear.from_linear(nn.Linear(24, 9))
    tests = "test_schema", "test_faketensor"
    outcomes = torch.library.opcheck(torch.ops.tle_int8.quantize.default, (x,), test_utils=tests)
    assert outcomes == dict.fromkeys(tests, "SUCCESS")
    arguments = x, torch.ops.tle_int8.quantize(x), layer._weight().detach(), layer.weight_scale, layer.bias, 24
    outcomes = torch.library.opcheck(torch.ops.tle_int8.linear_quantized.default, arguments, test_utils=tests)
    assert outcomes == dict.fromkeys(tests, "SUCCESS")
