"""``hf-tle-int8 cache``: shown, cleared without touching others, and warm so that a model compiles nothing."""

import json

import pytest
import torch
from conftest import NEEDS_KERNELS
from moe_support import save_moe
from support import save_tiny_llama
from transformers import AutoModelForCausalLM

from hf_tle_int8 import TLEInt8Config, execution, warming
from hf_tle_int8.backend import kernel_cache
from hf_tle_int8.backend.cache_entry import MAGIC
from hf_tle_int8.cli.main import main


def forget_kernels():
    """What this process has compiled or loaded."""
    for forget in (execution._gemm.cache_clear, execution._quantizer.cache_clear, execution._PLANS.clear):
        forget()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
    return folder


def entry(folder, name, content):
    """What Triton stores of one kernel."""
    folder.mkdir(parents=True)
    names = [f"{name}.obj", f"{name}.ttir", f"{name}.json", f"__grp__{name}.json"]
    for each in names:
        (folder / each).write_bytes(content if each.endswith(".obj") else b"text")
    return 12 + len(content)


def test_show_and_clear(cache, tmp_path, capsys):
    size = entry(cache / "A", "gemm", MAGIC + b"code") + entry(cache / "B", "add", MAGIC)
    entry(cache / "C", "other", b"\x7fELF of another backend")
    entry(cache / "D", "mixed", MAGIC)
    (cache / "D" / "mine.txt").write_text("")
    entry(tmp_path / "elsewhere", "linked", MAGIC)
    (cache / "E").symlink_to(tmp_path / "elsewhere")
    size += 12 + len(MAGIC)
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(cache), "kernels": 3, "bytes": size}
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{cache}: 3 kernels of this backend, {size} bytes\n"
    assert main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(cache), "removed": 3, "bytes": size}
    left = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if not path.is_dir())
    assert left == ["C/__grp__other.json", "C/other.json", "C/other.obj", "C/other.ttir", "D/mine.txt"]
    assert len(list((tmp_path / "elsewhere").iterdir())) == 4
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"{cache}: removed 0 kernels of this backend, 0 bytes\n"


def test_a_cache_that_is_not_there_yet(cache, capsys):
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(cache), "kernels": 0, "bytes": 0}
    assert not cache.exists()


@NEEDS_KERNELS
def test_after_warming_a_forward_compiles_nothing(cache, tmp_path, capsys):
    source = save_tiny_llama(tmp_path / "float", torch.bfloat16, num_hidden_layers=1, attention_bias=True)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path / "int8")
    forget_kernels()
    capsys.readouterr()
    assert main(["cache", "warm", str(tmp_path / "int8"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kinds"] == [["bfloat16", None], ["bfloat16", "bfloat16"]]
    warm = {kernel.files for kernel in kernel_cache.kernels()}
    assert facts["added"] == len(warm) >= 2 * len(execution.layout().tiles) + 1
    forget_kernels()
    for rows in (1, 2, 3, 4, 5, 9, 40):
        model(torch.ones(1, rows, dtype=torch.long), use_cache=False)
    assert execution._gemm.cache_info().currsize == 2 * len(execution.layout().tiles)
    assert {kernel.files for kernel in kernel_cache.kernels()} == warm


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_what_a_float_checkpoint_with_experts_needs(tmp_path, monkeypatch, dtype):
    compiled = []
    monkeypatch.setattr(execution, "compile_tiles", lambda *kind: compiled.append(kind))
    # All of its linears and experts have a bias.
    source = save_moe(tmp_path, "gpt_oss", torch.bfloat16)
    kind = (dtype or torch.bfloat16,) * 2
    assert warming.warm(source, dtype) == compiled == [kind]


def test_the_options_of_converting(tmp_path, monkeypatch, capsys):
    compiled = []
    monkeypatch.setattr(execution, "unavailable", lambda: None)
    monkeypatch.setattr(execution, "compile_tiles", lambda *kind: compiled.append(kind))
    # q, k, v and o have a bias, the MLP and the head have none.
    source = save_tiny_llama(tmp_path / "float", num_hidden_layers=1, attention_bias=True, tie_word_embeddings=True)
    for options, kind in (
        (["--modules-to-convert", "mlp"], (torch.float32, None)),
        (["--modules-to-not-convert", "mlp"], (torch.float32, torch.float32)),
        (["--modules-to-convert", "nothing", "--quantize-lm-head"], (torch.float32, None)),
    ):
        assert main(["cache", "warm", str(source), *options]) == 0
        assert compiled == [kind]
        compiled.clear()
    assert main(["convert", str(source), str(tmp_path / "int8")]) == 0
    capsys.readouterr()
    assert main(["cache", "warm", str(tmp_path / "int8"), "--quantize-lm-head"]) == 2
    assert "is INT8 already: options of converting have no effect on it" in capsys.readouterr().err


def test_mistakes_end_in_a_sentence(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(execution, "unavailable", lambda: None)
    assert main(["cache", "warm", "Qwen/Qwen2.5"]) == 2
    assert "is no folder" in capsys.readouterr().err
    monkeypatch.setattr(execution, "unavailable", lambda: "llvmlite is not installed")
    assert main(["cache", "warm", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "hf-tle-int8: error: kernels cannot run here: llvmlite is not installed\n"
