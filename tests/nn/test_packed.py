import copy
import pickle
import threading
import warnings

import pytest
import torch

from hf_tle_int8 import arithmetic, execution, ops
from hf_tle_int8.nn import TLEInt8Linear
from hf_tle_int8.nn import packed as packed_module
from hf_tle_int8.packing import Packing, is_packed

OTHERS = [Packing(8, 8, 32, 32), Packing(16, 4, 32, 16), Packing(4, 2, 4, 2)]


@pytest.fixture
def layer():
    torch.manual_seed(3)
    return TLEInt8Linear.from_linear(torch.nn.Linear(70, 45))


@pytest.fixture
def codes(layer):
    return layer.weight.clone()


def held(layer):
    return layer._parameters["weight"]


def reference(layer, codes, x):
    return arithmetic.int8_linear(x, codes, layer.weight_scale.detach(), layer.bias.detach())


def test_a_call_packs_and_looking_unpacks(layer, codes):
    parameter, x = held(layer), torch.randn(3, 70)
    assert not is_packed(parameter)
    with torch.no_grad():
        y = layer(x)
    assert is_packed(parameter)
    assert held(layer) is parameter
    assert torch.equal(y, reference(layer, codes, x))
    assert torch.equal(layer.weight, codes)
    assert not is_packed(parameter)
    layer.pack_()
    assert is_packed(parameter)


def test_only_one_copy_is_held(layer):
    layer.pack_()
    tensors = [*layer.parameters(), *layer.buffers(), *(v for v in vars(layer).values() if isinstance(v, torch.Tensor))]
    assert sum(t.numel() for t in tensors if t.dtype == torch.int8) == held(layer).numel()


@pytest.mark.parametrize(
    "look",
    [
        lambda layer: layer.state_dict()["weight"],
        lambda layer: dict(copy.deepcopy(layer).state_dict())["weight"],
        lambda layer: pickle.loads(pickle.dumps(layer)).weight,
        lambda layer: layer.to(torch.float16).weight,
    ],
)
def test_all_who_look_see_row_major_codes(layer, codes, look):
    layer.pack_()
    assert torch.equal(look(layer), codes)


def test_elsewhere_the_weight_is_row_major(layer):
    layer.pack_().to("meta")
    assert held(layer).shape == (45, 70)


def test_dequantize_leaves_it_packed(layer, codes):
    layer.pack_()
    assert torch.equal(layer.dequantize(), codes * layer.weight_scale)
    assert is_packed(held(layer))


def test_loading_replaces_the_codes(layer, codes):
    layer.pack_()
    state = {**layer.state_dict(), "weight": -codes.clamp(min=-127)}
    layer.pack_()
    layer.load_state_dict(state)
    x = torch.randn(2, 70)
    with torch.no_grad():
        assert torch.equal(layer(x), reference(layer, state["weight"], x))


@pytest.mark.parametrize("other", OTHERS)
def test_panels_of_another_machine_are_packed_again(layer, codes, other):
    x = torch.randn(4, 70)
    layer.pack_()
    layer._is_ready = True
    held(layer).data = other.pack(codes)
    moved = pickle.loads(pickle.dumps(layer))
    assert torch.equal(ops.linear(x, held(moved), moved.weight_scale, moved.bias, 70), reference(layer, codes, x))
    with torch.no_grad():
        assert torch.equal(moved(x), reference(layer, codes, x))
    assert execution.layout().packing.fits(held(moved), 45, 70)
    assert torch.equal(moved.weight, codes)


def test_layers_that_share_a_weight_share_its_panels(layer, codes):
    twin = TLEInt8Linear.from_linear(torch.nn.Linear(70, 45))
    twin.weight, twin.weight_scale = layer.weight, layer.weight_scale
    layer.pack_()
    assert held(twin) is held(layer)
    assert is_packed(held(twin))
    assert torch.equal(twin.weight, codes)


def test_without_kernels_the_weight_stays_row_major(layer, codes, monkeypatch):
    monkeypatch.setattr(execution, "unavailable", lambda: "no kernels")
    packed_module._warn_of_missing_kernels.cache_clear()
    with pytest.warns(RuntimeWarning, match="the kernels cannot: no kernels"):
        assert packed_module.pack_parameter(held(layer), 45, 70) is None
    x = torch.randn(3, 70)
    with torch.no_grad():
        assert torch.equal(layer(x), reference(layer, codes, x))
    assert not is_packed(held(layer))


def test_a_weight_that_is_looked_at_between_calls_is_reported(layer):
    x = torch.randn(1, 70)

    def call_and_look(times):
        for _ in range(times):
            with torch.no_grad():
                layer(x)
            assert layer.weight.shape == (45, 70)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call_and_look(8)
    with pytest.warns(RuntimeWarning, match="looks at its weight between calls"):
        call_and_look(1)


def test_threads_that_call_and_look_at_once_get_the_same(layer, codes):
    x = torch.randn(5, 70)
    expected, wrong = reference(layer, codes, x), []

    def call():
        with torch.no_grad():
            for _ in range(200):
                if not torch.equal(layer(x), expected):
                    wrong.append("call")

    def look():
        for _ in range(200):
            if not torch.equal(layer.state_dict()["weight"].clone(), codes):
                wrong.append("look")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=target) for target in (call, call, look)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_gradients_are_those_of_row_major_weights(layer, codes):
    layer.pack_()
    inputs = [torch.randn(3, 70).requires_grad_()]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    layer(inputs[0]).square().sum().backward()
    ops._warn_of_other_weights.cache_clear()
    with pytest.warns(RuntimeWarning, match="row-major weights runs on the plain-torch reference"):
        y = ops.linear(inputs[1], codes, layer.weight_scale, layer.bias)
    y.square().sum().backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)


def test_what_watches_operators_sees_them(layer):
    class Names(torch.utils._python_dispatch.TorchDispatchMode):
        seen: list = []  # noqa: RUF012 - of this test alone

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Names() as mode:
        layer(torch.randn(2, 70))
    assert "tle_int8.linear.default" in mode.seen
