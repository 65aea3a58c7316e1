"""What is said of INT8 experts: rows, counts, bytes, the model card."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from hf_tle_int8 import TLEInt8Config, execution, explain
from hf_tle_int8.inspection import inspect_checkpoint

CONFIG = Qwen3MoeConfig(
    hidden_size=32, intermediate_size=48, moe_intermediate_size=20, num_hidden_layers=1, vocab_size=64, head_dim=16,
    num_attention_heads=2, num_key_value_heads=1, num_experts=3, num_experts_per_tok=2,
)  # fmt: skip
NAME = "model.layers.0.mlp.experts"
SAVED = {
    f"{NAME}.gate_up_proj": "int8 [3, 40, 32]",
    f"{NAME}.gate_up_proj_scale": "float32 [3, 40, 1]",
    f"{NAME}.down_proj": "int8 [3, 32, 20]",
    f"{NAME}.down_proj_scale": "float32 [3, 32, 1]",
}
ROW_MAJOR = 3 * (40 * 32 + 32 * 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("moe")
    AutoModelForCausalLM.from_config(CONFIG, dtype=torch.float32).save_pretrained(path)
    return path


def row_of(table):
    return next(row for row in table.rows if row.name == NAME)


def test_rows_of_a_model_and_of_its_folder(folder, tmp_path):
    packed = None
    if execution.unavailable() is None:
        padded = [execution.layout().packing.padded(*size) for size in ((40, 32), (32, 20))]
        packed = 3 * sum(n * k for n, k in padded)
    float_model = AutoModelForCausalLM.from_pretrained(folder)
    int8_model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=TLEInt8Config())
    int8_model.save_pretrained(tmp_path)
    assert "and the experts of 1, have int8 weights" in (tmp_path / "README.md").read_text().replace("\n", " ")
    for table, state in (
        (explain(float_model), "convertible"),
        (inspect_checkpoint(folder), "convertible"),
        (explain(int8_model), "int8"),
        (inspect_checkpoint(tmp_path), "int8"),
    ):
        row = row_of(table)
        assert (row.shape, row.state, row.reason) == ((3, 40, 32), state, "")
        assert (row.row_major_bytes, row.packed_bytes) == (ROW_MAJOR, packed)
        if state == "int8":
            assert row.saved == SAVED
    assert row_of(explain(float_model)).held_bytes == 4 * ROW_MAJOR


def test_skipped_experts_say_why(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=TLEInt8Config(["experts"]))
    assert (row_of(explain(model)).state, row_of(explain(model)).reason) == ("float", "skipped by name")


def test_parameters_are_counted_as_in_float(folder):
    float_model = AutoModelForCausalLM.from_pretrained(folder)
    int8_model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=TLEInt8Config())
    assert int8_model.num_parameters() == float_model.num_parameters()
    with torch.no_grad():
        int8_model(torch.arange(4)[None])
    assert int8_model.num_parameters() == float_model.num_parameters()
    assert int8_model.dtype == torch.float32
