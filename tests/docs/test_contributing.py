"""docs/contributing: changes that the pages show apply, and the tests say of them what the pages say."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NEEDS_KERNELS, REPOSITORY
from snippets import blocks

PAGES = REPOSITORY / "docs" / "contributing"
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
ELEMENTWISE = "tests/backend/lowering/test_elementwise.py"


def changes(page: str) -> list[str]:
    return [block.text for block in blocks((PAGES / page).read_text()) if block.language == "diff"]


def apply(change: str, folder: Path) -> None:
    """Apply a change of one place in one file; the lines around it say where."""
    _, header, _, *lines = change.splitlines(keepends=True)
    file = folder / header.removeprefix("+++ b/").strip()
    before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    text = file.read_text()
    assert text.count(before) == 1, f"{file} has the lines of the change {text.count(before)} times"
    file.write_text(text.replace(before, after))


def run_tests(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(REPOSITORY, tmp_path / "copy", ignore=LEFT_OUT))


@NEEDS_KERNELS
def test_the_lowering_of_an_operation(copy):
    lowering, case = changes("compiler.md")
    apply(lowering, copy)
    missing = run_tests(copy, ELEMENTWISE, "-k", "every_operation")
    assert missing.returncode == 1
    assert "math.ctpop" in missing.stdout
    apply(case, copy)
    passed = run_tests(copy, ELEMENTWISE, "-k", "every_operation or ctpop")
    assert passed.returncode == 0, passed.stdout
    assert "5 passed" in passed.stdout


def test_every_page_is_named_by_contributing():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    pages = {file.name for file in PAGES.glob("*.md")} - {"README.md"}
    assert [name for name in pages if f"](docs/contributing/{name})" not in text] == []
