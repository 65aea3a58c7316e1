"""Every tutorial does what it says, and prints what it shows."""

import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import NEEDS_KERNELS, REPOSITORY
from snippets import Block, Reader, blocks, differences

PAGES = (REPOSITORY / "docs" / "tutorials").glob("*.md")
TUTORIALS = sorted(file for file in PAGES if file.name != "README.md")


@NEEDS_KERNELS
@pytest.mark.parametrize("file", TUTORIALS, ids=lambda file: file.stem)
def test_tutorial(file, run_snippets):
    if "curl " in file.read_text() and shutil.which("curl") is None and os.environ.get("CI") != "true":
        pytest.skip("curl missing: apt-get install curl")
    run_snippets(file)


FILE = """\
Words

```python
print(1)
```

```text
1
```

```sh no-run
false
```

```text avx2
a picture
```
"""


def test_blocks_of_a_file():
    assert blocks(FILE) == [
        Block(3, "python", "", "print(1)\n", "", "1\n"),
        Block(11, "sh", "no-run", "false\n", "avx2", "a picture\n"),
    ]
    assert [block.runs for block in blocks(FILE)] == [True, False]


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [("a\nb", "a \nb\n", True), ("a … c", "a bb\nb c", True), ("a", "a b", False), ("1.5 …", "1x5 ", False)],
)
def test_differences(expected, actual, same):
    assert (not differences(expected, actual)) == same


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("sh", "true\nfalse", "wrong.md:1 ends with 1"),
        ("sh", "hf-tle-int8 inspect nothing", "wrong.md:1: hf-tle-int8 inspect nothing ends with 2"),
        ("python", "print(1)", "prints something else"),
        ("sh", "echo 1", "prints something else"),
    ],
)
def test_what_is_wrong_is_said(language, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "wrong.md"
    file.write_text(f"```{language}\n{text}\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match=message):
        Reader(file).run()


def test_what_runs_on_is_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "server.md"
    file.write_text("```sh\nsleep 600 &\necho $! > pid\n```\n")
    Reader(file).run()
    process, deadline = Path("/proc") / (tmp_path / "pid").read_text().strip(), time.monotonic() + 10
    while process.exists() and "State:\tZ" not in (process / "status").read_text():
        assert time.monotonic() < deadline, f"{process} goes on"
