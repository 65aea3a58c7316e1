"""The outcome of a benchmark as a picture."""

from pathlib import Path
from typing import Any

from hf_tle_int8.bench.linear import Outcome
from hf_tle_int8.bench.tables import mean_ratio, ratios


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


def plot(path: Path, outcome: Outcome, base: str) -> None:
    """Draw the geometric mean of the shapes as bars, in the format that the name of ``path`` ends with.

    Raises:
        ImportError: see `pyplot`.
    """
    draw = pyplot()
    found = ratios(outcome.results, base)
    columns = list(dict.fromkeys((r.m, r.cache) for r in outcome.results))
    peers = [peer for peer in dict.fromkeys(r.peer for r in outcome.results) if peer != base]
    figure, axes = draw.subplots(figsize=(11, 5))
    for place, peer in enumerate(peers):
        heights = [mean_ratio(found, peer, *column) for column in columns]
        axes.bar([x + place / (len(peers) + 1) for x in range(len(columns))], heights, 1 / (len(peers) + 1), label=peer)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks([x + 0.4 for x in range(len(columns))], [f"M={m} {cache}" for m, cache in columns])
    axes.set_ylabel(f"speed relative to {base}")
    axes.legend(fontsize="small")
    figure.savefig(path)
    draw.close(figure)
