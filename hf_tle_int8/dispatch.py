"""Which tile serves a linear: a pure function of its shape, the layout of the target and the number of threads."""

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any

from hf_tle_int8.backend.target import Target
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.packing import Packing

# Tiles to use in the place of those of `SCHEMES`, such as ``1x32,4x16``.
VARIABLE = "HF_TLE_INT8_TILES"


@dataclass(frozen=True)
class Scheme:
    """How the operands of a linear lie in memory for one target.

    Attributes:
        packing: of the weights.
        interleaved: whether the rows of a tile lie together, ``[M / TILE_M][K / group][TILE_M][group]``; else each row
            lies by itself.
        steps: groups of k that one iteration of a kernel takes.
        flipped: whether activations lie with their sign bits flipped, as the target's instruction wants them.
        tiles: ``(rows, columns)`` by ascending rows; the first with as many rows as there are serves, or the last.
        matrix_rows: tiles of as many rows or more are multiplied in tile registers, by `MATRIX_STEPS` groups of k and
            with activations as they are; None: there are no such registers.
    """

    packing: Packing
    interleaved: bool
    steps: int
    flipped: bool
    tiles: tuple[tuple[int, int], ...]
    matrix_rows: int | None = None

    def choice(self, tile_m: int, tile_n: int, threads: int = 1) -> "Choice":
        """A tile with all that goes with it."""
        rows = tile_m if self.interleaved else 1
        if self.matrix_rows is not None and tile_m >= self.matrix_rows:
            return Choice(tile_m, tile_n, rows, MATRIX_STEPS, False, threads)
        return Choice(tile_m, tile_n, rows, self.steps, self.flipped, threads)


@dataclass(frozen=True)
class Choice:
    """A tile of ``gemm``, and how many threads share the tiles.

    Attributes:
        tile_m: rows of a tile.
        tile_n: columns of a tile.
        rows: of activations that lie together, see `Scheme`.
        steps: groups of k that an iteration takes.
        flipped: whether activations lie with their sign bits flipped.
        threads: how many to use.
    """

    tile_m: int
    tile_n: int
    rows: int
    steps: int
    flipped: bool
    threads: int


def constexprs(layout: Scheme, choice: Choice) -> dict[str, Any]:
    """What kernels that multiply are compiled with; see `hf_tle_int8.kernels.linear`."""
    return {
        "TILE_M": choice.tile_m,
        "TILE_N": choice.tile_n,
        "ROWS": choice.rows,
        "COLUMNS": layout.packing.columns,
        "GROUP": layout.packing.group,
        "STEPS": choice.steps,
        "FLIPPED": choice.flipped,
    }


# Elements of a row that are quantized at a time.
QUANTIZED_BLOCK = 64

# Rows of a tile.
MOST_ROWS = 32

# Groups of four k of a tile register of 64 bytes a row.
MATRIX_STEPS = 16

# Columns and k are padded to what every tile below divides; 64 columns of bytes are four streams of panels, which read
# memory faster than two.
_N_MULTIPLE = 32

_SMMLA = Scheme(Packing(8, 8, _N_MULTIPLE, 32), True, 4, False, ((2, 32), (4, 16), (8, 8)))
_SDOT = Scheme(Packing(8, 4, _N_MULTIPLE, 16), False, 4, False, ((1, 32), (2, 32), (4, 16), (8, 8)))
_AVX2 = Scheme(Packing(8, 4, _N_MULTIPLE, 16), False, 4, False, ((1, 32), (2, 32), (4, 16)))
_VNNI_256 = Scheme(Packing(8, 4, _N_MULTIPLE, 16), False, 4, True, ((1, 32), (2, 16), (4, 16)))
_VNNI_512 = Scheme(Packing(16, 4, 2 * _N_MULTIPLE, 16), False, 4, True, ((1, 64), (2, 64), (4, 32), (8, 32)))
_AMX = Scheme(
    Packing(16, 4, 2 * _N_MULTIPLE, 64), False, 4, True, ((1, 64), (2, 64), (4, 64), (16, 64), (32, 32)), matrix_rows=16
)
_WIDENING_512 = Scheme(Packing(16, 4, _N_MULTIPLE, 16), False, 4, False, ((1, 32), (2, 32), (4, 32)))

SCHEMES = {
    "neon": _SDOT,
    "neon-dotprod": _SDOT,
    "neon-i8mm": _SMMLA,
    "avx2": _AVX2,
    "avxvnni": _VNNI_256,
    "avx512": _WIDENING_512,
    "avx512vnni": _VNNI_512,
    "avx512bf16": _VNNI_512,
    "amx": _AMX,
}

# Multiply-adds that are worth a thread.
WORK_PER_THREAD = 1 << 18


def scheme(target: Target) -> Scheme:
    """The layout of operands for ``target``; `test_dispatch` holds it to the packing that the target prefers."""
    return SCHEMES[target.name]


def with_tiles(layout: Scheme, text: str) -> Scheme:
    """A layout with other tiles: for experiments, as results are the same.

    Args:
        layout: of a target.
        text: rows x columns of each, by ascending rows: ``1x32,4x16``.

    Raises:
        ConfigError: no tile, or one that the kernels do not take.
    """
    found = [re.fullmatch(r" *(\d+) *x *(\d+) *", part) for part in text.split(",")]
    tiles = tuple((int(tile[1]), int(tile[2])) for tile in found if tile is not None)
    rows = [tile[0] for tile in tiles]
    packing = layout.packing
    columns = [packing.columns << shift for shift in range(8) if packing.n_multiple % (packing.columns << shift) == 0]
    least = 2 if layout.interleaved else 1
    fit = all(m in (least, 2, 4, 8, 16, MOST_ROWS) and n in columns for m, n in tiles)
    if len(tiles) < len(found) or not fit or rows != sorted(set(rows)):
        raise ConfigError(
            f"{VARIABLE}={text!r} is not a list of tiles by ascending rows, such as 2x32,4x16: rows are {least} to "
            f"{MOST_ROWS} and a power of two, columns one of {columns} on this CPU."
        )
    return dataclasses.replace(layout, tiles=tiles)


@functools.lru_cache(maxsize=4096)
def choose(m: int, n: int, k: int, layout: Scheme, threads: int) -> Choice:
    """The tile and the threads for ``[m, k]`` by ``[n, k]``.

    Args:
        m: rows, at least 1.
        n: output channels, at least 1.
        k: inputs.
        layout: of the target that kernels are compiled for.
        threads: how many there are.
    """
    tile_m, tile_n = next((tile for tile in layout.tiles if m <= tile[0]), layout.tiles[-1])
    team = max(1, min(threads, m * n * k // WORK_PER_THREAD))
    return layout.choice(tile_m, tile_n, team)
