"""Which linears a module calls with one and the same input: q, k and v of an attention, gate and up of an MLP.

Found in the source of the module's ``forward``, whatever the model: calls of its submodules with one variable, in
statements that follow each other and do nothing else with that variable.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import nn

from hf_tle_int8.activations import Reader, SharedInput
from hf_tle_int8.nn import TLEInt8Linear
from hf_tle_int8.nn.conv1d import is_linear

_SIMPLE = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Return)
# Of a variable, what tells of it without touching its memory.
_HARMLESS = ("shape", "dtype", "device", "ndim")


def share_inputs(model: nn.Module) -> None:
    """Let the INT8 linears of ``model`` that read one input quantize it once; results stay the same.

    A layer that is called anywhere else, with another input, or again, quantizes for itself.
    """
    for module in model.modules():
        if isinstance(module, TLEInt8Linear):
            module.__dict__.pop("_reader", None)
    for module in model.modules():
        for paths in _readers_of_one_variable(inspect.unwrap(type(module).forward)):
            for layers in _groups(module, paths):
                shared = SharedInput(type(module), len(layers))
                for number, layer in enumerate(layers):
                    layer._reader = Reader(shared, 1 << number)


def _groups(module: nn.Module, paths: tuple[str, ...]) -> Iterator[list[TLEInt8Linear]]:
    """The INT8 linears at ``paths`` that nothing else is called between which may write into their input."""
    groups: list[dict[int, TLEInt8Linear]] = [{}]
    for path in paths:
        found: Any = module
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, TLEInt8Linear):
            groups[-1][id(found)] = found
        elif found is not None and not (isinstance(found, nn.Module) and is_linear(found)):
            groups.append({})
    return (list(group.values()) for group in groups if len(group) > 1)


@functools.lru_cache(maxsize=1024)
def _readers_of_one_variable(forward: Any) -> tuple[tuple[str, ...], ...]:
    """The paths below ``self`` that are called with one variable, for each such variable."""
    try:
        source = textwrap.dedent(inspect.getsource(forward))
        function = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        # Made by a program, or a lambda in the middle of a line: nothing is known, and nothing is shared.
        return ()
    found = []
    for node in ast.walk(function):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                found += list(_in_block(statements))
    return tuple(found)


def _in_block(statements: list[ast.stmt]) -> Iterator[tuple[str, ...]]:
    """See `_readers_of_one_variable`, in one list of statements."""
    reading: dict[str, list[str]] = {}
    for statement in statements:
        uses = _uses(statement) if isinstance(statement, _SIMPLE) else {}
        for variable in [name for name in reading if uses.get(name, []) is None or not isinstance(statement, _SIMPLE)]:
            yield tuple(reading.pop(variable))
        for variable, paths in uses.items():
            if paths:
                reading.setdefault(variable, []).extend(paths)
    yield from map(tuple, reading.values())


def _uses(statement: ast.stmt) -> dict[str, list[str] | None]:
    """For each variable of a statement the paths that are called with it; None if it is used in any other way."""
    uses: dict[str, list[str] | None] = {}
    harmless: set[ast.Name] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and node.attr in _HARMLESS and isinstance(node.value, ast.Name):
            harmless.add(node.value)
        if not (isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords):
            continue
        path, argument = _path_below_self(node.func), node.args[0]
        if path and isinstance(argument, ast.Name):
            harmless.add(argument)
            paths = uses.setdefault(argument.id, [])
            if paths is not None:
                paths.append(path)
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and node not in harmless:
            uses[node.id] = None
    return uses


def _path_below_self(function: ast.expr) -> str:
    """``a.b`` of ``self.a.b``; empty for other expressions."""
    names: list[str] = []
    while isinstance(function, ast.Attribute):
        names.insert(0, function.attr)
        function = function.value
    return ".".join(names) if isinstance(function, ast.Name) and function.id == "self" else ""
