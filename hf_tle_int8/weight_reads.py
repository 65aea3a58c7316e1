"""Which weights the source of a class or of a function reads: expressions such as ``self.blocks[0].proj.weight``.

A read is a path of names from where it starts, ``*`` for an index that is not in the source.
"""

import ast
import functools
import inspect
import logging
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

# Functions that run before or beside inference, and attributes that are the same for codes.
_HARMLESS_FUNCTIONS = re.compile(r"init|tie_weights|resize|reset_parameters")
_HARMLESS_ATTRIBUTES = ("device", "shape")

# From a name, such as ("self", "blocks", "0", "proj").
Path = tuple[str, ...]


@dataclass
class Reads:
    """What a class or a function reads.

    Attributes:
        paths: the paths ``p`` for which ``p.weight`` is read.
        calls: functions that are called with modules: the function as in the source, the place or the name of the
            argument, and the path of the module.
    """

    paths: set[Path] = field(default_factory=set)
    calls: set[tuple[str, int | str, Path]] = field(default_factory=set)


class _Collector(ast.NodeVisitor):
    """Collects the reads of each class in a Python module, and of each function outside of classes."""

    def __init__(self) -> None:
        self.found: dict[str, Reads] = {}
        self._reads: Reads | None = None
        self._aliases: dict[str, set[Path]] = {}

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._reads = self._reads, self.found.setdefault(node.name, Reads())
        self.generic_visit(node)
        self._reads = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self._reads
        if outer is None:
            self._reads = self.found.setdefault(node.name, Reads())
        if not _HARMLESS_FUNCTIONS.search(node.name):
            aliases, self._aliases = self._aliases, {}
            self.generic_visit(node)
            self._aliases = aliases
        self._reads = outer

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._alias(target, node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        target, source = node.target, node.iter
        if isinstance(source, ast.Call) and ast.unparse(source.func) == "enumerate" and isinstance(target, ast.Tuple):
            target, source = target.elts[-1], source.args[0]
        self._alias(target, ast.Subscript(source, ast.Name("i")))
        self.generic_visit(node)

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        for loop in node.generators:
            self._alias(loop.target, ast.Subscript(loop.iter, ast.Name("i")))
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        inner = node.value
        if node.attr in _HARMLESS_ATTRIBUTES and isinstance(inner, ast.Attribute) and inner.attr == "weight":
            return
        if node.attr == "weight" and isinstance(node.ctx, ast.Load) and self._reads is not None:
            self._reads.paths |= self._paths(inner)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if self._reads is not None:
            function = ast.unparse(node.func)
            places: list[tuple[int | str, ast.expr]] = [*enumerate(node.args)]
            places += [(keyword.arg or "", keyword.value) for keyword in node.keywords]
            self._reads.calls |= {(function, place, path) for place, value in places for path in self._paths(value)}
        self.generic_visit(node)

    def _alias(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name) and (paths := self._paths(value)):
            self._aliases[target.id] = self._aliases.get(target.id, set()) | paths

    def _paths(self, node: ast.expr) -> set[Path]:
        """What ``node`` may stand for: one path, more where a variable is assigned more than once, or none."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id, {(node.id,)})
        if isinstance(node, ast.Attribute):
            return {(*path, node.attr) for path in self._paths(node.value)}
        if isinstance(node, ast.Subscript):
            index = node.slice.value if isinstance(node.slice, ast.Constant) else "*"
            return {(*path, str(index)) for path in self._paths(node.value)}
        return set()


def _collected(of: Any, name: str) -> dict[str, Reads]:
    """The reads of each class and function in the source of a Python module or of a function."""
    try:
        source = inspect.getsource(of)
    except (OSError, TypeError):
        # Defined in an interactive session or in a compiled module.
        logger.warning(
            "the source of %r cannot be read. If its modules compute with the weight of a linear themselves, instead "
            "of calling the linear, they would compute on int8 codes: skip such layers by name.",
            name,
        )
        return {}
    collector = _Collector()
    collector.visit(ast.parse(textwrap.dedent(source)))
    return collector.found


@functools.lru_cache(maxsize=256)
def _module_reads(name: str) -> dict[str, Reads]:
    return _collected(sys.modules.get(name), name)


@functools.lru_cache(maxsize=1024)
def _function_reads(function: Callable[..., Any]) -> dict[int | str, set[Path]]:
    """By the place and by the name of each argument: from it on, the paths whose weight ``function`` reads."""
    reads = _collected(function, function.__qualname__).get(function.__name__, Reads())
    return {
        key: {path[1:] for path in reads.paths if path[0] == name}
        for place, name in enumerate(inspect.signature(function).parameters)
        for key in (place, name)
    }


@functools.lru_cache(maxsize=1024)
def reads_of(module_name: str, class_name: str) -> frozenset[Path]:
    """The paths whose weight the class reads, itself or by a function that it hands a module to."""
    reads = _module_reads(module_name).get(class_name, Reads())
    namespace = vars(sys.modules[module_name]) if module_name in sys.modules else {}
    handed = (
        (*path, *inner)
        for name, place, path in reads.calls
        if (function := _function(name, namespace)) is not None
        for inner in _function_reads(function).get(place, ())
    )
    return frozenset({*reads.paths, *handed})


def _function(name: str, namespace: dict[str, Any]) -> Callable[..., Any] | None:
    """The Python function that ``name`` means, unless it is one of torch's or a lambda."""
    first, *rest = name.split(".")
    value = namespace.get(first)
    for part in rest:
        value = getattr(value, part, None)
    readable = inspect.isfunction(value) and value.__name__.isidentifier() and not value.__module__.startswith("torch.")
    return value if readable else None
