"""Recording: what is refused before anything runs, and what a failing step leaves."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import plots
import pytest
import record


@pytest.fixture(autouse=True)
def _matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    sys.modules["matplotlib"].__spec__ = ModuleSpec("matplotlib", None)


def main(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["record.py", *map(str, arguments)])
    record.main()


@pytest.fixture
def drawn(monkeypatch) -> list[list[str]]:
    calls: list[list[str]] = []
    monkeypatch.setattr(plots, "main", calls.append)
    return calls


def test_a_trial_never_overwrites_results(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(monkeypatch, "--quick")
    assert "another folder" in capsys.readouterr().err


def test_what_is_missing_is_named_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "STEPS", {"a": record.Step(("-c", "1"), needs=("no_such_module",))})
    with pytest.raises(SystemExit, match="no_such_module missing"):
        main(monkeypatch, "--steps", "a", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_busy_machine_is_refused_unless_told_otherwise(monkeypatch, tmp_path, drawn):
    monkeypatch.setattr(record, "STEPS", {"a": record.Step(("-c", "1"))})
    monkeypatch.setattr(record.os, "getloadavg", lambda: (0.8, 0, 0))
    with pytest.raises(SystemExit, match=r"load average 0\.80"):
        main(monkeypatch, "--steps", "a", "--out", tmp_path)
    assert not drawn
    main(monkeypatch, "--steps", "a", "--out", tmp_path, "--busy")
    assert drawn == [["--results", str(tmp_path), "--out", str(tmp_path), "--docs", str(tmp_path)]]


def test_a_failing_step_is_named_and_leaves_what_was_there(monkeypatch, tmp_path, drawn):
    steps = {
        "bad": record.Step(("-c", "print('half'); raise SystemExit(3)"), page="bad.md"),
        "good": record.Step(("-c", "import sys; print(sys.argv[1:])", "{load}"), ("full",), ("tiny",), page="good.md"),
    }
    monkeypatch.setattr(record, "STEPS", steps)
    monkeypatch.setattr(record.os, "getloadavg", lambda: (0.25, 0, 0))
    (tmp_path / "bad.md").write_text("old")
    with pytest.raises(SystemExit, match="failed: bad"):
        main(monkeypatch, "--steps", "bad", "good", "--out", tmp_path, "--quick")
    assert (tmp_path / "bad.md").read_text() == "old"
    assert (tmp_path / "good.md").read_text() == "['0.25', 'tiny']\n"
    assert len(drawn) == 1


def test_steps_record_what_is_drawn():
    kinds = {*plots.PICTURES, *plots.OF_ALL_MACHINES}
    assert {*record.STEPS, "load"} == kinds
