"""Which modules the options of a configuration choose in a model of transformers, and what is said about the rest."""

import pytest
import torch
from moe_support import expert_layers, save_moe
from support import int8_layers, logits, save_tiny_llama
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

from hf_tle_int8 import TLEInt8Config
from hf_tle_int8.errors import ConfigError


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"))


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(**options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"modules_to_convert": ["layers.1.mlp"]}, {f"layers.1.mlp.{x}_proj" for x in ("gate", "up", "down")}),
        (
            {"modules_to_convert": [r"re:.*\.[qk]_proj$"]},
            {f"layers.{i}.self_attn.{x}_proj" for i in "01" for x in "qk"},
        ),
        (
            {"modules_to_convert": ["mlp"], "modules_to_not_convert": ["layers.0", "re:.*gate"]},
            {"layers.1.mlp.up_proj", "layers.1.mlp.down_proj"},
        ),
        ({"modules_to_convert": []}, set()),
    ],
)
def test_only_what_is_listed_is_converted(llama, tmp_path, options, expected):
    model = load(llama, **options)
    assert set(int8_layers(model)) == {f"model.{name}" for name in expected}
    saved = model.config.quantization_config
    assert saved.modules_to_convert is None
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert set(int8_layers(again)) == set(int8_layers(model))
    assert torch.equal(logits(again), logits(model))


def test_names_of_the_base_model_are_known_too(llama):
    config = TLEInt8Config(modules_to_convert=["model.layers.0.mlp"])
    assert len(int8_layers(AutoModel.from_pretrained(llama, quantization_config=config))) == 3


def test_a_request_for_the_head_adds_to_the_list(llama):
    assert set(int8_layers(load(llama, modules_to_convert=["layers.0.self_attn.q_proj"], quantize_lm_head=True))) == {
        "model.layers.0.self_attn.q_proj",
        "lm_head",
    }


def test_what_is_not_listed_is_summed_up(llama, caplog):
    caplog.set_level("INFO", logger="hf_tle_int8")
    load(llama, modules_to_convert=["layers.0"])
    assert "7 linear layers in INT8" in caplog.text
    assert "7 not in modules_to_convert (model.layers.1" in caplog.text


def test_an_entry_without_match_is_named(llama, caplog):
    load(llama, modules_to_convert=["mlp", "layers.9"])
    assert "modules_to_convert: 'layers.9' matched no linear layer" in caplog.text


@pytest.mark.parametrize("attribute", ["_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"])
def test_what_the_model_keeps_in_fp32_stays(llama, tmp_path, attribute, monkeypatch, caplog):
    monkeypatch.setattr(LlamaForCausalLM, attribute, ["up_proj"])
    model = load(llama, modules_to_convert=["layers.0.mlp.up_proj", "layers.1.mlp"])
    assert set(int8_layers(model)) == {"model.layers.1.mlp.gate_proj", "model.layers.1.mlp.down_proj"}
    assert (
        "modules_to_convert names model.layers.0.mlp.up_proj, model.layers.1.mlp.up_proj, which stays in floating "
        "point all the same: kept in fp32 by its model"
    ) in caplog.text
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_the_head_is_not_converted_by_its_name_alone(llama, caplog):
    assert len(int8_layers(load(llama, modules_to_convert=["layers.0", "lm_head"]))) == 7
    assert (
        "modules_to_convert names lm_head, which stays in floating point all the same: the output head" in caplog.text
    )


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Two layers of experts."""
    return save_moe(tmp_path_factory.mktemp("qwen"), "qwen")


@pytest.fixture(scope="module")
def half_dense(tmp_path_factory):
    """A dense layer, and one of experts."""
    return save_moe(tmp_path_factory.mktemp("deepseek"), "deepseek")


def test_a_router_that_nobody_names_is_not_spoken_of(mixture, caplog):
    assert len(expert_layers(load(mixture, modules_to_convert=["layers.1"]))) == 1
    assert not caplog.records


def test_a_router_that_is_named(mixture, caplog):
    load(mixture, modules_to_convert=["layers.1.mlp.gate", "q_proj"])
    (record,) = caplog.records
    assert "modules_to_convert names model.layers.1.mlp.gate, which stays in floating point" in record.message
    caplog.clear()
    load(mixture, modules_to_not_convert=["gate"])
    assert not caplog.records


@pytest.mark.parametrize("option", ["modules_to_convert", "modules_to_not_convert"])
class TestPartsOfExperts:
    @pytest.mark.parametrize("entry", ["experts.3", "down_proj", "re:.*gate_proj"])
    def test_alone_are_refused(self, mixture, option, entry):
        with pytest.raises(ConfigError, match=f"{option} holds '.*', which matches .* one module, .* List the module"):
            load(mixture, **{option: [entry, "q_proj"]})

    def test_beside_linears_are_left_as_they_are(self, half_dense, tmp_path, option, caplog):
        model = load(half_dense, **{option: ["down_proj"]})
        only = option == "modules_to_convert"
        assert bool(expert_layers(model)) is not only
        assert ("model.layers.0.mlp.down_proj" in int8_layers(model)) is only
        (record,) = caplog.records
        assert f"{option}: 'down_proj' matches model.layers.1.mlp.experts.0.down_proj and other" in record.message
        caplog.clear()
        model.save_pretrained(tmp_path)
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))
        assert not caplog.records

    def test_all_together_are_the_module(self, mixture, option):
        every = load(mixture, **{option: [r"re:.*\.experts\.\d+\."]})
        assert len(expert_layers(every)) == (2 if option == "modules_to_convert" else 0)
