import csv
import json

import pytest
import torch
from support import save_tiny_llama
from transformers import AutoModelForCausalLM

from hf_tle_int8 import TLEInt8Config
from hf_tle_int8.cli.main import main

SHORT = ["--prompt", "12", "--tokens", "3", "--rounds", "2"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_json_has_both_phases_of_both_models(tiny, capsys):
    before = torch.get_num_threads()
    assert main(["bench", "model", str(tiny), *SHORT, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threads"] == "1"
    assert torch.get_num_threads() == before
    records = {(record["phase"], record["weights"]): record for record in found["results"]}
    assert set(records) == {(phase, name) for phase in ("prefill", "decode") for name in ("INT8", "float")}
    for (phase, name), record in records.items():
        assert record["tokens"] == {"prefill": 12, "decode": 3}[phase]
        assert record["dtype"] == "bfloat16"
        assert record["tokens_per_second"] >= record["median_tokens_per_second"] > 0
        base = records[phase, "float"]["tokens_per_second"]
        assert record["ratio_to_float"] == pytest.approx(record["tokens_per_second"] / base, rel=0.002)
        assert (record["weight_bytes"] < records[phase, "float"]["weight_bytes"]) == (name == "INT8")


def test_csv_and_markdown_agree_also_of_an_int8_checkpoint(tiny, tmp_path, capsys):
    int8, file = tmp_path / "int8", tmp_path / "speed.csv"
    AutoModelForCausalLM.from_pretrained(tiny, quantization_config=TLEInt8Config()).save_pretrained(int8)
    assert main(["bench", "model", str(int8), *SHORT, "--dtype", "float32", "--csv", str(file)]) == 0
    page, rows = capsys.readouterr().out, list(csv.DictReader(file.open()))
    assert len(rows) == 4
    assert {row["dtype"] for row in rows} == {"float32"}
    for row in rows:
        assert f"| {row['tokens_per_second']} | {row['median_tokens_per_second']} |" in page
        assert row["versions"] in page


def test_more_tokens_than_positions_are_refused(tiny, capsys):
    assert main(["bench", "model", str(tiny), "--prompt", "60", "--tokens", "5"]) == 2
    assert "sequences of 65 tokens" in capsys.readouterr().err
