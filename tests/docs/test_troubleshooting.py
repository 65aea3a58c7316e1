"""docs/troubleshooting.md explains each message that a user may meet, and none that nothing writes."""

import ast
import importlib
import re
from collections.abc import Iterator

from conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
SOURCES = REPOSITORY / "hf_tle_int8"
GAP = "\0"
# Their text is a part of another message, which the page has.
PARTS = {"BadEntryError", "NotStreamableError", "ArgumentTypeError", "KeyError", "SystemExit"}
# Explained by the name of their class, as one thing that can happen.
BY_CLASS = {"UnsupportedOperationError", "TTIRSyntaxError"}
# Of the compiler about itself: whoever meets one has found a bug. Those of peers say why `bench` does not measure them.
COMPILER = tuple(f"backend/{folder}/" for folder in ("dot", "ir", "lowering", "tensors", "ttir", "vector_math"))
LEFT_OUT = (*COMPILER, "bench/peers/")
LOGGED = {"warn", "warning"}


def template(node: ast.expr, module: object) -> str:
    """The text of a message, with `GAP` for what is known only when it is written."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(value, module) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left, module) + template(node.right, module)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        node = node.func.value
    found = getattr(module, node.id, None) if isinstance(node, ast.Name) else None
    return re.sub(r"\{.*?\}", GAP, found) if isinstance(found, str) else GAP


def messages() -> Iterator[tuple[str, str, str]]:
    """File, class of the error (or how it is logged), and text, of each that the package writes."""
    for file in sorted(SOURCES.rglob("*.py")):
        inside = file.relative_to(SOURCES)
        parts = inside.with_suffix("").parts
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args and not str(inside).startswith(LEFT_OUT):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name.endswith("Error") or name in LOGGED:
                    module = importlib.import_module(".".join(["hf_tle_int8", *(p for p in parts if p != "__init__")]))
                    yield str(inside), name, re.sub(r"%\w", GAP, template(node.args[0], module))


def shown(tables: str) -> list[str]:
    """The messages in the first columns."""
    cells = re.findall(r"^\| (`.*?) \|", tables, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell) if message not in BY_CLASS]


def says(shown_as: str, text: str) -> bool:
    """Whether the text of a message is what the page shows, where … stands for anything."""
    return re.search(".*".join(map(re.escape, shown_as.split("…"))), text, re.DOTALL) is not None


OURS = PAGE[PAGE.index("## Options") : PAGE.index("## Messages of other libraries")]
SHOWN = shown(OURS)
# Those of a few letters hold another message, or are Python's own words for an attribute that there is not.
MESSAGES = [found for found in messages() if len(found[2].replace(GAP, "")) > 10 and found[1] not in PARTS | BY_CLASS]


def test_each_message_is_explained():
    missing = [found for found in MESSAGES if not any(says(message, found[2]) for message in SHOWN)]
    assert not missing, "\n".join(f"{file}: {name}: {text}" for file, name, text in missing)


def test_each_row_is_a_message():
    texts = [text for _, _, text in MESSAGES]
    assert [message for message in SHOWN if not any(says(message, text) for text in texts)] == []


def test_rows_of_ours_tell_something():
    assert [message for message in SHOWN if len(message.replace("…", "").strip()) < 8] == []
    assert all(f"`{name}`" in PAGE for name in BY_CLASS)


def test_classes_of_errors_are_named():
    tree = ast.parse((SOURCES / "errors.py").read_text())
    assert [node.name for node in tree.body if isinstance(node, ast.ClassDef) and f"{node.name}`" not in PAGE] == []
