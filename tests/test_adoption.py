"""Models of transformers that are converted in memory save and load as INT8."""

import pytest
import torch
from moe_support import expert_layers, save_moe
from support import int8_layers, logits, save_tiny_llama, tiny_llama_config
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

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


@pytest.mark.parametrize(
    "options", [None, {"modules_to_not_convert": ["layers.0"]}, {"modules_to_convert": ["lm_head"]}]
)
@pytest.mark.parametrize("save", ["save_pretrained", "save_compressed_tensors"])
def test_a_part_that_shares_the_configuration_of_the_model(tmp_path, options, save):
    path = save_tiny_llama(tmp_path / "float")
    model = load(path, **({} if options is None else {"quantization_config": TLEInt8Config(**options)}))
    assert quantize_and_replace_linears(model.model)
    assert len(int8_layers(model.model)) == 14
    if save == "save_pretrained":
        model.save_pretrained(tmp_path / "int8")
    else:
        save_compressed_tensors(model, tmp_path / "int8")
    again = load(tmp_path / "int8", quantization_config=TLEInt8Config())
    assert set(int8_layers(again)) == set(int8_layers(model))
    assert torch.equal(logits(again), logits(model))
    model.model.save_pretrained(tmp_path / "part")
    assert torch.equal(logits(AutoModel.from_pretrained(tmp_path / "part")), logits(model.model))


@pytest.mark.parametrize("kind", ["llama", "qwen"])
@pytest.mark.parametrize("options", [None, {"modules_to_convert": ["layers.0"]}])
def test_compressed_tensors_of_a_part_that_is_no_model(tmp_path, kind, options):
    path = save_moe(tmp_path / "float", kind) if kind == "qwen" else save_tiny_llama(tmp_path / "float")
    model = load(path, **({} if options is None else {"quantization_config": TLEInt8Config(**options)}))
    assert quantize_and_replace_linears(model.model.layers[1])
    save_compressed_tensors(model, tmp_path / "ct")
    again = load(tmp_path / "ct", quantization_config=TLEInt8Config())
    assert set(int8_layers(again)) == set(int8_layers(model))
    assert torch.equal(logits(again), logits(model))
    assert model.config.quantization_config.int8_modules == again.config.quantization_config.int8_modules


@pytest.mark.parametrize("part", ["model", "model.layers.1"])
def test_a_part_of_a_mixture(tmp_path, part):
    model = load(
        save_moe(tmp_path / "float", "qwen"), quantization_config=TLEInt8Config(modules_to_convert=["layers.0"])
    )
    assert quantize_and_replace_linears(model.get_submodule(part)) == 5
    model.save_pretrained(tmp_path / "int8")
    again = load(tmp_path / "int8")
    assert len(int8_layers(again)) == 8
    assert len(expert_layers(again)) == 2
    assert torch.equal(logits(again), logits(model))


def test_a_part_with_a_configuration_of_its_own(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**sizes, image_size=8, patch_size=4)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=tiny_llama_config(num_hidden_layers=1), image_token_index=95)
    ).eval()
    assert quantize_and_replace_linears(model.model.language_model) == 7
    model.save_pretrained(tmp_path)
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert set(int8_layers(again)) == set(int8_layers(model))
    ids = torch.arange(9)[None]
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_layer_that_was_made_float_by_hand(tmp_path):
    model = load(save_tiny_llama(tmp_path / "float"), quantization_config=TLEInt8Config())
    mlp = model.model.layers[0].mlp
    mlp.up_proj = mlp.up_proj.to_linear()
    model.save_pretrained(tmp_path / "int8")
    assert torch.equal(logits(load(tmp_path / "int8")), logits(model))


def test_a_part_of_a_model_of_another_method_is_refused(tmp_path):
    path = save_tiny_llama(tmp_path / "float")
    save_compressed_tensors(load(path, quantization_config=TLEInt8Config()), tmp_path / "ct")
    stock = load(tmp_path / "ct")
    with pytest.raises(ConfigError, match="LlamaModel is quantized already .*compressed-tensors"):
        quantize_and_replace_linears(stock.model)
    assert not int8_layers(stock)
