"""Where benchmarks write what they measured: a CSV of each kind, every line with the machine, versions and load."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_tle_int8.backend.target import current
from hf_tle_int8.bench import tables


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--record`` and ``--load-average``."""
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="also write CSVs there")
    text = "before a series of benchmarks, for the CSVs (default: now)"
    parser.add_argument("--load-average", type=float, metavar="L", help=text)


def write(options: argparse.Namespace, kind: str, records: Sequence[Mapping[str, Any]], threads: int) -> None:
    """Write ``<kind>-<target>.csv`` if ``--record`` is given.

    Args:
        options: of a parser with `add_options`.
        kind: what was measured.
        records: with the same keys each.
        threads: it ran on.
    """
    if options.record is not None:
        facts = tables.surroundings(threads, options.load_average)
        tables.write_csv(options.record / f"{kind}-{current().name}.csv", records, facts)


def rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")
