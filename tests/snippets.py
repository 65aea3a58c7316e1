"""Code blocks of Markdown files, run in order as a reader would: one directory and one namespace a file.

Blocks are fenced. After ``python`` may stand the name of a file, which the block is then saved as; after ``sh`` may
stand ``no-run``. A ``text`` block behind one that runs is what that prints to stdout, with ``…`` for anything; after
``text`` may stand the target (see `hf_tle_int8.backend.target`) that alone prints this.
"""

import contextlib
import difflib
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hf_tle_int8 import execution

HUB_NAME = "Qwen/Qwen2.5-0.5B-Instruct"
PORT = "8000"
NOT_RUN = "no-run"

_BLOCK = re.compile(r"^```(\S*) *([^\n]*)\n(.*?)^```$(?:\s*^```text *([^\n]*)\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
_SECONDS = 120


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of the file, from 1.
        language: what follows the fence.
        info: the rest of that line.
        text: between the fences.
        target: the one with which it prints the output, if it is not the same with all; None where there is no output.
        output: what it prints to stdout, where the file says so.
    """

    line: int
    language: str
    info: str
    text: str
    target: str | None
    output: str | None

    @property
    def runs(self) -> bool:
        """Whether it is code that is run."""
        return self.language in ("python", "sh") and self.info != NOT_RUN


def blocks(text: str) -> list[Block]:
    """The blocks of a Markdown file."""
    return [Block(text.count("\n", 0, found.start()) + 1, *found.groups()) for found in _BLOCK.finditer(text)]


def differences(expected: str, actual: str) -> str:
    """How ``actual`` is not what ``expected`` says, but for white space at the ends of lines; nothing where it is."""
    want, got = ("\n".join(map(str.rstrip, text.strip().splitlines())) for text in (expected, actual))
    if re.fullmatch(".*".join(map(re.escape, want.split("…"))), got, re.DOTALL):
        return ""
    return "\n".join(difflib.unified_diff(want.splitlines(), got.splitlines(), "expected", "printed", lineterm=""))


def _target() -> str | None:
    return None if execution.unavailable() else execution.target().name


def _hf_tle_int8(arguments: Sequence[str]) -> int:
    # Imports transformers, which tests of other things do without.
    from hf_tle_int8.cli.main import main

    return main(arguments)


def _hf(arguments: Sequence[str]) -> int:
    """``hf download NAME --local-dir FOLDER`` of what is in a folder called NAME."""
    command, name, option, folder = arguments
    assert (command, option) == ("download", "--local-dir")
    shutil.copytree(name, folder)
    return 0


_COMMANDS = {"hf-tle-int8": _hf_tle_int8, "hf": _hf}


class Reader:
    """Who does what a file says, in the current directory.

    Args:
        file: the file.
    """

    def __init__(self, file: Path):
        self._file = file
        self._namespace: dict[str, object] = {"__name__": "__main__"}
        self._groups: list[int] = []
        with socket.socket() as free:
            free.bind(("localhost", 0))
            self._port = str(free.getsockname()[1])

    def run(self) -> None:
        """Run all blocks, then end what they left running.

        Raises:
            AssertionError: a command fails, or a block prints something else than the file says.
            Exception: what a block raises.
        """
        try:
            for block in filter(lambda block: block.runs, blocks(self._file.read_text())):
                text = re.sub(rf"\b{PORT}\b", self._port, block.text)
                printed = (self._python if block.language == "python" else self._shell)(block, text)
                wrong = differences(block.output, printed) if block.output and block.target in ("", _target()) else ""
                assert not wrong, f"{self._at(block)} prints something else:\n{wrong}"
        finally:
            for group in self._groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)

    def _at(self, block: Block) -> str:
        return f"{self._file.name}:{block.line}"

    def _python(self, block: Block, text: str) -> str:
        # In a file, from which Triton reads the source of kernels.
        path = Path(block.info or f"{self._file.stem}_{block.line}.py").absolute()
        path.write_text(text)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if not block.info:
                exec(compile(text, path, "exec"), self._namespace)
        return printed.getvalue()

    def _shell(self, block: Block, text: str) -> str:
        if re.fullmatch(rf"(({'|'.join(_COMMANDS)}) [^|&;>$*\\\n]*\n)+", text):
            return "".join(self._command(block, *shlex.split(line, comments=True)) for line in text.splitlines())
        with Path("stdout.txt").open("w+") as stdout, Path("stderr.txt").open("w+") as stderr:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            code = process.wait(_SECONDS)
            printed, complaints = (file.seek(0) or file.read() for file in (stdout, stderr))
        assert code == 0, f"{self._at(block)} ends with {code}:\n{text}\n{printed}\n{complaints}"
        return printed

    def _command(self, block: Block, name: str, *arguments: str) -> str:
        """Without a process: importing torch and transformers takes seconds."""
        arguments, given = (arguments[:-2], Path(arguments[-1]).read_text()) if "<" in arguments else (arguments, "")
        with contextlib.redirect_stdout(io.StringIO()) as printed, mock.patch.object(sys, "stdin", io.StringIO(given)):
            code = _COMMANDS[name](arguments)
        assert code == 0, f"{self._at(block)}: {name} {shlex.join(arguments)} ends with {code}; see stderr"
        return printed.getvalue()
