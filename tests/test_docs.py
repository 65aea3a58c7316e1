"""Every Python block of the README and the docs runs, in order, one namespace a file."""

import re

import pytest
from conftest import REPOSITORY

FILES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
HUB_NAME = "Qwen/Qwen2.5-0.5B-Instruct"


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_python_blocks_run(file, stories_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, block in enumerate(python_blocks(file.read_text())):
        code = block.replace(HUB_NAME, str(stories_path))
        exec(compile(code, f"{file.name}, block {number}", "exec"), namespace)


def test_there_are_blocks():
    blocks = {file.name: len(python_blocks(file.read_text())) for file in FILES}
    assert blocks["README.md"] == 2
    assert blocks["quickstart.md"] >= 6
    assert blocks["checkpoints.md"] == 2


@pytest.mark.parametrize("file", [*FILES, REPOSITORY / "CONTRIBUTING.md"], ids=lambda file: file.name)
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
        assert (file.parent / target).exists(), f"{file.name} links to {target}"


def test_readme_shows_the_two_commands():
    text = (REPOSITORY / "README.md").read_text()
    assert "    make demo" in text
    assert "    make test" in text
