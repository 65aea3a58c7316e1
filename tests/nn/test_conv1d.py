"""GPT-2's Conv1D as an INT8 layer."""

import copy
import pickle

import pytest
import torch
from support import int8_layers, numpy_quantize_weight
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_tle_int8 import TLEInt8Linear, quantize_and_replace_linears, replace_linears_with_tle_int8
from hf_tle_int8.errors import CheckpointError, InputValueError
from hf_tle_int8.nn import TLEInt8Conv1D
from hf_tle_int8.nn.conv1d import become_int8, bias_of, float_rows, int8_class


@pytest.fixture
def conv():
    layer = Conv1D(12, 8)
    nn.init.normal_(layer.bias)
    return layer


def as_linear(conv: Conv1D) -> nn.Linear:
    linear = nn.Linear(conv.nx, conv.nf)
    linear.weight = nn.Parameter(conv.weight.detach().t().contiguous())
    linear.bias = nn.Parameter(conv.bias.detach().clone())
    return linear


def test_is_the_linear_of_the_transposed_weight(conv):
    expected = TLEInt8Linear.from_linear(as_linear(conv))
    x = torch.randn(2, 3, 8)
    before = conv(x)
    layer = TLEInt8Conv1D.from_linear(conv)
    codes, scale = numpy_quantize_weight(conv.weight.t())
    assert (layer.weight.numpy() == codes).all()
    assert (layer.weight_scale.numpy() == scale).all()
    assert torch.equal(layer(x), expected(x))
    assert (layer(x) - before).norm() / before.norm() < 0.05
    assert torch.equal(layer.to_linear().weight, expected.dequantize())


def test_conversion_in_place_and_back(conv):
    model = nn.ModuleDict({"a": conv})
    expected = as_linear(conv)
    assert quantize_and_replace_linears(model) == 1
    assert type(model["a"]) is TLEInt8Conv1D
    assert model["a"] is conv
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == {
        "a.weight": (12, 8),
        "a.weight_scale": (12, 1),
        "a.bias": (12,),
    }
    dequantized = conv.dequantize()
    torch.testing.assert_close(dequantized, expected.weight.detach(), rtol=0, atol=float(conv.weight_scale.max()) / 2)
    conv.revert(dequantized, conv.bias)
    assert type(conv) is Conv1D
    assert conv.weight.is_contiguous()
    assert torch.equal(conv.weight, dequantized.t())
    x = torch.randn(5, 8)
    torch.testing.assert_close(conv(x), nn.functional.linear(x, dequantized, expected.bias))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_remember_their_float_class(conv, copied):
    layer = copied(become_int8(conv, *map(torch.as_tensor, numpy_quantize_weight(conv.weight.t())), bias_of(conv)))
    assert type(layer) is TLEInt8Conv1D
    layer.revert(layer.dequantize(), layer.bias)
    assert type(layer) is Conv1D


def test_state_dict_holds_rows(conv):
    source = copy.deepcopy(conv)
    state = TLEInt8Conv1D.from_linear(source).state_dict()
    assert replace_linears_with_tle_int8(conv, state) == 1
    x = torch.randn(4, 8)
    assert torch.equal(conv(x), TLEInt8Conv1D.from_linear(source)(x))


def test_transposed_state_is_refused(conv):
    state = TLEInt8Conv1D.from_linear(conv).state_dict()
    state["weight"] = state["weight"].t()
    with pytest.raises(CheckpointError, match=r"weight has shape \(8, 12\) and the layer needs \(12, 8\)"):
        replace_linears_with_tle_int8(conv, state)
    assert not int8_layers(conv)


def test_channels_are_columns_in_errors(conv):
    with torch.no_grad():
        conv.weight[2, 9] = float("inf")
    with pytest.raises(InputValueError, match=r"weight holds NaN or Inf in output channel 9"):
        quantize_and_replace_linears(conv)


def test_other_modules_are_no_linears():
    for module in (nn.Embedding(4, 4), nn.LayerNorm(4), TLEInt8Linear.from_linear(nn.Linear(4, 4))):
        assert int8_class(module) is None
        with pytest.raises(TypeError, match=f"{type(module).__name__} is no float linear"):
            float_rows(module)
