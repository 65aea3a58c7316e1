"""Draw the recorded results, and write their tables into the docs; measures nothing.

    python tests/benchmarks/plots.py [--results docs/benchmarks] [--out docs/benchmarks] [--docs docs]

Every CSV in the folder of results becomes its pictures: linear-<target>.csv is drawn to linear-<target>.png and
shares-<target>.png, and so on. Tables stand in pages of ``--docs`` between `<!-- table NAME -->` and `<!-- end -->`.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import charts
import charts_of_tables
import doc_tables

from hf_tle_int8.bench.plot import Record

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "docs" / "benchmarks"

Draw = Callable[[Sequence[Record], Path], None]
# By the kind of a CSV: the kinds of its pictures.
PICTURES: dict[str, dict[str, Draw]] = {
    "linear": {"linear": charts.speed, "shares": charts.shares},
    "model": {"model": charts.models},
    "memory": {"memory": charts.memory},
    "load": {"load": charts.loading},
    "scaling": {"scaling": charts.scaling},
    "compile": {},
}
OF_ALL_MACHINES: dict[str, Draw] = {"accuracy": charts_of_tables.accuracy, "machine-model": charts_of_tables.arm}


def read(path: Path) -> list[Record]:
    """The lines of a CSV, all values strings.

    Raises:
        ValueError: there are none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    if not records:
        raise ValueError(f"{path} has no results: record them again.")
    return records


def pictures(results: Path) -> Iterator[tuple[str, Path, Draw]]:
    """The name of each picture, the CSV that it is drawn from, and how."""
    for path in sorted(results.glob("*.csv")):
        kind, _, target = path.stem.partition("-")
        if path.stem in OF_ALL_MACHINES:
            yield f"{path.stem}.png", path, OF_ALL_MACHINES[path.stem]
        for name, draw in PICTURES.get(kind, {}).items():
            yield f"{name}-{target}.png", path, draw


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw and write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="of the pictures")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs", metavar="FOLDER", help="of pages with tables")
    given = parser.parse_args(arguments)
    for name, path, draw in pictures(given.results):
        draw(read(path), given.out / name)
        print(given.out / name)
    for page in sorted(given.docs.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        written = doc_tables.fill(text, lambda name: read(given.results / f"{name}.csv"))
        if written != text:
            page.write_text(written, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
