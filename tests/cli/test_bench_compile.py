import csv
import json
import sys

import pytest
import torch

from hf_tle_int8 import execution
from hf_tle_int8.backend import kernel_cache
from hf_tle_int8.bench import compiling
from hf_tle_int8.cli.main import main

ONE = ["bench", "compile", "--kernels", "quantize", "--processes", "1", "--dtype", "float32"]


def test_compiling_takes_longer_than_loading_and_leaves_the_cache_alone(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "compile.csv"
    assert main([*ONE, "--json", "--csv", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dtype"], found["target of the kernels"]) == ("float32", execution.target().name)
    assert {record["kernel"].split()[0] for record in found["results"]} == {"quantize"}
    for record in found["results"]:
        assert record["cold_min_ms"] > 2 * record["cached_min_ms"] > 0
        assert record["once_min_ms"] > 0
    rows = list(csv.DictReader(file.open()))
    assert [row["cold_min_ms"] for row in rows] == [str(record["cold_min_ms"]) for record in found["results"]]
    assert rows[0]["versions"] == found["versions"]
    assert not list(kernel_cache.kernels())


def test_markdown_has_a_line_for_each_kernel(capsys, monkeypatch):
    times = compiling.Times(0.001, 0.002)
    given = lambda names, *_: [compiling.Result(name, times, times, times) for name in names]  # noqa: E731
    monkeypatch.setattr(compiling, "measure", given)
    assert main(["bench", "compile"]) == 0
    page = capsys.readouterr().out
    for rows, columns in execution.layout().tiles:
        assert f"| gemm {rows}x{columns} | 1.0 | 2.0 |" in page


def test_what_a_process_that_fails_wrote_is_shown(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no memory left >&2; exit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match=r"quantize 1 ended with 3:\nno memory left"):
        compiling.measure(["quantize 1"], torch.float32, 1, print)


def test_what_cannot_be_measured_is_refused_before_anything_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.delattr(compiling, "measure")
    assert main(["bench", "compile", "--kernels", "scatter"]) == 2
    assert "scatter" in capsys.readouterr().err
    assert main(["bench", "compile", "--csv", str(tmp_path / "none" / "compile.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    monkeypatch.setattr(execution, "unavailable", lambda: "llvmlite is not installed")
    assert main(["bench", "compile"]) == 2
    assert "kernels cannot run here: llvmlite is not installed" in capsys.readouterr().err
