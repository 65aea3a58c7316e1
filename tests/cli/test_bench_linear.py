import csv
import json
import sys

import pytest

from hf_tle_int8.bench.peers import BASE, PEERS
from hf_tle_int8.cli.main import main

TINY = ["bench", "linear", "--shape", "40x64", "--m", "1", "3", "--rounds", "1", "--threads", "1"]
FEW = ["--peers", "hf_tle_int8", "torch bf16"]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "linear", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--shape", "--csv", "cold", "hot", "examples:", "hf_tle_int8[bench]"))


def test_json_names_every_peer(capsys):
    names = [peer.name for peer in PEERS if "compiled" not in peer.name]
    assert main([*TINY, "--json", "--peers", *names]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["failed"]
    timed = {record["peer"] for record in found["results"]}
    assert timed.isdisjoint(found["absent"])
    assert timed | set(found["absent"]) == set(names)
    assert {"hf_tle_int8", BASE, "torch fp32"} <= timed
    assert found["threads"] == "1"
    for record in found["results"]:
        assert 0 < record["min_us"] <= record["median_us"]
        assert record["relative_error"] < 0.1
        assert record["bandwidth_share"] > 0
    cases = {(record["m"], record["cache"]) for record in found["results"]}
    assert cases == {(1, "cold"), (1, "hot"), (3, "hot")}


def test_csv_and_markdown_agree(capsys, tmp_path):
    file = tmp_path / "linear.csv"
    assert main([*TINY, *FEW, "--csv", str(file)]) == 0
    page = capsys.readouterr().out
    rows = list(csv.DictReader(file.open()))
    assert [row["peer"] for row in rows[:2]] == ["hf_tle_int8", "torch bf16"]
    assert len(rows) == 6
    assert all(float(row["ratio_to_torch_bf16"]) == 1 for row in rows if row["peer"] == BASE)
    assert all(f"{float(row['min_us']):.1f} | {float(row['median_us']):.1f}" in page for row in rows)
    assert rows[0]["versions"] in page


def test_a_plot_is_drawn_or_matplotlib_asked_for(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*TINY, *FEW, "--plot", str(tmp_path / "p.png")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    assert main([*TINY, *FEW, "--plot", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", ["64", "64x", "0x8", "ax8", "8x8x8"])
def test_wrong_shapes_are_refused(shape, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "linear", "--shape", shape])
    assert "NxK" in capsys.readouterr().err


def test_what_could_not_be_drawn_is_told_before_measuring(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("hf_tle_int8.bench.linear.run", None)
    assert main([*TINY, *FEW, "--plot", str(tmp_path / "p.foo")]) == 2
    assert "p.foo has no ending of a picture. Choose of " in capsys.readouterr().err
    assert main([*TINY, "--peers", "hf_tle_int8", "--plot", str(tmp_path / "p.png")]) == 2
    assert f"relative to {BASE}, which " in capsys.readouterr().err


def test_unknown_peers_are_refused(capsys):
    assert main(["bench", "linear", "--peers", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
