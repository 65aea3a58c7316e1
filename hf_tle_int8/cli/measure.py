"""Measuring and formatting that the commands share."""

import time
from collections.abc import Callable
from typing import TypeVar

from torch import nn

_Result = TypeVar("_Result")


def timed(task: Callable[[], _Result]) -> tuple[_Result, float]:
    """Run ``task``; returns its result and the seconds it took."""
    start = time.perf_counter()
    result = task()
    return result, time.perf_counter() - start


def parameter_bytes(model: nn.Module) -> int:
    """The bytes of all parameters and buffers of ``model``, shared ones counted once."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.nbytes for tensor in tensors.values())


def megabytes(size: int) -> str:
    """``size`` bytes in MB (10**6 bytes)."""
    return f"{size / 1e6:.1f} MB"
