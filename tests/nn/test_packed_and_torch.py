"""What torch does to parameters and inputs behind the back of a layer must not change its numbers."""

import threading

import pytest
import torch

from hf_tle_int8 import ops
from hf_tle_int8.errors import InputTypeError, InputValueError
from hf_tle_int8.nn import TLEInt8Linear


@pytest.fixture
def layer():
    torch.manual_seed(5)
    return TLEInt8Linear.from_linear(torch.nn.Linear(50, 40))


@pytest.fixture
def x():
    return torch.randn(3, 50)


@pytest.fixture
def expected(layer, x):
    with torch.no_grad():
        return layer(x)


def test_memory_formats_leave_it_as_it_is(layer, x, expected):
    layer.to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
        panels = layer._parameters["weight"]
        panels.data = panels.data.contiguous(memory_format=torch.channels_last)
        assert torch.equal(layer(x), expected)


def test_scales_of_other_types_are_converted(layer, x, expected):
    layer.weight_scale.data = layer.weight_scale.data.bfloat16()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, rtol=0.02, atol=0.02)
        layer.weight_scale.data = layer.weight_scale.data.float().expand(40, 3)[:, :1]
        torch.testing.assert_close(layer(x), expected, rtol=0.02, atol=0.02)


def test_a_weight_of_another_shape_is_refused(layer, x):
    layer.weight = torch.nn.Parameter(torch.ones(8, 50, dtype=torch.int8), requires_grad=False)
    with torch.no_grad(), pytest.raises(InputValueError, match=r"\(8, 50\), and the layer needs \(40, 50\)"):
        layer(x)


@pytest.mark.parametrize("called", [False, True])
def test_floats_written_into_it_are_refused(layer, x, called):
    if called:
        layer(x)
    layer.weight.data = torch.randn(40, 50)
    with pytest.raises(InputTypeError, match=r"has dtype torch\.float32, int8 codes .*something wrote into it"):
        layer(x)
    with pytest.raises(InputTypeError, match=r"Quantize it with TLEInt8Linear\.from_linear"):
        ops.linear(x, torch.randn(40, 50), layer.weight_scale)


def test_parametrizations_are_refused(layer, x):
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", torch.nn.Identity())
    with pytest.raises(AttributeError, match=r"it is parametrized.*see to_linear\(\)"):
        layer(x)


def test_inference_mode_leaves_no_trace(x):
    with torch.inference_mode():
        layer = TLEInt8Linear.from_linear(torch.nn.Linear(50, 40))
        expected = layer(x)
    assert layer.state_dict()["weight"].shape == (40, 50)
    assert torch.equal(layer(x), expected)
    with torch.inference_mode():
        layer.state_dict()
    leaf = x.clone().requires_grad_()
    layer(leaf).sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_forward_derivatives_are_not_lost(layer, x):
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    with torch.autograd.forward_ad.dual_level():
        assert torch.equal(layer(x), layer(x.clone().requires_grad_()))


def test_lazy_inputs_are_resolved(layer, x, expected):
    with torch.no_grad():
        assert torch.equal(layer(torch._neg_view(-x)), expected)
        zeros = layer(torch.zeros(3, 50))
        assert torch.equal(layer(torch._efficientzerotensor(3, 50)), zeros)


def test_the_caller_s_state_dict_stays_row_major(layer, x, expected):
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(torch.func.functional_call(layer, state, x), expected)
    assert state["weight"].shape == (40, 50)


def test_traced_layers_check_their_inputs(layer, x, expected):
    layer.pack_()
    traced = torch.jit.trace(layer, x, check_trace=False)
    assert torch.equal(traced(x), expected)
    with pytest.raises((RuntimeError, InputValueError), match="50"):
        traced(torch.randn(3, 52))
    with pytest.raises(InputValueError, match=r"\[..., 50\] is needed"):
        ops.linear(torch.randn(3, 52), layer._parameters["weight"], layer.weight_scale, None, 50)


def test_what_is_saved_while_others_call_is_row_major(layer, x, expected):
    shapes, stop = set(), threading.Event()

    def call():
        with torch.no_grad():
            while not stop.is_set():
                assert torch.equal(layer(x), expected)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        shapes.add(tuple(layer.state_dict()["weight"].shape))
    stop.set()
    for thread in threads:
        thread.join()
    assert shapes == {(40, 50)}
