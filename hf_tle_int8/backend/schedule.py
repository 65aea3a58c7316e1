"""How the programs of a grid are divided among threads, decided once per process.

``even``: each thread has the same number of programs. ``dynamic``: threads take chunks until none is left, so that a
slow core takes fewer; see `workers`. Linux tells cores of unlike speed apart by ``cpu_capacity`` (its
Documentation/scheduler/sched-capacity.rst). On hybrid x86 that is missing in older releases, and the same for all where
cores have two threads; but each kind of core has a performance-monitoring unit (``intel_hybrid_pmu_type_map`` in
Linux's arch/x86/events/intel/core.c).
"""

import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

EVEN, DYNAMIC = "even", "dynamic"
# Names the schedule to use instead of the one that suits the CPUs.
VARIABLE = "HF_TLE_INT8_SCHEDULE"

_HYBRID = ("cpu_core", "cpu_atom", "cpu_lowpower")


@dataclass(frozen=True)
class Schedule:
    """A schedule and why it holds.

    Attributes:
        name: `EVEN` or `DYNAMIC`.
        reason: for people.
    """

    name: str
    reason: str


@functools.cache
def current() -> Schedule:
    """The schedule of this process: what ``HF_TLE_INT8_SCHEDULE`` names, or else `suited_to` the CPUs that it may use.

    Raises:
        ValueError: the variable names no schedule.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return suited_to(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    if name not in (EVEN, DYNAMIC):
        raise ValueError(
            f"{VARIABLE}={name}: there is no such schedule. Choose {EVEN} or {DYNAMIC}, or unset {VARIABLE} for the "
            "one that suits the CPUs."
        )
    return Schedule(name, f"{VARIABLE} is set")


def suited_to(cpus: Iterable[int], sysfs: Path = Path("/sys")) -> Schedule:
    """`DYNAMIC` for CPUs of more than one kind, else `EVEN`.

    Args:
        cpus: numbers of those that threads may run on.
        sysfs: where the kernel describes them.
    """
    kinds = _kinds(cpus, sysfs)
    if len(kinds) > 1:
        counts = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        return Schedule(DYNAMIC, f"usable CPUs are unlike: {counts}")
    return Schedule(EVEN, f"usable CPUs are alike: {', '.join(kinds)}")


def _kinds(cpus: Iterable[int], sysfs: Path) -> Counter[str]:
    hybrid = {cpu: name for name in _HYBRID for cpu in _listed(sysfs / "devices" / name / "cpus")}

    def kind(cpu: int) -> str:
        path = sysfs / f"devices/system/cpu/cpu{cpu}/cpu_capacity"
        capacity = f"capacity {path.read_text().strip()}" if path.exists() else "unknown capacity"
        return f"{hybrid[cpu]} with {capacity}" if cpu in hybrid else capacity

    return Counter(map(kind, cpus))


def _listed(path: Path) -> Iterator[int]:
    """The CPUs in a list such as ``0-7,16``; none where there is no such file or it is empty."""
    for span in path.read_text().strip().split(",") if path.exists() else []:
        first, _, last = span.partition("-")
        if first:
            yield from range(int(first), int(last or first) + 1)
