"""Tables of recorded results in pages of Markdown, between `<!-- table linear-avx2 -->` and `<!-- end -->`."""

import re
from collections.abc import Callable, Iterator, Sequence

import charts

from hf_tle_int8.bench import plot
from hf_tle_int8.bench.plot import Record

MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
FLOATS = ("torch bf16", "torch fp32")


def fill(text: str, read: Callable[[str], list[Record]]) -> str:
    """The page with every marked table made anew.

    Args:
        text: of the page.
        read: the records of a CSV by its name without ``.csv``, which is that of the table.
    """

    def made(found: re.Match[str]) -> str:
        name = found[2]
        lines = TABLES[name.split("-")[0]](read(name))
        return "\n".join((found[1].rstrip(), "", *lines, "", found[3]))

    return MARKED.sub(made, text)


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*titles: str) -> str:
    """The first two lines."""
    return f"{row(*titles)}\n|{'---|' * len(titles)}"


def times(ratio: float) -> str:
    """Two digits; a dash for NaN, where nothing was timed."""
    return f"{ratio:.2f}" if ratio == ratio else "-"


def measured(record: Record) -> str:
    """Where and when, as the line below a table."""
    return f"\n{plot.where(record)}; {record['versions']}."


def linear(records: Sequence[Record]) -> Iterator[str]:
    """Geometric means of the ratios to torch bf16; the last line compares with the fastest other peer in INT8."""
    cases = list(dict.fromkeys((record["m"], record["cache"]) for record in records))
    yield head("peer", *(f"M={m} {cache}" for m, cache in cases), "error")
    means: dict[str, list[float]] = {}
    for peer in dict.fromkeys(record["peer"] for record in records):
        mine = [record for record in records if record["peer"] == peer and record["ratio_to_torch_bf16"]]
        means[peer] = [
            plot.mean(float(r["ratio_to_torch_bf16"]) for r in mine if (r["m"], r["cache"]) == case) for case in cases
        ]
        worst = max(float(record["relative_error"]) for record in records if record["peer"] == peer)
        yield row(peer, *map(times, means[peer]), f"{worst:.2g}")
    others = [values for name, values in means.items() if name not in (*FLOATS, "hf_tle_int8")]
    if others and "hf_tle_int8" in means:
        # A case in which a peer failed has no mean.
        timed = ([value for value in values if value == value] for values in zip(*others, strict=True))
        best = (max(values, default=float("nan")) for values in timed)
        against = (own / other for own, other in zip(means["hf_tle_int8"], best, strict=True))
        yield row("**hf_tle_int8 / the fastest other in INT8**", *map(times, against), "")
    yield measured(records[0])


def model(records: Sequence[Record]) -> Iterator[str]:
    """Tokens a second."""
    yield head("", "prefill, tokens/s", "x bf16", "decode, tokens/s", "x bf16")
    for peer in dict.fromkeys(record["peer"] for record in records):
        mine = {record["phase"]: record for record in records if record["peer"] == peer}
        cells = (mine[phase][key] for phase in ("prefill", "decode") for key in ("tokens_per_second", "ratio_to_bf16"))
        yield row(charts.TITLES[peer], *(charts.rate(float(cell)) if cell else "" for cell in cells))
    yield measured(records[0])


def memory(records: Sequence[Record]) -> Iterator[str]:
    """Megabytes."""
    yield head("", "model", "peak beyond start", "after loading", "packed weights", "packed / their int8 bytes")
    for record in records:
        sizes = (float(record[f"{key}_bytes"]) / charts.MEGABYTE for key in ("model", "peak", "after", "int8"))
        share = f"{float(record['packed_share']):.3f}" if record["packed_share"] else ""
        yield row(record["variant"], *(f"{size:.0f} MB" for size in sizes), share)
    yield measured(records[0])


def load(records: Sequence[Record]) -> Iterator[str]:
    """Seconds."""
    yield head("", "seconds", "of which packing")
    for record in records:
        yield row(record["variant"], f"{float(record['seconds']):.2f}", f"{float(record['packing_share']):.1%}")
    yield measured(records[0])


def scaling(records: Sequence[Record]) -> Iterator[str]:
    """Milliseconds on one thread and on all."""
    yield head("M x N x K", "", "1 thread, ms", f"{records[0]['threads']} threads, ms", "times as fast")
    for record in records:
        times = (f"{float(record[key]):.4g}" for key in ("one_thread_ms", "all_threads_ms"))
        yield row(record["m x n x k"], record["peer"], *times, f"{float(record['times_as_fast']):.2f}")
    yield measured(records[0])


def compiling(records: Sequence[Record]) -> Iterator[str]:
    """Milliseconds of the fastest process."""
    yield head("kernel", "cold, ms", "cached, ms", "once before, ms")
    for record in records:
        yield row(record["kernel"], *(f"{float(record[f'{kind}_min_ms']):.3g}" for kind in ("cold", "cached", "once")))
    yield measured(records[0])


def accuracy(records: Sequence[Record]) -> Iterator[str]:
    """As they are."""
    yield head("model", "variant", "measure", "value")
    for record in records:
        yield row(*(record[key] for key in ("model", "variant", "measure", "value")))


TABLES: dict[str, Callable[[Sequence[Record]], Iterator[str]]] = {
    "linear": linear, "model": model, "memory": memory, "load": load, "scaling": scaling, "compile": compiling,
    "accuracy": accuracy,
}  # fmt: skip
