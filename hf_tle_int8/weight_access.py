"""Which linears have their weight read by model code, rather than being called.

A layer whose parent computes with ``self.proj.weight`` itself (``F.linear(x, self.proj.weight)``,
``x.to(self.proj.weight.dtype)``) cannot hold int8 codes: the parent would compute on them, in the worst case without
an error. The source of each module's class tells.
"""

import ast
import functools
import inspect
import logging
import re
import sys
from dataclasses import dataclass, field

from torch import nn

logger = logging.getLogger(__name__)

# Functions that run before or beside inference, and attributes that are the same for codes.
_HARMLESS_FUNCTIONS = re.compile(r"init|tie_weights|resize|reset_parameters")
_HARMLESS_ATTRIBUTES = ("device", "shape")

# Base classes that never compute with a weight of a layer below them; the second has 5000 lines to parse.
_BASE_MODULES = ("torch.nn.modules.module", "transformers.modeling_utils")


@dataclass
class _Accesses:
    """What the methods of one class read.

    Attributes:
        paths: dotted paths ``p`` for which a method reads ``self.p.weight``.
        names: names ``n`` for which other expressions end in ``.n.weight``, such as ``block.n.weight``.
    """

    paths: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


class _Collector(ast.NodeVisitor):
    """Collects the accesses of each class in a Python module; functions outside of classes do not count."""

    def __init__(self) -> None:
        self.classes: dict[str, _Accesses] = {}
        self._class: _Accesses | None = None

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._class = self._class, self.classes.setdefault(node.name, _Accesses())
        self.generic_visit(node)
        self._class = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if self._class is not None and not _HARMLESS_FUNCTIONS.search(node.name):
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        inner = node.value
        if node.attr in _HARMLESS_ATTRIBUTES and isinstance(inner, ast.Attribute) and inner.attr == "weight":
            return
        if node.attr == "weight" and isinstance(node.ctx, ast.Load) and self._class is not None:
            self._record(self._class, inner)
        self.generic_visit(node)

    def _record(self, accesses: _Accesses, holder: ast.expr) -> None:
        path: list[str] = []
        while isinstance(holder, ast.Attribute):
            path.insert(0, holder.attr)
            holder = holder.value
        if not path:
            return
        if isinstance(holder, ast.Name) and holder.id == "self":
            accesses.paths.add(".".join(path))
        else:
            accesses.names.add(path[-1])


@functools.lru_cache(maxsize=256)
def _accesses_in(module_name: str) -> dict[str, _Accesses]:
    try:
        source = inspect.getsource(sys.modules[module_name])
    except (OSError, TypeError, KeyError):
        # Defined in an interactive session or in a compiled module.
        logger.warning(
            "the source of %r cannot be read. If its modules compute with the weight of a linear themselves, instead "
            "of calling the linear, they would compute on int8 codes: skip such layers by name.",
            module_name,
        )
        return {}
    collector = _Collector()
    collector.visit(ast.parse(source))
    return collector.classes


def weights_read_by_code(model: nn.Module) -> set[str]:
    """The names of the modules of ``model`` whose ``weight`` is read by the code of a module around them."""
    names: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        dotted = f"{prefix}." if prefix else ""
        for cls in type(module).__mro__:
            if not issubclass(cls, nn.Module) or cls.__module__ in _BASE_MODULES:
                continue
            accesses = _accesses_in(cls.__module__).get(cls.__name__, _Accesses())
            names |= {dotted + path for path in accesses.paths}
            if accesses.names:
                inside = (name for name, _ in module.named_modules(remove_duplicate=False))
                names |= {dotted + name for name in inside if name.rpartition(".")[2] in accesses.names}
    return names
