"""INT8 linears of packed weights: the oracle is `hf_tle_int8.arithmetic.int8_linear`."""

import triton
import triton.language as tl

from .product import product, store_scaled
from .quantize import quantize_rows


@triton.jit
def gemm(
    q, scale_x, w, scale_w, bias, y, stride, M, N, K, TILE_M: tl.constexpr, TILE_N: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, STEPS: tl.constexpr, FLIPPED: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """``y = (q @ w.T) * scale_x * scale_w + bias`` for rows that are quantized already.

    Grid: ``(ceil(M / TILE_M), ceil(N / TILE_N))``. The rows of one tile of columns follow each other: its panels of
    weights stay in the cache. See `product` for q (whole tiles of rows, of which those from M on hold anything), w
    (whole tiles of columns) and K, and `store_scaled` for the rest.
    """
    row, column = tl.program_id(0) * TILE_M, tl.program_id(1) * TILE_N
    from_q, from_w = q + row.to(tl.int64) * K, w + column.to(tl.int64) * K
    sums = product(from_q, from_w, K, TILE_M, TILE_N, ROWS, COLUMNS, GROUP, STEPS, FLIPPED)
    store_scaled(sums, row, column, scale_x, scale_w, bias, y, stride, M, N, HAS_BIAS)


@triton.jit
def gemm_int32(
    q, w, y, stride, M, N, K, TILE_M: tl.constexpr, TILE_N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    GROUP: tl.constexpr, STEPS: tl.constexpr, FLIPPED: tl.constexpr,
):  # fmt: skip
    """``y = q @ w.T`` in int32, as `gemm` without scales; sums wrap.

    Grid: ``(ceil(M / TILE_M), ceil(N / TILE_N))``.
    """
    row, column = tl.program_id(0) * TILE_M, tl.program_id(1) * TILE_N
    from_q, from_w = q + row.to(tl.int64) * K, w + column.to(tl.int64) * K
    sums = product(from_q, from_w, K, TILE_M, TILE_N, ROWS, COLUMNS, GROUP, STEPS, FLIPPED)
    rows, columns = row + tl.arange(0, TILE_M), column + tl.arange(0, TILE_N)
    places = y + rows[:, None].to(tl.int64) * stride + columns[None, :]
    tl.store(places, sums, mask=(rows < M)[:, None] & (columns < N)[None, :])


@triton.jit
def gemv(
    x, stride_x, q, scale_x, w, scale_w, bias, y, stride_y, M, N, K, K_PADDED, tiles, TILE_M: tl.constexpr,
    TILE_N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr, STEPS: tl.constexpr,
    FLIPPED: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A linear of M <= TILE_M rows of floats: the weights are read once.

    Grid: ``(ceil(N / (tiles * TILE_N)),)``. Each program quantizes the rows for itself, which costs less than a second
    launch, and computes ``tiles`` tiles of columns.

    Args:
        q: room for int8 ``[programs][TILE_M][K_PADDED]``.
        scale_x: room for fp32 ``[programs][TILE_M]``.
    """
    program = tl.program_id(0)
    mine, scales = q + program.to(tl.int64) * (TILE_M * K_PADDED), scale_x + program * TILE_M
    for first in range(0, TILE_M, ROWS):
        to = mine + first * K_PADDED
        quantize_rows(x, stride_x, to, scales + first, first, M, K, K_PADDED, ROWS, GROUP, BLOCK, FLIPPED)
    for tile in range(program * tiles, tl.minimum((program + 1) * tiles, tl.cdiv(N, TILE_N))):
        column = tile * TILE_N
        from_w = w + column.to(tl.int64) * K_PADDED
        sums = product(mine, from_w, K_PADDED, TILE_M, TILE_N, ROWS, COLUMNS, GROUP, STEPS, FLIPPED)
        store_scaled(sums, 0, column, scales, scale_w, bias, y, stride_y, M, N, HAS_BIAS)
