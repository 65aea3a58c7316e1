"""Accuracy, and LLVM's models of Arm CPUs, as pictures; see `charts.py`."""

from collections.abc import Sequence
from pathlib import Path

import charts

from hf_tle_int8.bench import plot
from hf_tle_int8.bench.plot import FLOAT, OURS, Record


def accuracy(records: Sequence[Record], path: Path) -> None:
    """Perplexity, divergence, and what is 1 for the float model itself."""
    where = f"{records[0]['versions'].partition(', triton')[0]} · {records[0]['date']} · does not depend on the load"
    figure, panels = plot.figure("What INT8 costs trained models", where, 3, 2.5, width_ratios=(1, 1, 1.2))
    perplexity, divergence, agreement = ({}, {}, {})
    for record in records:
        value, variant = float(record["value"]), record["variant"]
        if record["measure"] == "perplexity":
            perplexity[variant] = value
        elif record["measure"].startswith("KL"):
            divergence[variant] = value
        else:
            name = record["measure"].removesuffix(" to float").replace("most likely next", "likeliest")
            agreement[f"{record['model']}, {variant}:\n{name}"] = value
    for axes, title, values in (
        (panels[0], "stories260K: perplexity", perplexity),
        (panels[1], "stories260K: KL divergence, nats", divergence),
        (panels[2], "agreement with float", agreement),
    ):
        charts.bars(axes, values, lambda name: FLOAT if name == "float" else OURS, "{:.4g}".format)
        axes.tick_params(axis="y", labelsize=8)
        axes.set_xlim(0, max(values.values()) * 1.5)
        plot.caption(axes, title)
    plot.save(figure, path)


def arm(records: Sequence[Record], path: Path) -> None:
    """Shares of the peak of the multiply instruction, by CPU and tile."""
    mine = [record for record in records if record["target"].startswith("neon")]
    rows = list(dict.fromkeys((record["target"], record["cpu"]) for record in mine))
    tiles = sorted({record["tile"] for record in mine})
    title = "MODELLED, not measured: inner loops on Arm, share of the multiply instruction's peak"
    where = f"{records[0]['versions']} · {records[0]['date']} · all loads hit the first cache: bounds, not speeds"
    figure, axes = plot.figure(title, where, height=3.8)
    shares = {(r["target"], r["cpu"], r["tile"]): int(r["share"].rstrip("%")) for r in mine}
    grid = [[shares.get((*row, tile), float("nan")) for tile in tiles] for row in rows]
    axes.imshow(grid, cmap="Blues", vmin=0, vmax=140, aspect="auto")
    for y, row in enumerate(grid):
        for x, share in enumerate(row):
            text = f"{share} %" if share == share else "-"
            axes.text(x, y, text, ha="center", va="center", color="black" if share == share else "#999999")
    axes.set_xticks(range(len(tiles)), [f"{tile}{' (one row)' * tile.startswith('1x')}" for tile in tiles])
    axes.set_yticks(range(len(rows)), [f"{cpu}  ({target})" for target, cpu in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("tile: rows x columns of accumulators")
    plot.save(figure, path)
