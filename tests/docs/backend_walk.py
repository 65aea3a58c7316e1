"""What the backend makes of one kernel at each stage, for docs/how/backend.md.

python tests/docs/backend_walk.py --write docs/how/backend.md

replaces the block behind each ``<!-- made: NAME -->`` of the page; without ``--write``, the blocks are printed.
"""

import argparse
import importlib.metadata
import inspect
import re
import sys
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget

TARGET = "neon-i8mm"
_MADE = re.compile(r"(?<=<!-- made: )(\w+)( -->\n+```\w*\n).*?(?=^```)", re.MULTILINE | re.DOTALL)


@triton.jit
def dots(a, b, out, K):
    i, j, inside = tl.arange(0, 2), tl.arange(0, 2), tl.arange(0, 16)
    sums = tl.zeros((2, 2), tl.int32)
    for k in range(0, K, 8):
        left = tl.load(a + 2 * k + inside).reshape(2, 8)
        right = tl.load(b + 2 * k + inside).reshape(2, 8)
        sums = tl.dot(left, right.trans(), sums, out_dtype=tl.int32)
    tl.store(out + 2 * i[:, None] + j[None, :], sums)


def versions() -> str:
    """Of what makes the blocks; another one may print them otherwise."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("triton", "llvmlite"))


def blocks() -> dict[str, str]:
    """The text of each block, compiled anew for `TARGET`, on whatever machine."""
    signature = {"a": "*i8", "b": "*i8", "out": "*i32", "K": "i32"}
    made = triton.compile(triton.compiler.ASTSource(dots, signature, {}), target=GPUTarget("cpu", TARGET, 1)).asm
    source = inspect.getsource(dots.fn)
    return {
        "versions": f"{versions()}, target {TARGET}\n",
        "source": f"import triton\nimport triton.language as tl\n\n\n{source}",
        "ttir": _without_places(made["ttir"]),
        "llir": _function(made["llir"], "dots_program"),
        "asm": _innermost_loop(made["asm"]),
    }


def _without_places(text: str) -> str:
    lines = (re.sub(r" loc\((#loc\d*|\"\w+\"\(#loc\))\)", "", line) for line in text.splitlines())
    return "\n".join(line for line in lines if not line.startswith("#loc")) + "\n"


def _function(text: str, name: str) -> str:
    return re.search(rf"^define [^\n]*@{name}\(.*?^}}\n", text, re.MULTILINE | re.DOTALL)[0]


def _innermost_loop(text: str) -> str:
    """The first loop with an smmla, from its label to the branch back."""
    loops = re.finditer(r"^(\.\w+):\n((?:\t(?!b\b)[^\n]*\n)*\tb\.\w+\t\1\n)", text, re.MULTILINE)
    return next(loop[0] for loop in loops if "smmla" in loop[0])


def filled(page: str, made: dict[str, str]) -> str:
    """The page with all blocks replaced.

    Raises:
        KeyError: it has a block that is not made.
    """
    return _MADE.sub(lambda found: found[1] + found[2] + made[found[1]], page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the page to bring up to date")
    page = parser.parse_args().write
    made = blocks()
    if page:
        page.write_text(filled(page.read_text(), made))
    else:
        print("\n".join(f"==== {name}\n{text}" for name, text in made.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
