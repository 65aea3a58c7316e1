"""Every Python block of the README and the docs runs, in order, one namespace a file."""

import re

import pytest
from conftest import REPOSITORY

from hf_tle_int8 import report
from hf_tle_int8.backend.target import TARGETS

FILES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
HUB_NAME = "Qwen/Qwen2.5-0.5B-Instruct"


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_python_blocks_run(file, stories_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(python_blocks(file.read_text())):
        # In a file, from which Triton reads the source of kernels.
        path = tmp_path / f"{file.stem}_{number}.py"
        path.write_text(block.replace(HUB_NAME, str(stories_path)))
        exec(compile(path.read_text(), path, "exec"), namespace)


def test_there_are_blocks():
    blocks = {file.name: len(python_blocks(file.read_text())) for file in FILES}
    assert blocks["README.md"] == 3
    assert blocks["quickstart.md"] >= 6
    assert blocks["checkpoints.md"] == 2


@pytest.mark.parametrize("file", [*FILES, REPOSITORY / "CONTRIBUTING.md"], ids=lambda file: file.name)
def test_links_lead_somewhere(file):
    prose = re.sub(r"```.*?```|`[^`]*`", "", file.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
        assert (file.parent / target).exists(), f"{file.name} links to {target}"


def test_variables_and_targets_are_documented():
    text = (REPOSITORY / "docs" / "reference" / "environment.md").read_text()
    assert all(f"| `{name}" in text for name in report._VARIABLES)
    assert all(f"`{name}`" in text for name in TARGETS)


def test_readme_shows_the_two_commands():
    text = (REPOSITORY / "README.md").read_text()
    assert "    make demo" in text
    assert "    make test" in text
