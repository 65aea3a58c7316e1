"""Timing several tasks fairly: in rounds, each in another order, so that a disturbance meets all of them."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

# More than the last-level cache of the machines that one linear is timed on.
_FLUSHED_BYTES = 128 << 20

# A task that finds its data in the caches is called for so long before it is timed, and while it is.
_HOT_SECONDS = 2e-3

Task = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of a call: the least and the median of all that were timed."""

    minimum: float
    median: float


class Flush:
    """Calling it reads 128 MB, after which nothing else is in the caches."""

    def __init__(self) -> None:
        self._memory = torch.ones(_FLUSHED_BYTES // 8, dtype=torch.int64)

    def __call__(self) -> None:
        """Read."""
        self._memory.sum()


def seconds(task: Task) -> float:
    """How long one call of ``task`` takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def interleaved(
    tasks: Mapping[str, Task], rounds: int, before: Callable[[str], object] | None = None, seed: int = 0
) -> dict[str, Times]:
    """Time each task in rounds, in an order shuffled anew for each.

    Args:
        tasks: by name.
        rounds: at least 1.
        before: called with the name of the task before its one timed call of a round. Without it, the task itself is
            called for two milliseconds, at least once, and then timed call by call for as long: its data and its code
            are in the caches.
        seed: of the orders.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds: at least one is needed to time anything.")
    order, found = list(tasks), {name: [0.0] * 0 for name in tasks}
    shuffle = random.Random(seed).shuffle
    for task in tasks.values():
        task()
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            if before is None:
                found[name] += _hot(tasks[name])
            else:
                before(name)
                found[name].append(seconds(tasks[name]))
    return {name: Times(min(times), statistics.median(times)) for name, times in found.items()}


def _hot(task: Task) -> list[float]:
    for _ in range(2):
        times = [seconds(task)]
        while sum(times) < _HOT_SECONDS:
            times.append(seconds(task))
    return times
