"""INT8 linears of packed weights and quantized rows: the oracle is `hf_tle_int8.arithmetic.int8_linear`."""

import triton
import triton.language as tl

from .product import product, store_scaled


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
    sums = product(from_q, from_w, K, TILE_M, TILE_N, ROWS, COLUMNS, GROUP, STEPS, FLIPPED, True)
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
    sums = product(from_q, from_w, K, TILE_M, TILE_N, ROWS, COLUMNS, GROUP, STEPS, FLIPPED, False)
    rows, columns = row + tl.arange(0, TILE_M), column + tl.arange(0, TILE_N)
    places = y + rows[:, None].to(tl.int64) * stride + columns[None, :]
    tl.store(places, sums, mask=(rows < M)[:, None] & (columns < N)[None, :])
