"""Doing something to a module as soon as it has been imported, whoever imports it and whenever."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Action = Callable[[ModuleType], None]


def after_import(name: str, action: Action) -> None:
    """Call ``action`` with the module ``name``: at once where it is imported, else right after its code has run.

    Waits for another thread that is importing the module. Where this thread itself is in the middle of that import,
    the action runs when the next module of the same package is imported.

    Args:
        name: of the module, with its packages; it is not imported for this.
        action: what to do. It runs once, or again where it raised or where threads import at the same time.

    Raises:
        Exception: what ``action`` raises. Where it is called later, the import that called it fails.
    """
    finder = _Finder(name, action)
    # Before looking whether it is imported: another thread may be about to start.
    sys.meta_path.insert(0, finder)
    if name in sys.modules:
        __import__(name)  # waits
        if _is_imported(name):
            finder.idle = True
            action(sys.modules[name])


def _is_imported(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


class _Finder(MetaPathFinder):
    """Finds what the other finders do, but has ``action`` called with the module ``name``.

    Attributes:
        idle: whether it does nothing (more). It stays among the finders, where another thread may be looking.
    """

    def __init__(self, name: str, action: Action):
        self._name = name
        self._action = action
        self.idle = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.idle:
            return None
        if fullname == self._name:
            return self._watched_spec(path, target)
        if fullname.startswith(self._name.partition(".")[0]) and _is_imported(self._name):
            self._act(sys.modules[self._name])
        return None

    def _watched_spec(self, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        finders = (finder for finder in others if hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(self._name, path, target) for finder in finders)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._act)
        return spec

    def _act(self, module: ModuleType) -> None:
        self.idle = True  # for what the action itself imports
        try:
            self._action(module)
        except BaseException:
            self.idle = False
            raise


class _Loader(Loader):
    """Loads as ``loader`` does, then acts; the module shows ``loader`` as its own."""

    def __init__(self, loader: Loader, action: Action):
        self._loader = loader
        self._action = action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._action(module)
