import json
import subprocess
import sys

import pytest

from hf_tle_int8 import __version__
from hf_tle_int8.cli import env
from hf_tle_int8.cli.main import main
from hf_tle_int8.report import environment


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in ("demo", "generate", "chat", "eval", "inspect", "bench", "env"))
    assert text.rstrip().endswith("with examples.")


@pytest.mark.parametrize("command", [["generate"], ["chat"], ["eval"], ["bench", "model"]])
def test_help_of_a_command_ends_with_examples(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    examples = capsys.readouterr().out.split("examples:")[1].strip().splitlines()
    assert all(f"hf-tle-int8 {' '.join(command)} " in line for line in examples)


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_env(capsys):
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["hf_tle_int8", __version__] for line in lines)
    assert any(line.startswith("CPU features") for line in lines)


def test_env_as_json(capsys):
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["hf_tle_int8"] == __version__
    assert facts == environment()


def test_a_reader_that_leaves_early_is_no_error():
    script = "from hf_tle_int8.cli.main import main; raise SystemExit(main(['env']))"
    command = f'{sys.executable} -c "{script}" | head -1'
    output = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert output.stdout.startswith("hf_tle_int8")
    assert output.stderr == ""


def test_ctrl_c_has_no_traceback(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(env, "environment", interrupted)
    assert main(["env"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_failure_has_no_traceback(capsys, monkeypatch):
    def failed():
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(env, "environment", failed)
    assert main(["env"]) == 1
    assert capsys.readouterr().err == "hf-tle-int8: failed: RuntimeError: not enough memory\n"


@pytest.mark.parametrize("command", [["linear", "--csv"], ["linear", "--plot"], ["model", "no-model", "--csv"]])
def test_where_to_write_is_looked_at_before_measuring(tmp_path, capsys, command):
    assert main(["bench", *command, str(tmp_path / "absent" / "file")]) == 2
    assert capsys.readouterr().err.startswith(f"hf-tle-int8: error: {tmp_path / 'absent' / 'file'} cannot be written.")


def test_errors_have_no_traceback(capsys, tmp_path):
    assert main(["demo", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-tle-int8: error: ")
    assert "Traceback" not in error
