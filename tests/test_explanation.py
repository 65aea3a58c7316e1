"""explain(model): one row a layer, true to what the layer holds and runs on."""

import json

import pytest
import torch
from conftest import NEEDS_KERNELS
from support import int8_layers, logits, save_tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from hf_tle_int8 import TLEInt8Config, dispatch, execution, explain, explanation, quantize_and_replace_linears
from hf_tle_int8.errors import InputTypeError
from hf_tle_int8.packing import is_packed


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), attention_bias=True, intermediate_size=172)


@pytest.fixture(scope="module")
def model(path):
    config = TLEInt8Config(modules_to_convert=["mlp", "o_proj"], modules_to_not_convert=["layers.0.mlp"])
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=config)


@pytest.fixture(scope="module")
def rows(model):
    return {row.name: row for row in explain(model).rows}


def linears(model) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def test_each_linear_has_a_row(model, rows):
    assert rows.keys() == linears(model)
    assert {name for name, row in rows.items() if row.state == "int8"} == int8_layers(model).keys()
    assert rows["lm_head"].shape == (96, 48)
    assert rows["lm_head"].kind == "Linear"
    assert rows["model.layers.1.mlp.up_proj"].kind == "TLEInt8Linear"


def test_reasons(rows):
    assert rows["lm_head"].reason == "the output head, by default"
    assert rows["model.layers.0.mlp.up_proj"].reason == "skipped by name"
    assert rows["model.layers.0.self_attn.q_proj"].reason == "not in modules_to_convert"
    assert rows["model.layers.1.mlp.up_proj"].reason == ""
    assert all(bool(row.reason) == (row.state == "float") for row in rows.values())


@NEEDS_KERNELS
def test_kernels_are_those_of_dispatch(rows):
    row = rows["model.layers.1.mlp.down_proj"]
    for m, shown in ((1, row.decode), (512, row.prefill)):
        choice = dispatch.choose(m, 48, 172, execution.layout(), torch.get_num_threads())
        assert shown == f"gemm {choice.tile_m}x{choice.tile_n}"
    assert row.decode != row.prefill
    assert rows["lm_head"].decode == rows["lm_head"].prefill == "plain torch"


@NEEDS_KERNELS
def test_bytes_are_those_held(model, rows):
    logits(model)
    rows = {row.name: row for row in explain(model).rows}
    for name, layer in int8_layers(model).items():
        row, held = rows[name], layer._parameters["weight"]
        assert is_packed(held)
        assert row.held_bytes == row.packed_bytes == held.nbytes
        assert row.row_major_bytes == layer.in_features * layer.out_features
        assert row.padding_bytes == held.nbytes - row.row_major_bytes >= 0
    assert rows["model.layers.1.mlp.up_proj"].padding_bytes > 0
    assert rows["lm_head"].held_bytes == model.lm_head.weight.nbytes


def test_looking_changes_nothing(model):
    logits(model)
    before = {name: layer._parameters["weight"].data_ptr() for name, layer in int8_layers(model).items()}
    str(explain(model))
    assert {name: layer._parameters["weight"].data_ptr() for name, layer in int8_layers(model).items()} == before
    model.state_dict()
    row = next(row for row in explain(model).rows if row.state == "int8")
    assert row.held_bytes == row.row_major_bytes


def test_what_is_saved(model, rows, tmp_path):
    from safetensors.torch import load_file

    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    shown = {name: text for row in rows.values() for name, text in row.saved.items()}
    of_linears = {name for name in tensors if name.rpartition(".")[0] in rows}
    assert shown == {
        name: f"{str(tensors[name].dtype).removeprefix('torch.')} {list(tensors[name].shape)}" for name in of_linears
    }


def test_reasons_after_loading_again(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = {row.name: row for row in explain(AutoModelForCausalLM.from_pretrained(tmp_path)).rows}
    assert again["lm_head"].reason == "the output head, by default"
    assert again["model.layers.0.self_attn.q_proj"].reason == "skipped by name"


def test_a_part_of_a_model(model):
    rows = {row.name: row for row in explain(model.model).rows}
    assert rows["layers.0.self_attn.q_proj"].reason == "skipped by name"
    assert rows["layers.1.mlp.up_proj"].state == "int8"


def test_totals(model):
    logits(model)
    table = explain(model)
    totals = table.totals()
    assert (totals["int8_layers"], totals["convertible_layers"], totals["float_layers"]) == (5, 0, 10)
    assert totals["int8_weight_bytes"] == sum(row.held_bytes for row in table.rows if row.state == "int8")
    assert totals["total_bytes"] == model.get_memory_footprint()


def test_a_float_model_shows_what_would_be_converted(path):
    model = AutoModelForCausalLM.from_pretrained(path)
    rows = {row.name: row for row in explain(model).rows}
    converted = int8_layers(AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())).keys()
    assert {name for name, row in rows.items() if row.state == "convertible"} == converted
    assert rows["lm_head"].reason == "the output head, by default"
    assert rows["model.layers.0.mlp.up_proj"].row_major_bytes == 172 * 48
    assert rows["model.layers.0.mlp.up_proj"].held_bytes == 172 * 48 * 4


