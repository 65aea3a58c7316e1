"""Drawings of the packings of `hf_tle_int8.dispatch`, for docs/how/packings.md.

python tests/docs/packing_figures.py --write docs/how

writes an SVG file for each: a weight as it is in the model, and the bytes of its panels as they lie in memory, in the
order in which `Packing.pack` puts them.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from hf_tle_int8.dispatch import SCHEMES
from hf_tle_int8.packing import Packing

CELL, TOP, LEFT = 12, 56, 84
# Of a panel, one for each group of k.
COLOURS = (("#8ecae6", "#219ebc"), ("#ffd6a5", "#fb8500"))


def packings() -> dict[Packing, list[str]]:
    """The targets of each packing, by what a kernel sees of it: padding is that of one panel and group."""
    found: dict[Packing, list[str]] = {}
    for target, scheme in SCHEMES.items():
        packing = dataclasses.replace(
            scheme.packing, n_multiple=scheme.packing.columns, k_multiple=scheme.packing.group
        )
        found.setdefault(packing, []).append(target)
    return found


def file_name(packing: Packing) -> str:
    """Of the drawing."""
    return f"packing-{packing.columns}x{packing.group}.svg"


def drawing(packing: Packing, targets: list[str]) -> str:
    """The SVG file: two panels of two groups of k, a box for the neighbours that lie together."""
    n, k = 2 * packing.columns, 2 * packing.group
    places = torch.arange(n * k).reshape(n, k)
    # In two halves, since `pack` takes int8.
    low, high = (packing.pack(part.to(torch.int8)).to(torch.int64) for part in (places % 128, places // 128))
    order = (high * 128 + low).flatten().tolist()
    line, memory = packing.columns * packing.group, TOP + n * CELL + 44
    width, height = LEFT + line * CELL + 14, memory + 8 * CELL
    shapes = [
        *_text(14, 22, f"{', '.join(targets)}: [N / {packing.columns}][K / {packing.group}]"
               f"[{packing.columns}][{packing.group}]", 15),
        *_text(LEFT, TOP - 8, f"weight [N, K], k = 0 … {k - 1}", 12),
        *_text(LEFT, memory - 8, f"memory, {line} bytes a line", 12),
    ]  # fmt: skip
    for row in range(n):
        shapes += _text(LEFT - 6, TOP + row * CELL + 10, f"c{row}", 10, "end")
        for i in range(0, k, packing.group):
            shapes.append(_group(LEFT + i * CELL, TOP + row * CELL, row, i, packing))
    for place in range(0, len(order), packing.group):
        row, i = divmod(order[place], k)
        x, y = LEFT + place % line * CELL, memory + place // line * 2 * CELL
        shapes.append(_group(x, y, row, i, packing))
        shapes += _text(x + packing.group * CELL / 2, y + 10, f"c{row}", 10, "middle")
        if place % line == 0:
            shapes += _text(x - 8, y + 10, f"k = {i} … {i + packing.group - 1}", 10, "end")
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _group(x: int, y: int, row: int, k: int, packing: Packing) -> str:
    colour, width = COLOURS[row // packing.columns % 2][k // packing.group % 2], packing.group * CELL
    return f'<rect x="{x}" y="{y}" width="{width}" height="{CELL}" fill="{colour}" stroke="white"/>'


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> list[str]:
    return [f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}">{text}</text>']


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FOLDER", required=True, help="where to write the files")
    folder = parser.parse_args().write
    for packing, targets in packings().items():
        (folder / file_name(packing)).write_text(drawing(packing, targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
