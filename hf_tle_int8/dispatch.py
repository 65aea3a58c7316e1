"""Which kernel and tile serves a linear: a pure function of its shape, the target and the number of threads."""

import functools
from dataclasses import dataclass
from typing import Any

from hf_tle_int8.backend.target import Target
from hf_tle_int8.packing import Packing


@dataclass(frozen=True)
class Scheme:
    """How the operands of a linear lie in memory for one target.

    Attributes:
        packing: of the weights.
        interleaved: whether the rows of a tile lie together, ``[M / TILE_M][K / group][TILE_M][group]``; else each row
            lies by itself.
        steps: groups of k that one iteration of a kernel takes.
        flipped: whether activations lie with their sign bits flipped, as the target's instruction wants them.
        gemv: tiles ``(most rows, columns)`` of the kernel that quantizes itself, by ascending rows.
        gemm: tile ``(rows, columns)`` of the kernel for more rows than those.
    """

    packing: Packing
    interleaved: bool
    steps: int
    flipped: bool
    gemv: tuple[tuple[int, int], ...]
    gemm: tuple[int, int]


@dataclass(frozen=True)
class Choice:
    """A kernel and its tile.

    Attributes:
        kernel: ``gemv`` quantizes the rows itself; ``gemm`` takes them quantized.
        tile_m: rows of a tile.
        tile_n: columns of a tile.
        rows: of activations that lie together, see `Scheme`.
        threads: how many to use.
        tiles: of columns that a program of ``gemv`` computes, one after another.
    """

    kernel: str
    tile_m: int
    tile_n: int
    rows: int
    threads: int
    tiles: int


def product_constexprs(layout: Scheme, tile_m: int, tile_n: int, rows: int) -> dict[str, Any]:
    """What every kernel that multiplies is compiled with; see `hf_tle_int8.kernels.linear`."""
    return {
        "TILE_M": tile_m,
        "TILE_N": tile_n,
        "ROWS": rows,
        "COLUMNS": layout.packing.columns,
        "GROUP": layout.packing.group,
        "STEPS": layout.steps,
        "FLIPPED": layout.flipped,
    }


def constexprs(layout: Scheme, choice: Choice, has_bias: bool) -> dict[str, Any]:
    """What the kernel of a choice is compiled with; see `hf_tle_int8.kernels.linear`."""
    shared = {**product_constexprs(layout, choice.tile_m, choice.tile_n, choice.rows), "HAS_BIAS": has_bias}
    return {**shared, "BLOCK": QUANTIZED_BLOCK} if choice.kernel == "gemv" else shared


# Elements of a row that are quantized at a time.
QUANTIZED_BLOCK = 64

# Columns and k are padded to what every tile below divides.
_N_MULTIPLE = 32

_SMMLA = Scheme(Packing(8, 8, _N_MULTIPLE, 32), True, 4, False, ((2, 32), (4, 16), (8, 8)), (8, 8))
_SDOT = Scheme(Packing(8, 4, _N_MULTIPLE, 16), False, 4, False, ((1, 32), (2, 32), (4, 16), (8, 8)), (8, 8))
_WIDENING = Scheme(Packing(8, 4, _N_MULTIPLE, 16), False, 4, False, ((1, 32), (2, 16), (4, 16)), (4, 16))
_VNNI_256 = Scheme(Packing(8, 4, _N_MULTIPLE, 16), False, 4, True, ((1, 32), (2, 16), (4, 16)), (4, 16))
_VNNI_512 = Scheme(Packing(16, 4, _N_MULTIPLE, 16), False, 4, True, ((1, 32), (2, 32), (4, 32), (8, 32)), (8, 32))
_WIDENING_512 = Scheme(Packing(16, 4, _N_MULTIPLE, 16), False, 4, False, ((1, 32), (2, 32), (4, 32)), (4, 32))

SCHEMES = {
    "neon": _SDOT,
    "neon-dotprod": _SDOT,
    "neon-i8mm": _SMMLA,
    "avx2": _WIDENING,
    "avxvnni": _VNNI_256,
    "avx512": _WIDENING_512,
    "avx512vnni": _VNNI_512,
    "avx512bf16": _VNNI_512,
}

# Multiply-adds that are worth a thread.
_WORK_PER_THREAD = 1 << 18
# On unlike cores: programs of `gemv` for each thread, and the fewest tiles of one for every row. Quantizing takes as
# long as a third of a tile for one row, as three tiles for four rows (AVX2).
_SHARES = 4
_TILES_PER_ROW = 4


def scheme(target: Target) -> Scheme:
    """The layout of operands for ``target``; `test_dispatch` holds it to the packing that the target prefers."""
    return SCHEMES[target.name]


@functools.lru_cache(maxsize=4096)
def choose(m: int, n: int, k: int, target: Target, threads: int, unlike: bool = False) -> Choice:
    """The kernel for ``[m, k]`` by ``[n, k]``.

    Args:
        m: rows, at least 1.
        n: output channels, at least 1.
        k: inputs.
        target: what kernels are compiled for.
        threads: how many there are.
        unlike: whether their cores are, so that each shall take more than one program.
    """
    layout = scheme(target)
    team = max(1, min(threads, m * n * k // _WORK_PER_THREAD))
    tile = product_tile(m, layout)
    if m > layout.gemv[-1][0]:
        return Choice("gemm", *tile, team, 1)
    whole = -(-n // tile[1])
    tiles = -(-whole // team)
    if unlike and team > 1:
        tiles = max(min(tiles, _TILES_PER_ROW * tile[0]), -(-tiles // _SHARES))
    return Choice("gemv", *tile, min(team, whole), tiles)


def product_tile(m: int, layout: Scheme) -> tuple[int, int, int]:
    """Rows and columns of a tile for m rows, and rows that lie together."""
    tile_m, tile_n = next((tile for tile in layout.gemv if m <= tile[0]), layout.gemm)
    return tile_m, tile_n, tile_m if layout.interleaved else 1
