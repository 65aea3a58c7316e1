"""Float models from INT8 ones, by ``model.dequantize()`` and ``TLEInt8Config(dequantize=True)``."""

import json
import subprocess
import sys
import warnings

import pytest
import torch
from moe_support import expert_layers, save_moe
from support import FLOATS, int8_layers, logits, save_tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears, save_compressed_tensors
from hf_tle_int8.errors import ConfigError, InputTypeError, UnsupportedPlacementError, UnsupportedSchemeError

DEQUANTIZE = TLEInt8Config(dequantize=True)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1, attention_bias=True)


@pytest.fixture
def int8(llama, tmp_path):
    """An INT8 model and the folder that it was saved to."""
    model = AutoModelForCausalLM.from_pretrained(llama, quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path / "int8")
    return model, tmp_path / "int8"


def assert_float(actual, int8, dtype):
    """``actual`` is the float model of the weights of ``int8``, all else as it is there."""
    layers = int8_layers(int8)
    assert not int8_layers(actual)
    for name, tensor in actual.state_dict().items():
        parent, _, key = name.rpartition(".")
        if parent in layers and key == "weight":
            expected = (layers[parent].weight.float() * layers[parent].weight_scale).to(dtype)
        else:
            expected = int8.state_dict()[name].to(dtype)
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected), name
    assert torch.equal(actual.model.rotary_emb.inv_freq, int8.model.rotary_emb.inv_freq)
    assert actual.model.rotary_emb.inv_freq.dtype == torch.float32
    assert not actual.is_quantized
    assert all(parameter.requires_grad for parameter in actual.parameters())
    assert not hasattr(actual.config, "quantization_config")


@pytest.mark.parametrize("dtype", FLOATS)
def test_dequantize_rounds_once(int8, dtype):
    _, path = int8
    model, expected = (AutoModelForCausalLM.from_pretrained(path, dtype=dtype) for _ in range(2))
    model.dequantize()
    assert_float(model, expected, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_loading_dequantized(int8, dtype):
    _, path = int8
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, quantization_config=DEQUANTIZE)
    assert_float(model, AutoModelForCausalLM.from_pretrained(path, dtype=dtype), dtype)
    assert not hasattr(model, "hf_quantizer")


def test_the_option_is_all_that_is_asked_for(int8):
    _, path = int8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AutoModelForCausalLM.from_pretrained(path, quantization_config=DEQUANTIZE)
    with pytest.raises(ConfigError, match="INT8 already"):
        AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(["layers.0"], dequantize=True))
    assert TLEInt8Config(dequantize=True) == DEQUANTIZE
    assert len(int8_layers(AutoModelForCausalLM.from_pretrained(path))) == 7


def test_compressed_tensors_checkpoints_dequantize(int8, tmp_path, caplog):
    model, _ = int8
    save_compressed_tensors(model, tmp_path / "w8a8")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "w8a8", quantization_config=DEQUANTIZE)
    assert_float(loaded, model, torch.float32)
    assert "have no effect" not in caplog.text


def test_float_checkpoints_have_nothing_to_dequantize(llama):
    with pytest.raises(ConfigError, match=r"this checkpoint is not INT8\. Drop quantization_config"):
        AutoModelForCausalLM.from_pretrained(llama, quantization_config=DEQUANTIZE)


def test_other_methods_are_refused_all_the_same(llama, tmp_path):
    config = json.loads((llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UnsupportedSchemeError, match="quant_method='fp8'"):
        AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=DEQUANTIZE)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_the_option_is_true_or_false(value):
    with pytest.raises(ConfigError, match=f"dequantize={value!r}: True or False"):
        TLEInt8Config(dequantize=value)


def test_offloaded_weights_are_refused(int8, tmp_path):
    model, path = int8
    device_map = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    options = {"device_map": {**device_map, "model.rotary_emb": "cpu"}, "offload_folder": tmp_path / "offload"}
    offloaded = AutoModelForCausalLM.from_pretrained(path, **options)
    with pytest.raises(UnsupportedPlacementError, match=r"dequantize is on meta.*\.to\('cpu'\)"):
        offloaded.dequantize()
    assert torch.equal(logits(offloaded), logits(model))
    with pytest.raises(UnsupportedPlacementError, match="dequantize is on meta"):
        AutoModelForCausalLM.from_pretrained(path, quantization_config=DEQUANTIZE, **options)


def test_layers_that_share_a_weight_go_on_sharing_it(llama):
    model = AutoModelForCausalLM.from_pretrained(llama)
    first, second = model.model.layers[0].mlp.gate_proj, model.model.layers[0].mlp.up_proj
    second.weight = first.weight
    quantize_and_replace_linears(model, skip=["lm_head"])
    model.dequantize()
    assert type(first) is nn.Linear
    assert second.weight is first.weight


# As if this package were not installed; Triton would import its backend.
STOCK = """
import importlib.metadata, sys
installed = importlib.metadata.distributions
importlib.metadata.distributions = lambda **options: (d for d in installed(**options) if d.name != "hf_tle_int8")
sys.modules["hf_tle_int8"] = None

import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.arange(34).reshape(2, 17)
with torch.no_grad():
    assert torch.equal(model(ids).logits, torch.load(sys.argv[2]))
assert sys.modules["hf_tle_int8"] is None
"""


def test_stock_transformers_reads_what_is_saved(int8, tmp_path):
    _, path = int8
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=DEQUANTIZE)
    model.save_pretrained(tmp_path / "float")
    torch.save(logits(model), tmp_path / "logits.pt")
    assert "quantization_config" not in (tmp_path / "float" / "config.json").read_text()
    command = [sys.executable, "-c", STOCK, tmp_path / "float", tmp_path / "logits.pt"]
    subprocess.run(command, check=True)


def test_offloaded_experts_are_refused_before_any_layer_is_float(tmp_path):
    path = save_moe(tmp_path / "float", "qwen")
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path / "int8")
    names = [name for name, module in model.named_modules() if not list(module.children())]
    device_map = {name: "cpu" for name in names if "experts" not in name}
    device_map |= dict.fromkeys(expert_layers(model), "disk")
    offloaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "int8", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    with pytest.raises(UnsupportedPlacementError, match="gate_up_proj of an INT8 layer to dequantize is on meta"):
        offloaded.dequantize()
    assert len(int8_layers(offloaded)) == 8
    assert torch.equal(logits(offloaded), logits(model))


@pytest.mark.parametrize("dtype", [torch.int8, "float13"])
def test_dtypes_that_are_not_floating_point_change_nothing(int8, dtype):
    model, _ = int8
    before = logits(model)
    with pytest.raises(ConfigError, match=f"dtype={dtype!r}: a floating-point dtype"):
        model.dequantize(dtype)
    assert torch.equal(logits(model), before)


def test_a_layer_has_no_integer_weight(int8):
    layer = next(iter(int8_layers(int8[0]).values()))
    for method in (layer.dequantize, layer.to_linear):
        with pytest.raises(InputTypeError, match=r"torch\.int8: a floating-point dtype is needed"):
            method(torch.int8)
