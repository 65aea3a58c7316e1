"""Linears as a picture, and the look that all pictures of benchmarks share."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Of this project, of floating point, and of others: told apart by those who see few colours too (Okabe and Ito, 2008).
OURS, FLOAT, OTHER = "#0072B2", "#8C8C8C", "#E69F00"
_PEERS = {
    "hf_tle_int8": OURS, "torch bf16": FLOAT, "torch fp32": "#4D4D4D", "llama.cpp": "#D55E00",
    "onnxruntime D": "#009E73", "onnxruntime M": "#56B4E9", "OpenVINO": "#CC79A7", "torch dynamic (x86)": "#E69F00",
    "torch dynamic (o": "#9A7400",
}  # fmt: skip
_STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#666",
    "axes.axisbelow": True, "savefig.dpi": 140, "font.family": "DejaVu Sans",
}  # fmt: skip
_WIDTH = 8.4

Record = Mapping[str, Any]


def pyplot() -> Any:
    """matplotlib's drawing functions.

    Raises:
        ImportError: matplotlib is not installed; the message says how to get it.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as found
    except ImportError as error:
        raise ImportError(f"plots need matplotlib ({error}): pip install matplotlib.") from error
    return found


def color(peer: str) -> str:
    """Of a library in every picture; what is not known is grey."""
    return next((value for name, value in _PEERS.items() if peer.startswith(name)), "#999999")


def figure(title: str, where: str, panels: int = 1, height: float = 3.6, **options: Any) -> tuple[Any, Any]:
    """A figure of ``height`` inches with axes side by side, a title, and below that where it was measured."""
    draw = pyplot()
    with draw.rc_context(_STYLE):
        found, axes = draw.subplots(1, panels, figsize=(_WIDTH, height), layout="constrained", **options)
    found.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.5 / height))
    found.text(0.01, 1, title, ha="left", va="top", fontsize=12, fontweight="bold")
    found.text(0.01, 1 - 0.23 / height, where, ha="left", va="top", fontsize=8, color="#555555")
    return found, axes


def caption(axes: Any, text: str) -> None:
    """The title of one panel."""
    axes.set_title(text, loc="left", fontsize=10)


def save(found: Any, path: Path) -> None:
    """Write a figure, in the format that the name of ``path`` ends with."""
    draw = pyplot()
    with draw.rc_context(_STYLE):
        found.savefig(path, bbox_inches="tight", pad_inches=0.12)
    draw.close(found)


def check(path: Path) -> None:
    """See that a picture could be written, before anything is measured for it.

    Raises:
        ImportError: see `pyplot`.
        ValueError: the name of ``path`` ends with no format of pictures.
    """
    draw = pyplot()
    formats = draw.figure().canvas.get_supported_filetypes()
    draw.close()
    if path.suffix.removeprefix(".").lower() not in formats:
        raise ValueError(f"{path} has no ending of a picture. Choose of {', '.join(f'.{name}' for name in formats)}.")


def where(record: Record) -> str:
    """CPU, target, threads, date and load of a record with the columns of `tables.FACTS`."""
    threads = f"{record['threads']} thread{'' if str(record['threads']) == '1' else 's'}"
    target, load = record["target of the kernels"], record["load average before"]
    return f"{record['CPU']} · {target} · {threads} · {record['date']} · load average before: {load}"


def mean(values: Iterable[float]) -> float:
    """Geometric; NaN of nothing."""
    found = list(values)
    return statistics.geometric_mean(found) if found else float("nan")


def labels(axes: Any, ends: Mapping[str, float], x: float) -> None:
    """The name of each line at its end, in its colour, moved apart where they would overlap.

    Args:
        axes: with a logarithmic y axis whose limits are final.
        ends: the last value of each line.
        x: of these values.
    """
    low, high = axes.get_ylim()
    least, place = (high / low) ** 0.058, 0.0
    for name, value in sorted(ends.items(), key=lambda item: item[1]):
        place = max(value, place * least)
        axes.annotate(
            name, (x, value), (x + 0.25, place), color=color(name), fontsize=9, va="center", annotation_clip=False,
            fontweight="bold" if color(name) == OURS else "normal",
            arrowprops={"arrowstyle": "-", "color": color(name), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def lines(axes: Any, records: Sequence[Record], column: str, cases: Sequence[tuple[int, str]]) -> dict[str, float]:
    """``column``, as geometric mean of the shapes, of each peer by M, on a logarithmic axis.

    Returns:
        The last value of each peer.
    """
    ends = {}
    for peer in dict.fromkeys(record["peer"] for record in records):
        mine = [record for record in records if record["peer"] == peer and record[column] not in (None, "")]
        heights = [
            mean(float(r[column]) for r in mine if (int(r["m"]), r["cache"]) == (m, cache)) for m, cache in cases
        ]
        ours = color(peer) == OURS
        axes.plot(heights, color=color(peer), marker="o", markersize=4, linewidth=2.6 if ours else 1.3, zorder=2 + ours)
        ends[peer] = heights[-1]
    axes.set_yscale("log")
    axes.set_yticks([step * 10.0**power for power in range(-4, 4) for step in (1, 2, 5)])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    heights = [height for line in axes.lines for height in line.get_ydata() if height == height]
    axes.set_ylim(min(heights) / 1.15, max(heights) * 1.15)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    mixed = len({cache for m, cache in cases if m == 1}) > 1
    axes.set_xticks(range(len(cases)), [f"{m}\n{cache}" if mixed and m == 1 else str(m) for m, cache in cases])
    axes.set_xlabel("rows M")
    return {peer: value for peer, value in ends.items() if value == value}


def plot(path: Path, records: Sequence[Record], base: str) -> None:
    """Draw how many times as fast as ``base`` each peer is, by M.

    Args:
        path: its ending decides the format.
        records: of `tables.records`, each with the facts of the machine, or read of a CSV.
        base: the peer that all are compared to.

    Raises:
        ImportError: see `pyplot`.
    """
    cases = list(dict.fromkeys((int(record["m"]), record["cache"]) for record in records))
    found, axes = figure(f"Linear layers: times as fast as {base}", where(records[0]), height=4.2)
    labels(axes, lines(axes, records, f"ratio_to_{base.replace(' ', '_')}", cases), len(cases) - 1)
    axes.set_ylabel("geometric mean of the shapes")
    save(found, path)
