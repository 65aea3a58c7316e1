"""Asking modules around INT8 layers to train: refused with a reason, before any of their parameters has changed.

``nn.Module.requires_grad_`` asks each parameter below it without asking the modules that hold them, so that it is
wrapped itself, once, when INT8 layers are first imported.
"""

import functools
from typing import Any

from torch import nn

from hf_tle_int8.errors import UnsupportedTrainingError
from hf_tle_int8.nn.linear import NOT_TRAINABLE

_MARK = "_tle_int8_wrapped"


def guard(int8_layers: tuple[type[nn.Module], ...]) -> None:
    """Let ``requires_grad_(True)`` raise `UnsupportedTrainingError` on modules that hold any of ``int8_layers``."""
    original: Any = nn.Module.requires_grad_
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def requires_grad_(self: nn.Module, requires_grad: bool = True) -> nn.Module:
        if requires_grad and any(isinstance(module, int8_layers) for module in self.modules()):
            raise UnsupportedTrainingError(NOT_TRAINABLE.format(f"{type(self).__name__} with INT8 layers"))
        return original(self, requires_grad)

    setattr(requires_grad_, _MARK, True)
    nn.Module.requires_grad_ = requires_grad_  # type: ignore[assignment, method-assign]
