"""A model that is INT8 already, or of another method, is not quantized again."""

import pytest
import torch
from support import int8_layers, logits, save_tiny_llama
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears, replace_linears_with_tle_int8
from hf_tle_int8.errors import ConfigError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = save_tiny_llama(tmp_path_factory.mktemp("float"), num_hidden_layers=1)
    config = TLEInt8Config(modules_to_not_convert=["o_proj"])
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=config)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize_lm_head": True}, "quantize_lm_head=True"),
        ({"modules_to_convert": ["mlp"]}, r"modules_to_convert=\['mlp'\]"),
        ({"modules_to_not_convert": ["o_proj", "mlp"]}, r"modules_to_not_convert=\['o_proj', 'mlp'\]"),
    ],
)
def test_other_options_for_an_int8_checkpoint(path, options, message):
    with pytest.raises(ConfigError, match=f"{message}, but the checkpoint is INT8 already.*Load it without"):
        AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(**options))


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize("options", [{}, {"modules_to_not_convert": ["o_proj"]}])
def test_the_same_options_change_nothing(path, model, options):
    again = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(**options))
    assert torch.equal(logits(again), logits(model))


def test_another_method_for_an_int8_checkpoint(path):
    with pytest.raises(ValueError, match="quantized with TLEInt8Config but you are passing a BitsAndBytesConfig"):
        AutoModelForCausalLM.from_pretrained(path, quantization_config=BitsAndBytesConfig(load_in_8bit=True))


def test_replacing_what_is_int8_already(path, model):
    again = AutoModelForCausalLM.from_pretrained(path)
    with pytest.raises(ConfigError, match=r"q_proj is INT8 already.*nothing is left to replace.*load_state_dict"):
        replace_linears_with_tle_int8(again, model.state_dict())
    assert torch.equal(logits(again), logits(model))


def test_quantizing_what_is_int8_already_says_so(path, model, caplog):
    again = AutoModelForCausalLM.from_pretrained(path)
    assert quantize_and_replace_linears(again, skip=["o_proj", "lm_head"]) == 0
    assert "0 linear layers in INT8, beside 6 that were already; left in floating point: 2 skipped" in caplog.text
    assert len(int8_layers(again)) == 6
    assert torch.equal(logits(again), logits(model))
