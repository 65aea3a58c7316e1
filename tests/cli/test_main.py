import json
import subprocess
import sys

import pytest

from hf_tle_int8 import __version__, report
from hf_tle_int8.cli import convert
from hf_tle_int8.cli.main import main
from hf_tle_int8.report import environment
from hf_tle_int8.streaming.options import FORMATS

COMMANDS = ("demo", "convert", "generate", "chat", "eval", "inspect", "bench", "cache", "env")


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in COMMANDS)
    assert text.rstrip().endswith("with examples.")


@pytest.mark.parametrize("command", [["generate"], ["chat"], ["eval"], ["bench", "model"]])
def test_help_of_a_command_ends_with_examples(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    examples = capsys.readouterr().out.split("examples:")[1].strip().splitlines()
    assert all(f"hf-tle-int8 {' '.join(command)} " in line for line in examples)


USAGE = """
import sys
from hf_tle_int8.cli.main import main

for line in sys.stdin.read().splitlines():
    try:
        main(line.split())
    except SystemExit as stop:
        assert stop.code == (0 if line.endswith(("--help", "--version")) else 2), line
heavy = {"torch", "transformers", "triton", "numpy", "hf_tle_int8.config"} & sys.modules.keys()
assert not heavy, heavy
"""
MISTAKES = [
    "", "transmogrify", "convert", "convert my-model", "generate my-model", "chat --system", "eval my-model",
    "generate my-model --prompt Once --dtype int4", "generate my-model --prompt Once --temperature cold",
    "chat my-model --max-new-tokens 0", "bench", "bench linear --shape 4096", "bench model my-model --threads none",
    "bench compile --dtype int8", "inspect", "env --yaml", "cache melt", "cache warm", "demo my-model --prompt",
    "convert my-model my-model-int8 --format gguf",
]  # fmt: skip


def test_help_and_errors_of_usage_import_neither_torch_nor_transformers():
    parsers = ["", *COMMANDS, "bench linear", "bench model", "bench compile", "cache clear", "cache warm"]
    lines = [*(f"{command} --help" for command in parsers), "--version", *MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", USAGE], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == len(parsers)
    assert done.stderr.count(": error: ") == len(MISTAKES)


def test_choices_that_are_written_twice_are_the_same():
    assert FORMATS == convert._FORMATS


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


def test_a_closed_stdout_is_no_error():
    script = "from hf_tle_int8.cli.main import main; raise SystemExit(main(['cache']))"
    done = subprocess.run(
        f'{sys.executable} -c "{script}" >&-', shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "line",
    ["inspect absent", "bench linear --peers abacus", "bench compile --kernels abacus", "cache warm absent"],
)
def test_each_command_tells_of_a_mistake_in_a_process_of_its_own(line, tmp_path):
    script = "import sys; from hf_tle_int8.cli.main import main; raise SystemExit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("hf-tle-int8: error: ")
    assert "Traceback" not in done.stderr


def test_ctrl_c_has_no_traceback(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "environment", interrupted)
    assert main(["env"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_failure_has_no_traceback(capsys, monkeypatch):
    def failed():
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(report, "environment", failed)
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
