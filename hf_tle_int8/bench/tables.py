"""The outcome of a benchmark as records, CSV, Markdown and a plot."""

import csv
import datetime
import importlib.metadata
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_tle_int8.bench.linear import Outcome, Result
from hf_tle_int8.report import environment

_LIBRARIES = ("torchao", "onnxruntime", "openvino", "llama_cpp_python")
# What keeps torch and OpenVINO from instructions that the CPU has.
_LIMIT = "ONEDNN_MAX_CPU_ISA"

# What every CSV says of where and when it was measured.
FACTS = ("date", "CPU", "features", "target of the kernels", "threads", "versions", "load average before")


@dataclass(frozen=True)
class Machine:
    """What results are shares of.

    Attributes:
        target: what the kernels were compiled for.
        threads: of torch.
        bandwidth: bytes a second that they read of memory.
        peak: int8 operations a second of the target's dot instruction on registers.
        load: how many processes wanted a CPU before the benchmark, on average of a minute.
    """

    target: str
    threads: int
    bandwidth: float
    peak: float
    load: float

    def facts(self) -> dict[str, str]:
        """Names and values to print."""
        return {
            **surroundings(self.threads, self.load),
            "target of the kernels": self.target,
            "memory is read at": f"{self.bandwidth / 1e9:.1f} GB/s",
            "int8 peak in registers": f"{self.peak / 1e9:.0f} GOPS",
        }


def surroundings(threads: int, load: float | None = None) -> dict[str, str]:
    """Names and values to print of where and when something is measured; each CSV has them in columns (`FACTS`).

    Args:
        threads: it runs on.
        load: how many processes wanted a CPU before it, on average of a minute; now, if None.
    """
    found = environment()
    versions = {name: found[name] for name in ("hf_tle_int8", "torch", "transformers", "triton", "llvmlite")}
    versions |= {name: importlib.metadata.version(name) for name in _LIBRARIES if _installed(name)}
    versions |= {_LIMIT: os.environ[_LIMIT]} if os.environ.get(_LIMIT) else {}
    values = (
        str(datetime.date.today()),
        f"{found['CPU']}, {os.cpu_count()} visible",
        found["CPU features"],
        found["kernels compiled for"].split(" (")[0],
        str(threads),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{os.getloadavg()[0] if load is None else load:.2f}",
    )
    return dict(zip(FACTS, values, strict=True))


def _installed(name: str) -> bool:
    return bool(list(importlib.metadata.distributions(name=name)))


def ratios(results: Sequence[Result], base: str) -> dict[tuple[str, int, int, int, str], float]:
    """How many times as fast as ``base`` each result is, by the minimum; none where ``base`` was not timed."""
    bases = {(r.n, r.k, r.m, r.cache): r.seconds.minimum for r in results if r.peer == base}
    return {
        (r.peer, *case): bases[case] / r.seconds.minimum for r in results if (case := (r.n, r.k, r.m, r.cache)) in bases
    }


def records(outcome: Outcome, machine: Machine, base: str) -> list[dict[str, Any]]:
    """One flat record for each result."""
    found = ratios(outcome.results, base)
    return [
        {
            "peer": r.peer,
            "n": r.n,
            "k": r.k,
            "m": r.m,
            "cache": r.cache,
            "threads": machine.threads,
            "min_us": round(1e6 * r.seconds.minimum, 2),
            "median_us": round(1e6 * r.seconds.median, 2),
            f"ratio_to_{base.replace(' ', '_')}": _rounded(found.get((r.peer, r.n, r.k, r.m, r.cache))),
            "bandwidth_share": _rounded(r.weight_bytes / r.seconds.minimum / machine.bandwidth),
            "int8_peak_share": _rounded(2 * r.m * r.n * r.k / r.seconds.minimum / machine.peak),
            "relative_error": float(f"{r.relative_error:.2g}"),
        }
        for r in outcome.results
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def write_csv(path: Path, found: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> None:
    """Write ``records``, each with the facts in columns of their own."""
    rows = [{**record, **facts} for record in found]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown(outcome: Outcome, machine: Machine, base: str, rounds: int) -> Iterable[str]:
    """A page: the facts, geometric means over the shapes, and each case."""
    yield "# Linear layers beside those of other libraries\n"
    yield from (f"- {name}: {value}" for name, value in machine.facts().items())
    yield f"- rounds: {rounds}, peers in another order in each"
    yield f"\n## Speed relative to {base}, geometric mean of the shapes\n"
    yield from _means(outcome.results, base)
    yield "\nCold: 128 MB are read, and another layer of the peer is run, before each call."
    yield "Error: relative to the float result, the worst case.\n"
    yield from (f"- {name}: cannot be imported: {reason}" for name, reason in outcome.absent.items())
    yield from (f"- {name}: failed: {reason}" for name, reason in outcome.failed.items())
    yield "\n## Each case\n"
    yield "| N x K | M | peer | min µs | median µs | ratio | of bandwidth | of int8 peak |"
    yield "|---" * 8 + "|"
    for record in records(outcome, machine, base):
        ratio = record[f"ratio_to_{base.replace(' ', '_')}"]
        yield (
            f"| {record['n']}x{record['k']} | {record['m']} {record['cache']} | {record['peer']} "
            f"| {record['min_us']:.1f} | {record['median_us']:.1f} | {'-' if ratio is None else f'{ratio:.2f}'} "
            f"| {record['bandwidth_share']:.0%} | {record['int8_peak_share']:.0%} |"
        )


def mean_ratio(found: Mapping[tuple[str, int, int, int, str], float], peer: str, m: int, cache: str) -> float:
    """The geometric mean of a peer's `ratios` over the shapes; NaN without any."""
    values = [value for (name, _, _, *case), value in found.items() if name == peer and case == [m, cache]]
    return statistics.geometric_mean(values) if values else float("nan")


def _means(results: Sequence[Result], base: str) -> Iterable[str]:
    found = ratios(results, base)
    columns = list(dict.fromkeys((r.m, r.cache) for r in results))
    yield "| peer | " + " | ".join(f"M={m} {cache}" for m, cache in columns) + " | error |"
    yield "|---" * (len(columns) + 2) + "|"
    for peer in dict.fromkeys(r.peer for r in results):
        cells = [f"{mean_ratio(found, peer, *column):.2f}" for column in columns]
        worst = max(r.relative_error for r in results if r.peer == peer)
        yield f"| {peer} | {' | '.join(cells)} | {worst:.2g} |"
