"""Which classes compute a linear and nothing else, by their source.

A subclass of ``nn.Linear`` may do more than multiply, and GPT-2's ``Conv1D`` is no ``nn.Linear`` although it is a
linear: the source of ``forward`` tells. It must be one of the forms below, up to the names of its variables, its
annotations and its docstring.
"""

import ast
import enum
import functools
import inspect
import textwrap
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Orientation(enum.Enum):
    """The shape of the weight of a float linear."""

    OUT_IN = "[N, K]"
    IN_OUT = "[K, N]"


_FORMS = {
    Orientation.OUT_IN: (
        "def forward(self, x): return linear(x, self.weight, self.bias)",
        "def forward(self, x): return super().forward(x)",
        """
def forward(self, x):
    y = x @ self.weight.T
    if self.bias is None:
        return y
    return y + self.bias
""",
    ),
    Orientation.IN_OUT: (
        """
def forward(self, x):
    shape = x.size()[:-1] + (self.nf,)
    x = addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
    x = x.view(shape)
    return x
""",
    ),
}

# What a form calls by a bare name, and the functions that stand for it however they were imported.
_FUNCTIONS = {functional.linear: "linear", torch.addmm: "addmm"}

# What a class may define beside its forward without changing what is computed, stored or loaded.
_HARMLESS = {"forward", "extra_repr", "reset_parameters"}
_HARMFUL_DUNDERS = {"__call__", "__getattr__", "__getattribute__", "__new__"}


@functools.lru_cache(maxsize=256)
def orientation(cls: Any) -> Orientation | None:
    """How ``cls`` holds the weight of the linear that it computes; None where its source does not show one.

    For ``nn.Linear``, its subclasses whose own methods are known to add nothing, and classes such as ``Conv1D`` of
    transformers.
    """
    if cls is nn.Linear:
        return Orientation.OUT_IN
    parent = cls.__bases__[0] if len(cls.__bases__) == 1 else None
    if parent is None or not issubclass(parent, nn.Module) or _changes_more_than_forward(cls):
        return None
    if parent is nn.Module:
        found = _orientation_of(vars(cls).get("forward"))
        return found if found is Orientation.IN_OUT else None
    inherited = orientation(parent)
    if inherited is None or "forward" not in vars(cls):
        return inherited
    return inherited if _orientation_of(vars(cls)["forward"]) is inherited else None


def _changes_more_than_forward(cls: type) -> bool:
    names = {name for name in vars(cls) if not (name.startswith("__") and name.endswith("__"))}
    return not names <= _HARMLESS or not _HARMFUL_DUNDERS.isdisjoint(vars(cls))


def _orientation_of(forward: Any) -> Orientation | None:
    try:
        source = textwrap.dedent(inspect.getsource(forward))
    except (OSError, TypeError):
        # Defined in an interactive session or in a compiled module: nothing is proved.
        return None
    if not inspect.isfunction(forward) or not set(forward.__code__.co_freevars) <= {"__class__"}:
        return None
    found = _canonical(source, forward.__globals__)
    return next((o for o, forms in _FORMS.items() if found in [_canonical(form, {}) for form in forms]), None)


def _canonical(source: str, names: dict[str, Any]) -> str | None:
    """The syntax tree of a function as text that is the same for all namings of its arguments and variables."""
    (function,) = ast.parse(source).body
    if not isinstance(function, ast.FunctionDef) or function.decorator_list:
        return None
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:]
    given = function.args
    if len(given.args) != 2 or any((given.posonlyargs, given.vararg, given.kwonlyargs, given.kwarg, given.defaults)):
        return None
    local = [argument.arg for argument in given.args]
    local += [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    renamed = {name: f"v{index}" for index, name in enumerate(dict.fromkeys(local))}
    body = [_Renamer(renamed, names).visit(statement) for statement in function.body]
    return "\n".join(ast.dump(statement) for statement in body)


class _Renamer(ast.NodeTransformer):
    """Gives variables the names ``v0``, ``v1``, …, known functions of torch bare names and other globals a mark."""

    def __init__(self, renamed: dict[str, str], names: dict[str, Any]) -> None:
        self._renamed = renamed
        self._globals = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id in self._renamed:
            return ast.Name(self._renamed[node.id], node.ctx)
        unknown = f"global {node.id}" if node.id in self._globals else node.id
        return ast.Name(self._known(node) or unknown, node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        known = self._known(node)
        return self.generic_visit(node) if known is None else ast.Name(known, node.ctx)

    def _known(self, node: ast.expr) -> str | None:
        first, *rest = ast.unparse(node).split(".")
        if first in self._renamed or first not in self._globals:
            return None
        value = self._globals[first]
        for part in rest:
            value = getattr(value, part, None)
        return next((name for function, name in _FUNCTIONS.items() if value is function), None)
