"""docs/reference/environment.md has every variable that the code reads, and says where."""

import ast
import importlib
import re
from collections.abc import Iterator

from conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "environment.md"
ROWS = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
READERS = {name: row[3] for row in ROWS for name in re.findall(r"`(\w+)", row[1])}
FOLDERS = {"hf_tle_int8": REPOSITORY / "hf_tle_int8", "hf_tle_int8.kernels": REPOSITORY / "kernels" / "tle_int8"}


def keys(tree: ast.AST) -> Iterator[ast.expr]:
    """What ``os.environ`` is asked for; any other use of the environment is an error."""
    known = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environ(node.value):
            known.add(node.value)
            yield node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_environ(node.func.value):
            known.add(node.func.value)
            yield node.args[0]
    unknown = [node for node in ast.walk(tree) if is_environ(node) and node not in known]
    assert not unknown, f"line {unknown[0].lineno}"


def is_environ(node: ast.AST) -> bool:
    named = (isinstance(node, ast.Attribute) and node.attr) or (isinstance(node, ast.Name) and node.id)
    return named in ("environ", "environb", "getenv")


def test_variables_that_the_code_reads_are_on_the_page():
    read = {}
    for package, folder in FOLDERS.items():
        for file in sorted(folder.rglob("*.py")):
            inside = file.relative_to(folder)
            for key in map(ast.unparse, keys(ast.parse(file.read_text()))):
                module = importlib.import_module(".".join([package, *inside.with_suffix("").parts]))
                # In report.py, each of report._VARIABLES: see tests/test_docs.py.
                if (str(inside), key) != ("report.py", "name"):
                    read[eval(key, vars(module)), str(inside)] = READERS.get(eval(key, vars(module)), "")
    assert len(read) >= 8
    assert [found for found, readers in read.items() if found[1] not in readers] == []
