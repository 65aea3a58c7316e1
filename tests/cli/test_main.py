import pytest

from hf_tle_int8 import __version__
from hf_tle_int8.cli.main import main


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "demo" in text
    assert "env" in text


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


def test_errors_have_no_traceback(capsys, tmp_path):
    assert main(["demo", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-tle-int8: error: ")
    assert "Traceback" not in error
