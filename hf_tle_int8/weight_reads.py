"""Which weights the source of a class or of a function reads: expressions such as ``self.blocks[0].proj.weight``.

A read is a path of names from where it starts, see `code_paths`.
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

from hf_tle_int8.code_paths import Path, Scope, called

logger = logging.getLogger(__name__)

# Functions that run before or beside inference, and attributes that are the same for codes.
_HARMLESS_FUNCTIONS = re.compile(r"init|tie_weights|resize|reset_parameters")
_HARMLESS_ATTRIBUTES = ("device", "shape")


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
        self._scope: Scope | None = None

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._reads = self._reads, self.found.setdefault(node.name, Reads())
        scope, self._scope = self._scope, None
        self.generic_visit(node)
        self._reads, self._scope = outer, scope

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, scope = self._reads, self._scope
        if outer is None:
            self._reads = self.found.setdefault(node.name, Reads())
        if not _HARMLESS_FUNCTIONS.search(node.name):
            self._scope = Scope() if scope is None else scope.inner(node)
            if outer is not None and scope is None and node.args.args and not _is_static(node):
                self._scope.aliases[node.args.args[0].arg] = {("self",)}
            self.generic_visit(node)
        self._reads, self._scope = outer, scope

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assign(target, node.value)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._assign(node.target, node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._loop(node.target, node.iter)
        self.generic_visit(node)

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        for loop in node.generators:
            self._loop(loop.target, loop.iter)
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        inner = node.value
        if node.attr in _HARMLESS_ATTRIBUTES and isinstance(inner, ast.Attribute) and inner.attr == "weight":
            return
        if isinstance(node.ctx, ast.Load):
            self._read(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        inner = node.value
        if called(inner) == "dict" and inner.args:  # type: ignore[attr-defined]
            inner = inner.args[0]  # type: ignore[attr-defined]
        if called(inner) in ("state_dict", "named_parameters"):
            inner = inner.func  # type: ignore[attr-defined]
        if isinstance(inner, ast.Attribute) and inner.attr in ("_parameters", "state_dict", "named_parameters"):
            self._read(ast.Subscript(inner.value, node.slice), dotted=True)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if self._reads is not None and self._scope is not None:
            self._visit_arguments(node, self._reads, self._scope)
        self.generic_visit(node)

    def _visit_arguments(self, node: ast.Call, reads: Reads, scope: Scope) -> None:
        function, arguments, name = node.func, node.args, called(node)
        if name == "getattr" and len(arguments) > 1:
            self._read(node)
        elif name == "get_parameter" and isinstance(function, ast.Attribute) and arguments:
            self._read(ast.Subscript(function.value, arguments[0]), dotted=True)
        elif name == "map" and arguments and isinstance(arguments[0], ast.Lambda):
            for argument, source in zip(arguments[0].args.args, arguments[1:], strict=False):
                scope.loop(ast.Name(argument.arg), source)
        elif name == "partial" and arguments:
            function, *arguments = arguments
        if isinstance(function, ast.Lambda):
            for argument, value in zip(function.args.args, arguments, strict=False):
                scope.assign(ast.Name(argument.arg), value)
            return
        shown = ".".join(next(iter(scope.paths(function)), ())) or ast.unparse(function)
        places: list[tuple[int | str, ast.expr]] = [*enumerate(arguments)]
        places += [(keyword.arg or "", keyword.value) for keyword in node.keywords]
        reads.calls |= {(shown, place, path) for place, value in places for path in scope.paths(value)}

    def _read(self, node: ast.expr, dotted: bool = False) -> None:
        """Note that ``node`` is read, if it may be a weight; ``dotted`` if its key may be of a module inside."""
        if self._reads is not None and self._scope is not None:
            for path in self._scope.paths(node):
                if path[-1] == "weight" or (dotted and path[-1] == "*"):
                    self._reads.paths.add(path[:-1])

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if self._scope is not None:
            self._scope.assign(target, value)

    def _loop(self, target: ast.expr, source: ast.expr) -> None:
        if self._scope is not None:
            self._scope.loop(target, source)


def _is_static(node: ast.FunctionDef) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "staticmethod" for decorator in node.decorator_list)


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
    owner = namespace.get(class_name)
    handed = set()
    for name, place, path in reads.calls:
        if name.startswith("self."):
            # What a method of this class reads of its own variables is among `reads` already.
            inner = _method_reads(owner, name.removeprefix("self."), place) if path[0] == "self" else set()
        else:
            function = _function(name, namespace)
            inner = set() if function is None else _function_reads(function).get(place, set())
        handed |= {(*path, *further) for further in inner}
    return frozenset({*reads.paths, *handed})


def _method_reads(owner: Any, name: str, place: int | str) -> set[Path]:
    """As `_function_reads`, of the method ``name`` of a class, for an argument that it is handed beside ``self``."""
    method = _function(name, {name: getattr(owner, name, None)})
    if method is None:
        return set()
    before = 0 if isinstance(inspect.getattr_static(owner, name), staticmethod) else 1
    return _function_reads(method).get(place + before if isinstance(place, int) else place, set())


def _function(name: str, namespace: dict[str, Any]) -> Callable[..., Any] | None:
    """The Python function that ``name`` means, unless it is one of torch's or a lambda."""
    first, *rest = name.split(".")
    value = namespace.get(first)
    for part in rest:
        value = getattr(value, part, None)
    readable = inspect.isfunction(value) and value.__name__.isidentifier() and not value.__module__.startswith("torch.")
    return value if readable else None
