"""An INT8 output head: untied from the embedding where need be, saved and loaded as it is."""

import json

import pytest
import torch
from safetensors.torch import load_file
from support import edit_checkpoint, int8_layers, logits, save_tiny_llama, tiny_llama_config
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    T5Config,
)

from hf_tle_int8 import TLEInt8Config, TLEInt8Linear, arithmetic, save_compressed_tensors
from hf_tle_int8.errors import ConfigError, InputValueError

HEAD = TLEInt8Config(quantize_lm_head=True)


@pytest.fixture(scope="module")
def tied_path(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True, num_hidden_layers=1)


@pytest.fixture(scope="module")
def untied(tied_path, tmp_path_factory):
    """A tied model loaded with an INT8 head, and the folder that it was saved to."""
    model = AutoModelForCausalLM.from_pretrained(tied_path, quantization_config=HEAD)
    folder = tmp_path_factory.mktemp("int8")
    model.save_pretrained(folder)
    return model, folder


def test_a_tied_head_gets_codes_of_its_own(tied_path, untied):
    reference, (model, _) = AutoModelForCausalLM.from_pretrained(tied_path), untied
    assert type(reference.lm_head) is nn.Linear
    codes, scale = arithmetic.quantize_weight(reference.lm_head.weight)
    assert torch.equal(model.lm_head.weight, codes)
    assert torch.equal(model.lm_head.weight_scale, scale)
    assert torch.equal(model.model.embed_tokens.weight, reference.model.embed_tokens.weight)
    assert (logits(model) - logits(reference)).norm() / logits(reference).norm() < 0.05


def test_what_is_saved_says_that_it_is_untied(untied):
    _, folder = untied
    saved = json.loads((folder / "config.json").read_text())
    assert saved["tie_word_embeddings"] is False
    assert saved["quantization_config"]["quantize_lm_head"] is True
    assert "lm_head" in saved["quantization_config"]["int8_modules"]
    tensors = load_file(folder / "model.safetensors")
    assert tensors["lm_head.weight"].dtype == torch.int8
    assert tensors["lm_head.weight_scale"].shape == (96, 1)
    assert tensors["model.embed_tokens.weight"].dtype == torch.float32


def test_round_trip_and_generation(untied, tmp_path):
    model, folder = untied
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(again), logits(model))
    again.save_pretrained(tmp_path)
    third = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(4)[None]
    texts = [m.generate(ids, max_new_tokens=6, do_sample=False) for m in (model, third)]
    assert texts[0].shape == (1, 10)
    assert torch.equal(*texts)
    assert torch.equal(AutoModel.from_pretrained(folder).embed_tokens.weight, model.model.embed_tokens.weight)


def test_tying_again_does_not_undo_it(untied):
    model, _ = untied
    model.tie_weights()
    assert model.lm_head.weight.dtype == torch.int8
    assert model.model.embed_tokens.weight.dtype == torch.float32


def test_the_configuration_of_the_float_model_is_not_changed(tied_path):
    config = AutoModelForCausalLM.from_pretrained(tied_path).config
    AutoModelForCausalLM.from_pretrained(tied_path, config=config, quantization_config=HEAD)
    assert config.tie_word_embeddings is True


def test_export_to_compressed_tensors(untied, tmp_path):
    model, _ = untied
    save_compressed_tensors(model, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=TLEInt8Config())
    assert torch.equal(logits(again), logits(model))


def test_a_composite_model(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"model_type": "clip_vision_model", **sizes, "image_size": 8, "patch_size": 4, "projection_dim": 16}
    text = tiny_llama_config(num_hidden_layers=1, tie_word_embeddings=True).to_dict()
    config = LlavaConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "float")
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "float", quantization_config=HEAD)
    model.save_pretrained(tmp_path / "int8")
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "int8")
    assert again.config.tie_word_embeddings is again.config.text_config.tie_word_embeddings is False
    assert isinstance(again.lm_head, TLEInt8Linear)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert again.get_input_embeddings().weight.dtype == torch.float32


def test_dequantize_leaves_it_untied(tied_path, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tied_path, quantization_config=HEAD)
    expected = model.lm_head.dequantize()
    model.dequantize()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, expected)
    assert torch.equal(again.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_a_damaged_embedding_is_named(tmp_path):
    path = save_tiny_llama(tmp_path, tie_word_embeddings=True, num_hidden_layers=1)
    edit_checkpoint(path, lambda tensors: tensors["model.embed_tokens.weight"][7].fill_(float("nan")))
    with pytest.raises(InputValueError, match=r"lm_head\.weight holds NaN or Inf in output channel 7"):
        AutoModelForCausalLM.from_pretrained(path, quantization_config=HEAD)


class TestNoEffect:
    @pytest.fixture(scope="class")
    @staticmethod
    def t5_path(tmp_path_factory):
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
        folder = tmp_path_factory.mktemp("t5")
        AutoModelForSeq2SeqLM.from_config(T5Config(**sizes, tie_word_embeddings=True)).save_pretrained(folder)
        return folder

    def test_ties_that_cannot_be_cut_apart(self, t5_path):
        with pytest.raises(
            ConfigError, match=r"lm_head untied.*also ties decoder\.embed_tokens\.weight, .*Drop quantize_lm_head"
        ):
            AutoModelForSeq2SeqLM.from_pretrained(t5_path, quantization_config=HEAD)

    def test_a_model_without_a_head(self, tied_path, caplog):
        model = AutoModel.from_pretrained(tied_path, quantization_config=HEAD)
        assert "quantize_lm_head=True has no effect: LlamaModel has no output head" in caplog.text
        assert model.config.quantization_config.quantize_lm_head is False
        assert model.config.tie_word_embeddings is True

    def test_a_head_that_its_model_keeps_in_fp32(self, tied_path, tmp_path, caplog, monkeypatch):
        from transformers import LlamaForCausalLM

        monkeypatch.setattr(LlamaForCausalLM, "_keep_in_fp32_modules", ["lm_head"])
        model = AutoModelForCausalLM.from_pretrained(tied_path, quantization_config=HEAD)
        assert "no effect: lm_head stays in floating point: kept in fp32 by its model" in caplog.text
        assert model.lm_head.weight is model.model.embed_tokens.weight
        model.save_pretrained(tmp_path)
        assert type(AutoModelForCausalLM.from_pretrained(tmp_path).lm_head) is nn.Linear

    def test_a_head_of_another_name_that_is_skipped(self, tmp_path):
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = BertConfig(**sizes, vocab_size=32, tie_word_embeddings=False)
        AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
        options = TLEInt8Config(quantize_lm_head=True, modules_to_not_convert=["predictions"])
        with pytest.raises(ConfigError, match=r"holds 'cls\.predictions\.decoder', the output.*Drop one of the two"):
            AutoModelForMaskedLM.from_pretrained(tmp_path, quantization_config=options)

    def test_a_head_of_an_untied_model_is_converted_while_loading(self, tmp_path):
        model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path), quantization_config=HEAD)
        assert isinstance(int8_layers(model)["lm_head"], TLEInt8Linear)
