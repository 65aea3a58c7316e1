"""A model that is INT8 already, or of another method, is not quantized again."""

import pytest
import torch
from moe_support import expert_layers, save_moe
from support import int8_layers, logits, save_tiny_llama
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

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
        ({"modules_to_convert": ["q_proj", "o_proj"]}, r"modules_to_convert=\['q_proj', 'o_proj'\]"),
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


# In the checkpoint these options are resolved, or had no effect.
RESOLVED = {
    "only some": (AutoModelForCausalLM, {"modules_to_convert": ["mlp"]}),
    "a pattern": (AutoModelForCausalLM, {"modules_to_convert": [r"re:.*\.[qk]_proj$"], "quantize_lm_head": True}),
    "nothing": (AutoModelForCausalLM, {"modules_to_convert": []}),
    "the head of a model without": (AutoModel, {"quantize_lm_head": True}),
    "without match": (AutoModelForCausalLM, {"modules_to_not_convert": ["layers.9", "o_proj"]}),
}


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize(("factory", "options"), RESOLVED.values(), ids=RESOLVED)
def test_what_was_resolved_may_be_asked_again(tmp_path, factory, options):
    path, config = save_tiny_llama(tmp_path / "float", num_hidden_layers=1), TLEInt8Config(**options)
    model = factory.from_pretrained(path, quantization_config=config)
    model.save_pretrained(tmp_path / "int8")
    again = factory.from_pretrained(tmp_path / "int8", quantization_config=config)
    assert set(int8_layers(again)) == set(int8_layers(model))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_a_head_that_is_new_is_no_other_option(tmp_path):
    path = save_tiny_llama(tmp_path / "float", num_hidden_layers=1)
    config = TLEInt8Config(modules_to_convert=["mlp"])
    AutoModelForCausalLM.from_pretrained(path, quantization_config=config).save_pretrained(tmp_path / "int8")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8", quantization_config=config)
    assert len(int8_layers(again)) == 3


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_the_options_of_a_mixture_again(tmp_path):
    path, config = save_moe(tmp_path / "float", "qwen"), TLEInt8Config(modules_to_convert=["experts"])
    AutoModelForCausalLM.from_pretrained(path, quantization_config=config).save_pretrained(tmp_path / "int8")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "int8", quantization_config=config)
    assert len(expert_layers(again)) == 2
    with pytest.raises(ConfigError, match="experts is INT8 in it"):
        AutoModelForCausalLM.from_pretrained(
            tmp_path / "int8", quantization_config=TLEInt8Config(modules_to_not_convert=["experts"])
        )


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
