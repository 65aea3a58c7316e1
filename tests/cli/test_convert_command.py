"""``hf-tle-int8 convert``: what it prints, mistakes of users, and memory."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import edit_checkpoint, edit_config, int8_layers, save_tiny_llama
from transformers import AutoModelForCausalLM, LlamaConfig

from hf_tle_int8.cli.main import main
from hf_tle_int8.streaming import conversion

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("float"), torch.bfloat16)


def test_options(source, tmp_path, capsys):
    options = ["--dtype", "float32", "--modules-to-not-convert", "q_proj", "--modules-to-convert", "self_attn"]
    options += ["--quantize-lm-head", "--max-shard-size", "10KB", "--json"]
    assert main(["convert", str(source), str(tmp_path / "int8"), *options]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "int8")
    assert model.dtype is torch.float32
    parts = {name.rpartition(".")[2] for name in int8_layers(model)}
    assert parts == {"k_proj", "v_proj", "o_proj", "lm_head"}
    assert facts["int8_modules"] == ["lm_head", *(f"model.layers.*.self_attn.{p}_proj" for p in "kov")]
    assert facts["files"] == sorted(file.name for file in (tmp_path / "int8").glob("*.safetensors"))
    assert len(facts["files"]) > 1
    assert facts["loaded_whole_because"] is None


def test_it_says_what_it_wrote(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "int8"), "--format", "compressed-tensors"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'int8'}: 0.1 MB in 1 safetensors file")
    assert second.startswith("INT8: model.layers.*.mlp.down_proj, ")


def test_ctrl_c(source, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "convert_checkpoint", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(source), str(tmp_path / "int8")])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "hf-tle-int8: interrupted. The same command continues.\n"


def test_a_full_disk(source, tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "convert_checkpoint", full)
    assert main(["convert", str(source), str(tmp_path / "int8")]) == 2
    assert "No space left on device. Free some space: the same command continues" in capsys.readouterr().err


def int8_already(folder):
    edit_config(folder, quantization_config={"quant_method": "tle_int8"})


MISTAKES = {
    "no folder": (None, ["Qwen/Qwen2.5-0.5B-Instruct"], [], "is no folder"),
    "INT8 already": (int8_already, [], [], "is INT8 already. Name the folder of the float original"),
    "another method": (
        lambda folder: edit_config(folder, quantization_config={"quant_method": "gptq"}), [], [], "none of ours"
    ),
    "a bad size": (None, [], ["--max-shard-size", "big"], "big"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), [], [], "has no safetensors file"),
    "a bad pattern": (None, [], ["--modules-to-not-convert", "re:("], "no valid regular expression"),
    "a contradiction": (None, [], ["--quantize-lm-head", "--modules-to-not-convert", "lm_head"], "contradicts"),
    "fp64": (lambda folder: edit_config(folder, dtype="float64"), [], [], "dtype=torch.float64"),
    "an unknown dtype": (lambda folder: edit_config(folder, dtype="float13"), [], [], "dtype='float13'"),
    "a missing weight": (
        lambda folder: edit_checkpoint(folder, lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight")),
        [], [], "the checkpoint lacks model.layers.0.mlp.up_proj.weight: transformers would initialize that at random",
    ),
    "an unknown class": (lambda folder: edit_config(folder, architectures=["Foo"]), [], [], "architectures=['Foo']"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "named", "options", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_a_sentence(tmp_path, capsys, damage, named, options, message):
    source = save_tiny_llama(tmp_path / "float", num_hidden_layers=1)
    capsys.readouterr()
    if damage is not None:
        damage(source)
    assert main(["convert", *(named or [str(source)]), str(tmp_path / "int8"), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("hf-tle-int8: error: ")
    assert message in line
    assert not list(tmp_path.glob("int8*"))


@pytest.mark.parametrize("state", ["{", "[]", "{}"])
def test_a_damaged_record_of_an_earlier_run(source, tmp_path, capsys, state):
    (tmp_path / "int8.partial").mkdir()
    (tmp_path / "int8.partial" / "conversion.json").write_text(state)
    assert main(["convert", str(source), str(tmp_path / "int8")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "conversion.json is damaged" in line
    assert line.endswith(f"Delete {tmp_path / 'int8.partial'}.")


_CHILD = """
import sys
from hf_tle_int8.cli.main import main
# What is imported on first use is not memory of the conversion.
assert main(["convert", sys.argv[1], sys.argv[3] + "-tiny"]) == 0
print("ready", flush=True)
sys.stdin.readline()
assert main(["convert", sys.argv[2], sys.argv[3]]) == 0
"""


def save_large(folder: Path) -> int:
    """A bf16 Llama of 200 MB, whose largest tensor has 6 MB; returns the bytes of its file."""
    config = LlamaConfig(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, vocab_size=100, num_attention_heads=16,
        architectures=["LlamaForCausalLM"], dtype="bfloat16", tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).state_dict()
    values = torch.randn(1024 * 2816).to(torch.bfloat16)
    config.save_pretrained(folder)
    # Clones of one tensor: safetensors stores no shared memory.
    tensors = {name: values[: tensor.numel()].reshape(tensor.shape).clone() for name, tensor in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return (folder / "model.safetensors").stat().st_size


def resident_bytes(pid: int) -> tuple[int, int]:
    """Memory of the process itself, and what it has mapped of files."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {line[0]: int(line[1]) * 1024 for line in lines if line[0] in ("RssAnon:", "RssFile:", "RssShmem:")}
    # Files of a tmpfs, which /tmp may be, count as shared memory.
    return found["RssAnon:"], found["RssFile:"] + found["RssShmem:"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_depend_on_the_size_of_the_model(source, tmp_path):
    assert save_large(tmp_path / "large") > 200 * MEGABYTE
    command = [sys.executable, "-c", _CHILD, str(source), str(tmp_path / "large"), str(tmp_path / "int8")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while (line := process.stdout.readline()) != "ready\n":
            assert line, "the child has ended"
        before = peak = resident_bytes(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        while not (tmp_path / "int8").exists():
            assert process.poll() is None
            now = resident_bytes(process.pid)
            peak = max(peak[0], now[0]), max(peak[1], now[1])
            time.sleep(0.001)
    assert (tmp_path / "int8" / "model.safetensors").stat().st_size > 100 * MEGABYTE
    own, mapped = (most - least for most, least in zip(peak, before, strict=True))
    assert MEGABYTE < own < 60 * MEGABYTE
    assert MEGABYTE < mapped < 100 * MEGABYTE
