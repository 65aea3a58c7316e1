import json

import pytest
from support import save_tiny_llama
from transformers import AutoTokenizer

from hf_tle_int8.cli.main import main


@pytest.fixture(scope="module")
def text(stories_path, tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "story.txt"
    file.write_text((stories_path / "eval.txt").read_text()[:3000])
    return file


def evaluated(capsys, path, *options: object) -> dict[str, object]:
    assert main(["eval", str(path), "--json", *map(str, options)]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_float_checkpoint_is_its_own_reference(stories_path, int8_path, text, capsys):
    found = evaluated(capsys, stories_path, "--text", text, "--window", 100)
    tokens = len(AutoTokenizer.from_pretrained(stories_path)(text.read_text()).input_ids)
    assert (found["tokens"], found["windows"], found["window"]) == (tokens, tokens // 100, 100)
    assert found["perplexity"] == pytest.approx(found["reference_perplexity"], rel=0.01)
    assert found["perplexity"] != found["reference_perplexity"]
    assert 0 < found["kl_divergence"] < 0.01
    assert 0.9 < found["same_top1"] <= 1
    saved = evaluated(capsys, int8_path, "--text", text, "--window", 100, "--reference", stories_path)
    assert saved == found


def test_without_a_reference_there_is_perplexity_alone(int8_path, text, capsys):
    found = evaluated(capsys, int8_path, "--text", text)
    assert found["perplexity"] < 5
    assert found["kl_divergence"] is None
    assert main(["eval", str(int8_path), "--text", str(text)]) == 0
    page = capsys.readouterr().out
    assert f"perplexity, INT8   {found['perplexity']:.4f}" in page
    assert "--reference" in page


def test_the_table_says_what_json_does(stories_path, text, capsys):
    found = evaluated(capsys, stories_path, "--text", text)
    assert main(["eval", str(stories_path), "--text", str(text)]) == 0
    page = capsys.readouterr().out
    assert f"{found['tokens']} tokens, {found['windows']} windows of 256" in page
    assert f"{found['reference_perplexity']:.4f}" in page
    assert f"{found['kl_divergence']:.5f} nats" in page
    assert f"{found['same_top1']:.2%}" in page


def test_what_cannot_be_evaluated_is_told_in_a_line(stories_path, int8_path, text, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("Once")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 2000)
    other = save_tiny_llama(tmp_path / "other")
    cases = {
        "No such file": ["--text", tmp_path / "absent.txt"],
        "less than a window of 256": ["--text", tmp_path / "short.txt"],
        "is no text in utf-8": ["--text", tmp_path / "latin.txt"],
        "--window 1 leaves nothing": ["--text", text, "--window", 1],
        "has positions for 512": ["--text", text, "--window", 513],
        "is quantized: name the float original": ["--text", text, "--reference", int8_path],
        "has a vocabulary of 96 tokens": ["--text", text, "--reference", other, "--window", 32],
        "no causal language model": ["--text", text, "--reference", _encoder(tmp_path)],
    }
    for reason, options in cases.items():
        assert main(["eval", str(stories_path), *map(str, options)]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("hf-tle-int8: error: ")
        assert reason in last


def test_a_tokenizer_of_another_model_is_told(stories_path, text, tmp_path, capsys):
    save_tiny_llama(tmp_path)
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(tmp_path)
    assert main(["eval", str(tmp_path), "--text", str(text), "--window", "32"]) == 2
    assert "do not belong together" in capsys.readouterr().err


def _encoder(folder):
    from transformers import BertConfig

    BertConfig(architectures=["BertModel"]).save_pretrained(folder / "encoder")
    return folder / "encoder"
