"""Parts, heads and composites of models, loaded from checkpoints of others; tests/architectures: whole models."""

import pytest
import torch
from support import int8_layers, logits
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    GitConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_tle_int8 import TLEInt8Config, save_compressed_tensors
from hf_tle_int8.errors import CheckpointError

BERT = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
T5["decoder_start_token_id"] = 0
CLIP_PART = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}


def quantized(model, folder, **options):
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, quantization_config=TLEInt8Config(**options))


class TestParts:
    @pytest.fixture
    def clip(self, tmp_path):
        config = CLIPConfig(
            text_config={**CLIP_PART, "vocab_size": 64, "max_position_embeddings": 32},
            vision_config={**CLIP_PART, "image_size": 8, "patch_size": 4},
            projection_dim=8,
        )
        model = quantized(CLIPModel(config), tmp_path / "float")
        model.save_pretrained(tmp_path / "int8")
        return model

    def test_part_of_a_composite_checkpoint_is_int8_too(self, clip, tmp_path):
        part = CLIPVisionModel.from_pretrained(tmp_path / "int8")
        assert len(int8_layers(part)) == 6
        image = torch.randn(1, 3, 8, 8)
        with torch.no_grad():
            expected = clip.vision_model(image).pooler_output
            assert torch.equal(part(image).pooler_output, expected)

    def test_dequantized_composite_has_no_trace(self, clip, tmp_path):
        clip.dequantize()
        clip.save_pretrained(tmp_path / "again")
        assert "quantization_config" not in (tmp_path / "again" / "config.json").read_text()
        assert not int8_layers(CLIPModel.from_pretrained(tmp_path / "again"))

    def test_export_of_a_composite_names_one_method(self, clip, tmp_path):
        save_compressed_tensors(clip, tmp_path / "ct")
        assert "tle_int8" not in (tmp_path / "ct" / "config.json").read_text()
        assert clip.config.vision_config.quantization_config is clip.config.quantization_config


def test_head_with_a_common_name(tmp_path):
    config = GitConfig(**BERT, vision_config={**CLIP_PART, "image_size": 8, "patch_size": 4}, tie_word_embeddings=False)
    model = quantized(AutoModelForCausalLM.from_config(config), tmp_path / "float")
    assert model.config.quantization_config.modules_to_not_convert == ["re:output$"]
    model.save_pretrained(tmp_path / "int8")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "int8")
    assert set(int8_layers(again)) == set(int8_layers(model))
    assert torch.equal(logits(again), logits(model))


class TestNewLayers:
    @pytest.fixture
    def masked_lm(self, tmp_path):
        model = quantized(AutoModelForMaskedLM.from_config(BertConfig(**BERT)), tmp_path / "float")
        model.save_pretrained(tmp_path / "int8")
        return model

    def test_layers_inside_of_the_base_model(self, masked_lm, tmp_path):
        base = AutoModel.from_pretrained(tmp_path / "int8")
        assert type(base.pooler.dense) is nn.Linear
        assert base.pooler.dense.weight.isfinite().all()
        assert not base.pooler.dense.bias.any()
        assert torch.equal(
            base.encoder.layer[0].output.dense.weight, masked_lm.bert.encoder.layer[0].output.dense.weight
        )

    def test_same_class_must_find_everything(self, masked_lm, tmp_path):
        from support import edit_checkpoint

        names = [f"cls.predictions.transform.dense.{key}" for key in ("weight", "weight_scale", "bias")]
        edit_checkpoint(tmp_path / "int8", lambda tensors: [tensors.pop(name) for name in names])
        with pytest.raises(CheckpointError, match=r"cls\.predictions\.transform\.dense\.weight is missing"):
            AutoModelForMaskedLM.from_pretrained(tmp_path / "int8")

    def test_head_that_its_parent_initializes(self, tmp_path):
        model = quantized(T5ForConditionalGeneration(T5Config(**T5)), tmp_path / "float")
        model.save_pretrained(tmp_path / "int8")
        classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8", pad_token_id=0)
        assert type(classifier.classification_head.dense) is nn.Linear
        assert 0 < classifier.classification_head.dense.weight.std() < 1.5
        assert not classifier.classification_head.dense.bias.any()


class TestDequantize:
    @pytest.fixture
    def t5(self, tmp_path):
        T5ForConditionalGeneration(T5Config(**T5)).save_pretrained(tmp_path / "float")
        options = {"quantization_config": TLEInt8Config(), "dtype": torch.float16}
        return T5ForConditionalGeneration.from_pretrained(tmp_path / "float", **options)

    def test_after_saving(self, t5, tmp_path):
        t5.save_pretrained(tmp_path / "int8")
        t5.dequantize()
        assert t5.dtype == torch.float16
        assert not int8_layers(t5)

    def test_what_the_model_keeps_in_fp32_stays(self, t5):
        before = t5.encoder.block[0].layer[1].DenseReluDense.wo.weight.clone()
        assert before.dtype == torch.float32
        t5.dequantize()
        assert torch.equal(t5.encoder.block[0].layer[1].DenseReluDense.wo.weight, before)
