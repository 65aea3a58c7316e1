"""int8 products summed exactly in int32, of rows and weights that are packed for the target's instruction."""

import triton
import triton.language as tl


@triton.jit
def product(
    q, w, K, M: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
    STEPS: tl.constexpr, FLIPPED: tl.constexpr, SYMMETRIC: tl.constexpr,
):  # fmt: skip
    """M rows by N columns: int32 ``[M, N]``, ``q @ w.T``.

    Args:
        q: int8 ``[M / ROWS][K / GROUP][ROWS][GROUP]``, with flipped sign bits if FLIPPED.
        w: int8 panels ``[N / COLUMNS][K / GROUP][COLUMNS][GROUP]``.
        SYMMETRIC: whether ``q`` holds no -128.
        K: a multiple of ``STEPS * GROUP``, which is what one iteration of the loop takes.
    """
    from_q = q + tl.arange(0, M // ROWS)[:, None] * (ROWS * K) + tl.arange(0, STEPS * ROWS * GROUP)[None, :]
    from_w = w + tl.arange(0, N // COLUMNS)[:, None] * (COLUMNS * K) + tl.arange(0, STEPS * COLUMNS * GROUP)[None, :]
    sums = tl.zeros((M, N), tl.int32)
    for _ in range(0, K, STEPS * GROUP):
        rows = tl.load(from_q).reshape(M // ROWS, STEPS, ROWS, GROUP).permute(0, 2, 1, 3).reshape(M, STEPS * GROUP)
        panels = tl.load(from_w).reshape(N // COLUMNS, STEPS, COLUMNS, GROUP)
        columns = panels.permute(1, 3, 0, 2).reshape(STEPS * GROUP, N)
        if FLIPPED:
            rows = rows ^ -128
        if SYMMETRIC:
            tl.assume(tl.min(rows) > -128)
        sums = tl.dot(rows, columns, sums, out_dtype=tl.int32)
        from_q += STEPS * ROWS * GROUP
        from_w += STEPS * COLUMNS * GROUP
    return sums


@triton.jit
def store_scaled(sums, row, column, scale_x, scale_w, bias, y, stride, M, N, HAS_BIAS: tl.constexpr):
    """Store ``sums * (scale_x * scale_w) + bias``, in fp32 and rounded once, where there are rows and columns.

    Args:
        sums: int32, its first element at ``row`` and ``column`` of ``y``.
        scale_x: fp32 ``[M]``.
        scale_w: fp32 ``[N]``.
        bias: ``[N]`` of any floating type; not read without HAS_BIAS.
        y: ``[M, N]`` of any floating type, rows ``stride`` elements apart.
    """
    rows, columns = row + tl.arange(0, sums.shape[0]), column + tl.arange(0, sums.shape[1])
    row_is, column_is = rows < M, columns < N
    scales = tl.load(scale_x + rows, mask=row_is)[:, None] * tl.load(scale_w + columns, mask=column_is)[None, :]
    scaled = sums.to(tl.float32) * scales
    if HAS_BIAS:
        scaled += tl.load(bias + columns, mask=column_is).to(tl.float32)[None, :]
    places = y + rows[:, None].to(tl.int64) * stride + columns[None, :]
    tl.store(places, scaled.to(y.dtype.element_ty), mask=row_is[:, None] & column_is[None, :])
