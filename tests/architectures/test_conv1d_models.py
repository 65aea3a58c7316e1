"""What loading and saving do with float classes other than nn.Linear: GPT-2's Conv1D, FalconLinear."""

import pytest
import torch
from families import FAMILIES
from support import edit_checkpoint, int8_layers, logits
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.pytorch_utils import Conv1D

from hf_tle_int8 import (
    TLEInt8Config,
    quantize_and_replace_linears,
    replace_linears_with_tle_int8,
    save_compressed_tensors,
)
from hf_tle_int8.errors import CheckpointError, ConfigError
from hf_tle_int8.nn import TLEInt8Conv1D

NAME = "transformer.h.1.mlp.c_fc"


def saved(name, folder):
    next(family for family in FAMILIES if family.name == name).build().save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(tmp_path):
    return saved("GPT-2", tmp_path / "float")


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, **options)


def load_int8(path, **options):
    return load(path, quantization_config=TLEInt8Config(**options))


def test_rows_are_output_channels_in_memory_and_in_the_file(gpt2, tmp_path):
    from safetensors.torch import load_file

    model = load_int8(gpt2)
    model.save_pretrained(tmp_path / "int8")
    tensors = load_file(tmp_path / "int8" / "model.safetensors")
    for shapes in (model.state_dict(), tensors):
        assert shapes[f"{NAME}.weight"].shape == (128, 32)
        assert shapes[f"{NAME}.weight_scale"].shape == (128, 1)


@pytest.mark.parametrize(("name", "cls"), [("GPT-2", Conv1D), ("Falcon", FalconLinear)])
def test_dequantized_models_have_their_own_classes(tmp_path, name, cls):
    model = load_int8(saved(name, tmp_path / "float"))
    names = int8_layers(model).keys()
    model.dequantize()
    assert {type(model.get_submodule(name)) for name in names} == {cls}
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load(tmp_path / "again")), logits(model))


def test_conversion_in_memory_is_the_same(gpt2):
    loaded, converted, replaced = load_int8(gpt2), load(gpt2), load(gpt2)
    assert quantize_and_replace_linears(converted) == 8
    assert replace_linears_with_tle_int8(replaced, loaded.state_dict()) == 8
    assert torch.equal(logits(converted), logits(loaded))
    assert torch.equal(logits(replaced), logits(loaded))


def test_skipped_layers_stay_conv1d_when_loaded_again(gpt2, tmp_path):
    model = load_int8(gpt2, modules_to_not_convert=["mlp"])
    assert type(model.get_submodule(NAME)) is Conv1D
    assert len(int8_layers(model)) == 4
    model.save_pretrained(tmp_path / "int8")
    again = load(tmp_path / "int8")
    assert type(again.get_submodule(NAME)) is Conv1D
    assert torch.equal(logits(again), logits(model))


def test_another_head_on_an_int8_checkpoint(gpt2, tmp_path):
    load_int8(gpt2).save_pretrained(tmp_path / "int8")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8")
    assert len(int8_layers(classifier)) == 8
    assert type(classifier.score) is torch.nn.Linear


def test_a_layer_that_is_new_is_initialized_as_conv1d(gpt2):
    edit_checkpoint(gpt2, lambda tensors: [tensors.pop(f"{NAME}.{key}") for key in ("weight", "bias")])
    layer = load_int8(gpt2).get_submodule(NAME)
    assert type(layer) is Conv1D
    assert layer.weight.shape == (32, 128)
    assert 0.01 < layer.weight.std() < 0.04
    assert not layer.bias.any()


def test_a_layer_that_the_int8_checkpoint_lost_is_named(gpt2, tmp_path):
    load_int8(gpt2).save_pretrained(tmp_path / "int8")
    edit_checkpoint(tmp_path / "int8", lambda tensors: tensors.pop(f"{NAME}.weight"))
    with pytest.raises(CheckpointError, match=rf"{NAME}\.weight is missing"):
        load(tmp_path / "int8")


@pytest.mark.parametrize("shape", [(128, 32), (32, 127), (32,), (1, 32, 128)])
def test_misshapen_weights_are_refused(gpt2, shape):
    edit_checkpoint(gpt2, lambda tensors: tensors.update({f"{NAME}.weight": torch.randn(shape)}))
    # From transformers 5.23 on, its loader reports shapes itself, except where [K, N] is the [N, K] of the layer.
    with pytest.raises((CheckpointError, RuntimeError), match=rf"{NAME}\.weight has|ignore_mismatched_sizes"):
        load_int8(gpt2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes(gpt2, dtype):
    model = load(gpt2, quantization_config=TLEInt8Config(), dtype=dtype)
    assert isinstance(model.get_submodule(NAME), TLEInt8Conv1D)
    output = logits(model)
    assert output.dtype == dtype
    expected = logits(load(gpt2))
    assert (output.float() - expected).norm() / expected.norm() < 0.1


def test_export_to_compressed_tensors_is_refused(gpt2, tmp_path):
    model = load_int8(gpt2)
    with pytest.raises(ConfigError, match=r"8 layers such as \S+c_attn are Conv1D in float.*model\.save_pretrained"):
        save_compressed_tensors(model, tmp_path / "ct")
    assert not (tmp_path / "ct").exists()
    assert isinstance(model.config.quantization_config, TLEInt8Config)


def test_compressed_tensors_leaves_conv1d_in_float(gpt2, tmp_path):
    model = load_int8(gpt2, modules_to_convert=["lm_head"], quantize_lm_head=True)
    save_compressed_tensors(model, tmp_path / "ct")
    again = load_int8(tmp_path / "ct")
    assert list(int8_layers(again)) == ["lm_head"]
    assert torch.equal(logits(again), logits(model))
