"""Linears that share one weight become INT8 together or not at all; families.py has a real model of that kind."""

import shutil

import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file
from support import edit_checkpoint, int8_layers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears, replace_linears_with_tle_int8
from hf_tle_int8.arithmetic import quantize_weight
from hf_tle_int8.inspection import inspect_checkpoint

FIRST, SECOND = "heads.0", "heads.1"


class SharingConfig(PreTrainedConfig):
    model_type = "sharing"
    tie_word_embeddings = True


class SharingModel(PreTrainedModel):
    """Two heads with one weight, as the layers of a DETR have, each with a bias of its own."""

    config_class = SharingConfig
    _tied_weights_keys = {r"heads.1.weight": "heads.0.weight"}  # noqa: RUF012

    def __init__(self, config: SharingConfig):
        super().__init__(config)
        self.body = nn.Linear(8, 16)
        self.heads = nn.ModuleList([nn.Linear(16, 12), nn.Linear(16, 12)])
        self.post_init()

    def forward(self, x):
        return torch.cat([head(self.body(x)) for head in self.heads])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing")
    model = SharingModel(SharingConfig())
    for layer in [model.body, *model.heads]:
        layer.reset_parameters()
    model.tie_weights()
    model.save_pretrained(folder)
    return folder


def load(path, **options):
    return SharingModel.from_pretrained(path, **options)


def output(model):
    with torch.no_grad():
        return model(torch.linspace(-1, 1, 24).reshape(3, 8))


def assert_shared(model):
    first, second = model.get_submodule(FIRST), model.get_submodule(SECOND)
    assert first is not second
    assert first._parameters["weight"] is second._parameters["weight"]
    assert getattr(first, "weight_scale", None) is getattr(second, "weight_scale", None)


def converted_in_memory(path):
    model = load(path)
    quantize_and_replace_linears(model)
    return model


@pytest.mark.parametrize("convert", [lambda path: load(path, quantization_config=TLEInt8Config()), converted_in_memory])
def test_round_trip(path, tmp_path, convert):
    model = convert(path)
    assert {FIRST, SECOND} <= int8_layers(model).keys()
    assert_shared(model)
    model.save_pretrained(tmp_path)
    assert f"{FIRST}.weight_scale" in (names := load_file(tmp_path / "model.safetensors").keys())
    assert f"{SECOND}.weight_scale" not in names
    again = load(tmp_path)
    assert_shared(again)
    assert torch.equal(output(again), output(model))
    again.dequantize()
    assert_shared(again)
    assert not [name for name in again.all_tied_weights_keys if name.endswith("_scale")]


@pytest.mark.parametrize("skipped", [FIRST, SECOND])
def test_skipping_one_keeps_all(path, tmp_path, skipped):
    model = load(path, quantization_config=TLEInt8Config(modules_to_not_convert=[skipped]))
    assert int8_layers(model).keys().isdisjoint({FIRST, SECOND})
    assert model.hf_quantizer.selection.kept["sharing its weight with a layer that stays"]
    assert_shared(model)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert int8_layers(again).keys() == int8_layers(model).keys()
    assert torch.equal(output(again), output(model))


@pytest.mark.parametrize("named", [FIRST, SECOND])
def test_a_state_dict_that_names_one(path, named):
    source = load(path, quantization_config=TLEInt8Config())
    other = SECOND if named == FIRST else FIRST
    state = {key: tensor for key, tensor in source.state_dict().items() if not key.startswith(other)}
    model = load(path)
    assert replace_linears_with_tle_int8(model, state) == len(int8_layers(source))
    assert_shared(model)
    assert torch.equal(output(model), output(source))


def test_each_keeps_its_own_bias():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    biases = [layer.bias.detach().clone() for layer in model]
    quantize_and_replace_linears(source := nn.Sequential(nn.Linear(4, 4)))
    state = {key: tensor for key, tensor in source.state_dict().items() if key != "0.bias"}
    assert replace_linears_with_tle_int8(model, {**state, "0.bias": biases[0]}) == 2
    assert model[0]._parameters["weight"] is model[1]._parameters["weight"]
    assert torch.equal(model[1].bias, biases[1])


@pytest.mark.parametrize("same", [True, False])
def test_a_checkpoint_that_holds_both_weights(path, tmp_path, same):
    """Transformers ties them if they are equal; else it warns, and each keeps its own weight, codes and scale."""
    shutil.copytree(path, tmp_path / "float")
    edit_checkpoint(
        tmp_path / "float",
        lambda tensors: tensors.update({f"{SECOND}.weight": tensors[f"{FIRST}.weight"].clone() * (1 if same else -3)}),
    )
    reference = load(tmp_path / "float")
    model = load(tmp_path / "float", quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path / "int8")
    for found in (model, load(tmp_path / "int8")):
        for name in (FIRST, SECOND):
            codes, scale = quantize_weight(reference.get_submodule(name).weight)
            assert torch.equal(found.get_submodule(name).weight, codes)
            assert torch.equal(found.get_submodule(name).weight_scale, scale)
    assert (reference.get_submodule(FIRST).weight is reference.get_submodule(SECOND).weight) == same


def test_a_folder_in_which_layers_share_a_weight_is_whole(tmp_path):
    family = next(family for family in FAMILIES if family.name == "Deformable DETR")
    model = family.build()
    model.save_pretrained(tmp_path / "float")
    int8 = type(model).from_pretrained(tmp_path / "float", quantization_config=TLEInt8Config())
    int8.save_pretrained(tmp_path / "int8")
    table = inspect_checkpoint(tmp_path / "int8")
    assert table.totals()["int8_layers"] == len(int8_layers(int8))
    assert len(table.notes) == 1
