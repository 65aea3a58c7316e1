"""What expressions in the source of a model stand for: paths of names such as ``("self", "blocks", "*", "proj")``.

``*`` stands for an index or a name that is not in the source.
"""

import ast

# From a name on.
Path = tuple[str, ...]

_ANY = "*"
# Calls that give what they are given, in another order or container.
_SAME = frozenset({"iter", "list", "reversed", "sorted", "tuple"})
# Methods of containers of modules, each of which is looped over by the names or the modules in it.
_MODULES, _NAMED = frozenset({"children", "values"}), frozenset({"items", "named_children"})


class Scope:
    """The variables of a function, as far as assignments and loops tell what they stand for."""

    def __init__(self, aliases: dict[str, set[Path]] | None = None):
        self.aliases: dict[str, set[Path]] = dict(aliases or {})

    def inner(self, function: ast.FunctionDef | ast.Lambda) -> "Scope":
        """The scope of a function inside of this one, of whose arguments nothing is known."""
        own = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
        return Scope({name: paths for name, paths in self.aliases.items() if name not in own})

    def paths(self, node: ast.expr) -> set[Path]:
        """What ``node`` may stand for: one path, more where a variable is assigned more than once, or none."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, {(node.id,)})
        if isinstance(node, ast.Attribute):
            return {(*path, node.attr) for path in self.paths(node.value)}
        if isinstance(node, ast.Subscript):
            return self.paths(node.value) if isinstance(node.slice, ast.Slice) else self._inside(node.value, node.slice)
        if isinstance(node, ast.NamedExpr):
            return self.paths(node.value)
        if isinstance(node, ast.IfExp):
            return self.paths(node.body) | self.paths(node.orelse)
        return self._of_call(node) if isinstance(node, ast.Call) else set()

    def _of_call(self, call: ast.Call) -> set[Path]:
        name = called(call)
        if name == "getattr" and len(call.args) > 1:
            return self._inside(*call.args[:2])
        if name == "get_submodule" and isinstance(call.func, ast.Attribute) and call.args:
            return self._inside(call.func.value, call.args[0])
        return self.paths(call.args[0]) if name in _SAME and call.args else set()

    def _inside(self, node: ast.expr, key: ast.expr) -> set[Path]:
        parts = str(key.value).split(".") if isinstance(key, ast.Constant) else [_ANY]
        return {(*path, *parts) for path in self.paths(node)}

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        """Note what ``target`` stands for, beside what it stood for."""
        if isinstance(target, ast.Name):
            if paths := self.paths(value):
                self.aliases[target.id] = self.aliases.get(target.id, set()) | paths
        elif isinstance(target, ast.Tuple | ast.List):
            several = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            for place, part in enumerate(target.elts):
                self.assign(part, value.elts[place] if several else _item(value))  # type: ignore[attr-defined]

    def loop(self, target: ast.expr, source: ast.expr) -> None:
        """Note what ``target`` stands for in a loop over ``source``."""
        name, several = called(source), isinstance(target, ast.Tuple) and len(target.elts) > 1
        if isinstance(source, ast.Tuple | ast.List):
            for element in source.elts:
                self.assign(target, element)
        elif isinstance(source, ast.Call) and name == "zip" and isinstance(target, ast.Tuple):
            for part, zipped in zip(target.elts, source.args, strict=False):
                self.loop(part, zipped)
        elif isinstance(source, ast.Call) and name == "enumerate" and isinstance(target, ast.Tuple) and source.args:
            self.loop(target.elts[-1], source.args[0])
        elif isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute) and name in _MODULES:
            self.assign(target, _item(source.func.value))
        elif isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute) and name in _NAMED and several:
            self.assign(target.elts[-1], _item(source.func.value))  # type: ignore[attr-defined]
        else:
            self.assign(target, _item(source))


def called(node: ast.expr) -> str | None:
    """The last name of what ``node`` calls; None where it is no call, or calls no name."""
    if not isinstance(node, ast.Call):
        return None
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)


def _item(node: ast.expr) -> ast.expr:
    return ast.Subscript(node, ast.Name(_ANY))
