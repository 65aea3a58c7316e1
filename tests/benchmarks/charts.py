"""Each kind of result as a picture; every function draws records of a CSV, as strings, to a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_tle_int8.bench import plot
from hf_tle_int8.bench.plot import FLOAT, OTHER, OURS, Record

MEGABYTE = 1e6
# Of the peers of `whole_model.py`.
TITLES = {
    "bf16": "transformers bf16",
    "fp32": "transformers fp32",
    "int8": "hf_tle_int8, rest bf16",
    "int8-head": "hf_tle_int8, head too, rest bf16",
    "int8-fp32": "hf_tle_int8, rest fp32",
    "int8-head-fp32": "hf_tle_int8, head too, rest fp32",
    "int8-head-compiled": "hf_tle_int8, head too, compiled",
    "torch-dynamic": "torch dynamic, rest fp32",
    "torchao": "torchao, eager",
    "torchao-compiled": "torchao, compiled",
    "llama.cpp": "llama.cpp Q8_0, head too",
}


def speed(records: Sequence[Record], path: Path) -> None:
    """Linears beside torch bf16, by M."""
    plot.plot(path, records, "torch bf16")


def shares(records: Sequence[Record], path: Path) -> None:
    """Shares of what the machine can do: of its memory at one row, of its int8 instruction by M."""
    limits = f"{records[0]['memory is read at']}, {records[0]['int8 peak in registers']}"
    where = f"{plot.where(records[0])} · limits: {limits}, measured"
    title = "Linear layers: share of the machine's limits"
    figure, (left, right) = plot.figure(title, where, 2, 4.2, width_ratios=(1, 1.3))
    cold = [record for record in records if (record["m"], record["cache"]) == ("1", "cold")]
    by_peer = {
        peer: plot.mean(float(record["bandwidth_share"]) for record in cold if record["peer"] == peer)
        for peer in dict.fromkeys(record["peer"] for record in cold)
    }
    by_peer = dict(sorted(by_peer.items(), key=lambda item: -item[1]))
    bars(left, by_peer, plot.color, "{:.0%}".format)
    plot.caption(left, "of memory's bandwidth, M = 1, cold")
    hot = [record for record in records if record["cache"] == "hot"]
    cases = list(dict.fromkeys((int(record["m"]), "hot") for record in hot))
    plot.lines(right, hot, "int8_peak_share", cases)
    right.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    plot.caption(right, "of the int8 peak, by M, hot")
    plot.save(figure, path)


def models(records: Sequence[Record], path: Path) -> None:
    """Tokens a second of whole models."""
    title = "A whole model (Qwen2.5-0.5B's shape, random weights): tokens a second"
    figure, panels = plot.figure(title, plot.where(records[0]), 2, 3.2)
    for axes, phase in zip(panels, ("decode", "prefill"), strict=True):
        found = {TITLES[r["peer"]]: float(r["tokens_per_second"]) for r in records if r["phase"] == phase}
        tokens = next(record["tokens"] for record in records if record["phase"] == phase)
        bars(axes, dict(sorted(found.items(), key=lambda item: -item[1])), model_color, rate)
        plot.caption(axes, f"{phase}, {tokens} tokens")
    plot.save(figure, path)


def memory(records: Sequence[Record], path: Path) -> None:
    """What a loaded model takes: allocated, and mapped from its checkpoint; and the peak."""
    title = "Memory of a loaded Llama of 14 layers, MB"
    figure, axes = plot.figure(title, plot.where(records[0]), height=2.5)
    plot.caption(axes, "dark: allocated; light: mapped from the file, which the system may drop; line: peak allocated")
    for place, record in enumerate(records):
        size, peak, after = (float(record[f"{key}_bytes"]) / MEGABYTE for key in ("model", "peak", "after"))
        tone = FLOAT if record["variant"] == "bf16" else OURS
        axes.barh(place, after, color=tone)
        axes.barh(place, max(size - after, 0), left=after, color=tone, alpha=0.35)
        axes.plot([peak, peak], [place - 0.45, place + 0.45], color="black", linewidth=1.5)
        text = f"{size:.0f} = {after:.0f} allocated + {max(size - after, 0):.0f} mapped; peak {peak:.0f}"
        axes.text(max(size, peak), place, f"  {text}", va="center", fontsize=9)
    names(axes, [record["variant"] for record in records], 1.75)
    plot.save(figure, path)


def loading(records: Sequence[Record], path: Path) -> None:
    """Seconds of loading, with the part of packing."""
    title = "Loading the same model, seconds"
    figure, axes = plot.figure(title, plot.where(records[0]), height=2.1)
    for place, record in enumerate(records):
        seconds, packing = float(record["seconds"]), float(record["packing_seconds"])
        tone = FLOAT if record["variant"] == "bf16" else OURS
        axes.barh(place, packing, color=OTHER)
        axes.barh(place, seconds - packing, left=packing, color=tone)
        text = f"  {seconds:.2f}" + (f", of which packing {packing:.2f}" if packing / seconds > 0.005 else "")
        axes.text(seconds, place, text, va="center", fontsize=9)
    names(axes, [record["variant"] for record in records], 1.3)
    plot.save(figure, path)


def scaling(records: Sequence[Record], path: Path) -> None:
    """How many times as fast on all threads as on one."""
    shapes = list(dict.fromkeys(record["m x n x k"] for record in records))
    threads = int(records[0]["threads"])
    title = f"From 1 thread to {threads}: times as fast"
    figure, panels = plot.figure(title, plot.where(records[0]), len(shapes), 2.6, squeeze=False)
    for axes, shape in zip(panels[0], shapes, strict=True):
        found = {r["peer"]: float(r["times_as_fast"]) for r in records if r["m x n x k"] == shape}
        bars(axes, found, plot.color, "{:.2f}".format)
        axes.axvline(threads, color="black", linewidth=0.8, linestyle=":", zorder=0.5)
        plot.caption(axes, f"M x N x K = {shape}")
    plot.save(figure, path)


def bars(axes: Any, values: dict[str, float], tone: Any, form: Callable[[float], str]) -> None:
    """Horizontal bars from top to bottom, each with its value."""
    for place, (name, value) in enumerate(values.items()):
        axes.barh(place, value, color=tone(name))
        weight = "bold" if tone(name) == OURS else "normal"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "bbox": box}
        axes.annotate(form(value), (value, place), **offset, fontsize=9, fontweight=weight)
    names(axes, list(values), 1.18)


def names(axes: Any, texts: list[str], room: float) -> None:
    """The names of horizontal bars, with ``room`` times their length, and no axis below them."""
    axes.set_yticks(range(len(texts)), texts)
    axes.tick_params(left=False)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * room / 1.05)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


def rate(value: float) -> str:
    """Tokens a second, to three digits and no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def model_color(title: str) -> str:
    """Of a title of a model."""
    if title.startswith("transformers"):
        return FLOAT
    return plot.color(title.replace("torch dynamic", "torch dynamic (x86)"))
