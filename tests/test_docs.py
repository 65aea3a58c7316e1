"""Every block of code of the README and the docs runs; those of docs/tutorials in test_tutorials.py."""

import re

import pytest
from conftest import REPOSITORY
from snippets import NOT_RUN, blocks

from hf_tle_int8 import report
from hf_tle_int8.backend.target import TARGETS

FILES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
TUTORIALS = REPOSITORY / "docs" / "tutorials"
# What needs another machine, the network, minutes or a clone, by how it begins.
NOT_RUN_HERE = {
    "README.md": ["make demo", "pip install ."],
    "docs/benchmarks.md": ["pip install"],
    "docs/contributing/arm.md": ["apt-get install qemu"],
    "docs/contributing/compiler.md": [*["python -m pytest tests/backend/lowering"] * 2, "apt-get install llvm-22"],
    "docs/contributing/options.md": ["python -m pytest tests/docs"],
    "docs/guides/arm.md": ["taskset", "numactl", "grep . /sys"],
    "docs/guides/hub-kernels.md": ["make hub-kernels"],
    "docs/guides/threads.md": ["taskset"],
    "docs/tutorials/new-isa-or-tile.md": ["python tests/benchmarks/tiles.py", "apt-get", "python -m pytest"],
    "docs/tutorials/serve.md": ["pip install .", 'python -c "import hf_tle_int8; from transformers.cli'],
}


def name_of(file):
    return file.relative_to(REPOSITORY).as_posix()


CODE = [file for file in FILES if file.parent != TUTORIALS and any(block.runs for block in blocks(file.read_text()))]


@pytest.mark.parametrize("file", CODE, ids=name_of)
def test_blocks_run(file, run_snippets):
    run_snippets(file)


def test_few_blocks_are_not_run():
    found = {
        name_of(file): [block.text for block in blocks(file.read_text()) if block.info == NOT_RUN] for file in FILES
    }
    left = {name: texts for name, texts in found.items() if texts}
    assert left.keys() == NOT_RUN_HERE.keys()
    for name, beginnings in NOT_RUN_HERE.items():
        assert [text[: len(start)] for text, start in zip(left[name], beginnings, strict=True)] == beginnings


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_block_is_seen(file):
    text = file.read_text()
    fences = len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
    found = blocks(text)
    assert fences == sum(2 if block.output is None else 4 for block in found)
    assert not {block.language for block in found} & {"py", "python3", "bash", "shell", "console", "zsh"}


def test_there_are_blocks():
    found = {name_of(file): sum(block.runs for block in blocks(file.read_text())) for file in FILES}
    assert found["README.md"] == 4
    assert found["docs/quickstart.md"] >= 10
    assert found["docs/checkpoints.md"] == 4
    assert sum(found[name] for name in found if name.startswith("docs/tutorials/")) >= 40


@pytest.mark.parametrize("file", [*FILES, REPOSITORY / "CONTRIBUTING.md"], ids=name_of)
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
    assert "\nmake demo " in text
    assert "\nmake test " in text