def test_layers_that_are_no_linears():
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32}
    rows = {row.name: row for row in explain(AutoModelForCausalLM.from_config(GPT2Config(**sizes))).rows}
    row = rows["transformer.h.0.mlp.c_fc"]
    assert (row.kind, row.shape, row.state) == ("Conv1D", (64, 16), "convertible")
    assert row.saved == {f"{row.name}.weight": "float32 [16, 64]", f"{row.name}.bias": "float32 [64]"}
    assert rows["lm_head"].reason == "tied to an embedding"
    matrix = nn.Bilinear(3, 4, 5)
    (row,) = explain(nn.ModuleDict({"matrix": matrix})).rows
    assert (row.kind, row.shape, row.state) == ("Bilinear", (5, 3, 4), "float")
    assert row.reason == "of class Bilinear, which is no nn.Linear"
    assert row.held_bytes == 4 * (3 * 4 * 5 + 5)
    assert row.saved.keys() == {"matrix.weight", "matrix.bias"}


def test_plain_modules():
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    quantize_and_replace_linears(network, skip=["2"])
    assert [(row.name, row.state) for row in explain(network).rows] == [("0", "int8"), ("2", "convertible")]
    assert [row.shape for row in explain(nn.Linear(4, 5)).rows] == [(5, 4)]


def test_adapters(path):
    peft = pytest.importorskip("peft")
    loaded = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())
    adapted = peft.get_peft_model(loaded, peft.LoraConfig(r=4, target_modules=["up_proj"]))
    adapted.base_model.model.extra = nn.Linear(4, 5)
    rows = {row.name: row for row in explain(adapted).rows}
    up = "base_model.model.model.layers.0.mlp.up_proj"
    assert rows[f"{up}.base_layer"].state == "int8"
    assert rows[f"{up}.lora_A.default"].reason == "added after the model was quantized"
    assert rows["base_model.model.extra"].reason == "added after the model was quantized"
    assert rows["base_model.model.lm_head"].reason == "the output head, by default"


def test_a_layer_class_of_another_kind_registers_its_row():
    class Experts(nn.Module):
        pass

    @explanation.describe.register
    def _(module: Experts, context):
        return explanation.linear_row(context, nn.Linear(3, 2), "int8", 6, int8=True)

    assert [(row.name, row.state) for row in explain(nn.ModuleDict({"experts": Experts()})).rows] == [
        ("experts", "int8")
    ]


class TestPrint:
    def test_layers_of_a_kind_share_a_line(self, model):
        lines = str(explain(model, prefill_rows=64)).splitlines()
        assert lines[0].startswith("INT8 linears run on ")
        (q,) = [line for line in lines if "q_proj" in line]
        assert q.split()[:6] == ["model.layers.*.self_attn.q_proj", "2", "x", "48", "x", "48"]
        assert q.endswith("not in modules_to_convert")
        assert "M=64" in lines[2]
        assert lines[-1].startswith("5 layers in INT8 (")

    def test_the_order_is_that_of_the_model(self, model):
        text = str(explain(model))
        assert text.index("q_proj") < text.index("down_proj") < text.index("lm_head")

    def test_json(self, model):
        data = json.loads(explain(model).to_json())
        assert len(data["layers"]) == 15
        assert data["layers"][-1]["name"] == "lm_head"
        assert data["layers"][-1]["shape"] == [96, 48]
        assert data["totals"] == explain(model).totals()
        assert data["target"] == (None if execution.unavailable() else execution.target().name)

    def test_missing_kernels_are_said_once(self, model, monkeypatch):
        monkeypatch.setattr(execution, "unavailable", lambda: "llvmlite is not installed")
        table = explain(model)
        text = str(table)
        assert text.count("llvmlite is not installed") == 1
        assert {row.decode for row in table.rows} == {"plain torch"}
        assert all(row.packed_bytes is None for row in table.rows)


def test_something_else_is_refused(path):
    with pytest.raises(InputTypeError, match="takes a model and got a .*Path.*hf-tle-int8 inspect"):
        explain(path)
