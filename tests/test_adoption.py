"""Models of transformers that are converted in memory save and load as INT8."""

import pytest
import torch
from support import int8_layers, logits, save_tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM

from hf_tle_int8 import (
    TLEInt8Config,
    quantize_and_replace_linears,
    replace_linears_with_tle_int8,
    save_compressed_tensors,
)
from hf_tle_int8.errors import ConfigError


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, **options)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("skip", [[], ["lm_head"], ["layers.1", "re:.*down_proj"]])
def test_round_trip(tmp_path, tied, skip):
    model = load(save_tiny_llama(tmp_path / "float", tie_word_embeddings=tied, attention_bias=True))
    quantize_and_replace_linears(model, skip=skip)
    assert ("lm_head" in int8_layers(model)) == (not tied and "lm_head" not in skip)
    model.save_pretrained(tmp_path / "int8")
    again = load(tmp_path / "int8")
    assert set(int8_layers(again)) == set(int8_layers(model))
    assert torch.equal(logits(again), logits(model))


def test_same_as_loading_with_the_configuration(tmp_path):
    path = save_tiny_llama(tmp_path)
    model, loaded = load(path), load(path, quantization_config=TLEInt8Config())
    quantize_and_replace_linears(model, skip=["lm_head"])
    assert model.config.quantization_config == loaded.config.quantization_config
    assert torch.equal(logits(model), logits(loaded))


def test_a_model_that_was_never_loaded(tmp_path):
    from support import tiny_llama_config

    model = AutoModelForCausalLM.from_config(tiny_llama_config()).eval()
    quantize_and_replace_linears(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load(tmp_path)), logits(model))
    model.dequantize()
    assert not int8_layers(model)


def test_converting_the_rest_of_a_loaded_model(tmp_path):
    config = TLEInt8Config(modules_to_not_convert=["layers.0"])
    model = load(save_tiny_llama(tmp_path / "float"), quantization_config=config)
    assert quantize_and_replace_linears(model) == 8
    model.save_pretrained(tmp_path / "int8")
    again = load(tmp_path / "int8")
    assert len(int8_layers(again)) == 15
    assert torch.equal(logits(again), logits(model))


def test_from_a_state_dict(tmp_path):
    path = save_tiny_llama(tmp_path / "float")
    source = load(path, quantization_config=TLEInt8Config())
    model = load(path)
    assert replace_linears_with_tle_int8(model, source.state_dict()) == 14
    model.save_pretrained(tmp_path / "int8")
    assert torch.equal(logits(load(tmp_path / "int8")), logits(source))


def test_inside_of_another_module(tmp_path):
    wrapper = nn.ModuleDict({"inner": load(save_tiny_llama(tmp_path / "float")), "extra": nn.Linear(4, 4)})
    quantize_and_replace_linears(wrapper)
    wrapper["inner"].save_pretrained(tmp_path / "int8")
    assert torch.equal(logits(load(tmp_path / "int8")), logits(wrapper["inner"]))


def test_exports_to_compressed_tensors(tmp_path):
    model = load(save_tiny_llama(tmp_path / "float"))
    quantize_and_replace_linears(model, skip=["lm_head"])
    save_compressed_tensors(model, tmp_path / "ct")
    again = load(tmp_path / "ct", quantization_config=TLEInt8Config())
    assert torch.equal(logits(again), logits(model))


def test_nothing_converted_changes_nothing(tmp_path):
    model = load(save_tiny_llama(tmp_path))
    assert quantize_and_replace_linears(model, skip=["re:.*"]) == 0
    assert not hasattr(model.config, "quantization_config")


def test_a_model_of_another_method_is_refused(tmp_path):
    path = save_tiny_llama(tmp_path / "float")
    save_compressed_tensors(load(path, quantization_config=TLEInt8Config()), tmp_path / "ct")
    stock = load(tmp_path / "ct")
    before = {name: type(module) for name, module in stock.named_modules()}
    with pytest.raises(ConfigError, match="is quantized already .*compressed-tensors.*Load the float original"):
        quantize_and_replace_linears(stock)
    assert {name: type(module) for name, module in stock.named_modules()} == before
