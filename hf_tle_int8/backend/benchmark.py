"""Timing on CPUs, in the shape that Triton's autotuner and ``triton.testing`` expect. Times are in milliseconds."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

_MODES: dict[str, Callable[[list[float]], Any]] = {
    "min": min,
    "max": max,
    "mean": statistics.fmean,
    "median": statistics.median,
    "all": list,
}


class Event:
    """A point in time, as ``torch.cuda.Event``."""

    def __init__(self, enable_timing: bool = True):
        self.seconds = math.nan

    def record(self, stream: Any = None) -> None:
        """Take the time."""
        self.seconds = time.perf_counter()

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds from here to ``end``."""
        return 1e3 * (end.seconds - self.seconds)

    def synchronize(self) -> None:
        """Nothing: kernels have ended when a launch returns."""


class DeviceInterface:
    """The part of ``torch.cuda`` that Triton uses, for the one CPU."""

    Event = Event

    @staticmethod
    def synchronize(device: Any = None) -> None:
        """Nothing: kernels have ended when a launch returns."""

    @staticmethod
    def current_device() -> int:
        """The number of the CPU."""
        return 0


def do_bench(
    fn: Callable[[], Any],
    warmup: float = 25,
    rep: float = 100,
    grad_to_none: Sequence[Any] | None = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
) -> Any:
    """The time that a call of ``fn`` takes, with warm caches.

    Args:
        fn: what to time.
        warmup: for how long to run it beforehand, in ms; at least once.
        rep: for how long to time it, in ms; at least once.
        grad_to_none: tensors whose gradient is dropped before each call.
        quantiles: of the times of single calls; one result each.
        return_mode: ``min``, ``max``, ``mean``, ``median`` or ``all``, where there are no quantiles.

    Raises:
        ValueError: there is no such mode.
    """
    if return_mode not in _MODES:
        raise ValueError(f"return_mode={return_mode!r} is unknown. Choose of {', '.join(_MODES)}.")
    _times(fn, warmup, grad_to_none)
    times = _times(fn, rep, grad_to_none)
    if quantiles is None:
        return _MODES[return_mode](times)
    found = [_quantile(times, quantile) for quantile in quantiles]
    return found[0] if len(found) == 1 else found


def _times(fn: Callable[[], Any], budget: float, grad_to_none: Sequence[Any] | None) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + budget / 1e3
    while not times or time.perf_counter() < end:
        for tensor in grad_to_none or ():
            tensor.grad = None
        start = time.perf_counter()
        fn()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _quantile(times: list[float], quantile: float) -> float:
    """Interpolated linearly, as ``torch.quantile`` does."""
    ordered = sorted(times)
    position = quantile * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
