"""Kernels of matrix products as users of Triton write them."""

import triton
import triton.language as tl


@triton.jit
def place_of(tile, M, N, TILE_M: tl.constexpr, TILE_N: tl.constexpr, BAND: tl.constexpr):
    """Row and column of a tile where bands of BAND rows of tiles are gone through column by column."""
    rows, columns = tl.cdiv(M, TILE_M), tl.cdiv(N, TILE_N)
    first = tile // (BAND * columns) * BAND
    height = tl.minimum(rows - first, BAND)
    within = tile % (BAND * columns)
    return first + within % height, within // height


@triton.jit
def sums_of(
    a, b, i, j, low, high, M, N, row_a, k_a, k_b, column_b, TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
):  # fmt: skip
    """Tile (i, j) of ``a[:, low:high] @ b[low:high]``; rows and columns beyond the last are the first ones again."""
    rows = (i * TILE_M + tl.arange(0, TILE_M)) % M
    columns = (j * TILE_N + tl.arange(0, TILE_N)) % N
    k = tl.arange(0, TILE_K)
    from_a = a + rows[:, None] * row_a + (low + k)[None, :] * k_a
    from_b = b + (low + k)[:, None] * k_b + columns[None, :] * column_b
    sums = tl.zeros((TILE_M, TILE_N), tl.int32 if a.dtype.element_ty == tl.int8 else tl.float32)
    for start in range(low, high, TILE_K):
        x = tl.load(from_a, mask=k[None, :] < high - start, other=0)
        y = tl.load(from_b, mask=k[:, None] < high - start, other=0)
        sums = tl.dot(x, y, sums, out_dtype=sums.dtype)
        from_a += TILE_K * k_a
        from_b += TILE_K * k_b
    return sums


@triton.jit
def store_tile(c, sums, i, j, M, N):
    """Store a tile of ``c[M, N]`` where there are rows and columns."""
    rows, columns = i * sums.shape[0] + tl.arange(0, sums.shape[0]), j * sums.shape[1] + tl.arange(0, sums.shape[1])
    there = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(c + rows[:, None] * N + columns[None, :], sums.to(c.dtype.element_ty), mask=there)


@triton.jit
def matmul(
    a, b, c, M, N, K, row_a, k_a, k_b, column_b, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
    BAND: tl.constexpr,
):  # fmt: skip
    i, j = place_of(tl.program_id(0), M, N, TILE_M, TILE_N, BAND)
    sums = sums_of(a, b, i, j, 0, K, M, N, row_a, k_a, k_b, column_b, TILE_M, TILE_N, TILE_K)
    store_tile(c, sums, i, j, M, N)


tuned_matmul = triton.autotune(
    configs=[
        triton.Config({"TILE_M": 8, "TILE_N": 16, "TILE_K": 16, "BAND": 2}, num_warps=1),
        triton.Config({"TILE_M": 32, "TILE_N": 16, "TILE_K": 32, "BAND": 4}, num_stages=4),
    ],
    key=["M", "N", "K"],
)(matmul)


@triton.jit
def split_products(
    a, b, parts, M, N, K, part, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr
):  # fmt: skip
    """``parts[s] = a[:, s * part:][:, :part] @ b[s * part:][:part]``; the grid is (tiles, parts)."""
    i, j = place_of(tl.program_id(0), M, N, TILE_M, TILE_N, 1)
    low = tl.program_id(1) * part
    sums = sums_of(a, b, i, j, low, tl.minimum(low + part, K), M, N, K, 1, N, 1, TILE_M, TILE_N, TILE_K)
    store_tile(parts + tl.program_id(1) * M * N, sums, i, j, M, N)


@triton.jit
def sum_parts(parts, c, count, elements, BLOCK: tl.constexpr):
    """``c = parts.sum(0)``."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), parts.dtype.element_ty)
    for part in range(count):
        total += tl.load(parts + part * elements + i, mask=i < elements, other=0)
    tl.store(c + i, total.to(c.dtype.element_ty), mask=i < elements)


@triton.jit
def grouped_matmul(problems, sizes, groups, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr):
    """Products of matrices of several sizes by a few programs, each of which takes one tile after another.

    Args:
        problems: int64 ``[groups][3]``, the addresses of fp32 a ``[M, K]``, b ``[K, N]`` and c ``[M, N]``.
        sizes: int32 ``[groups][3]``, M, N and K.
    """
    tile, before = tl.program_id(0), 0
    for group in range(groups):
        m, n, k = tl.load(sizes + 3 * group), tl.load(sizes + 3 * group + 1), tl.load(sizes + 3 * group + 2)
        a = tl.load(problems + 3 * group).to(tl.pointer_type(tl.float32))
        b = tl.load(problems + 3 * group + 1).to(tl.pointer_type(tl.float32))
        c = tl.load(problems + 3 * group + 2).to(tl.pointer_type(tl.float32))
        after = before + tl.cdiv(m, TILE_M) * tl.cdiv(n, TILE_N)
        while tile < after:
            i, j = place_of(tile - before, m, n, TILE_M, TILE_N, 2)
            store_tile(c, sums_of(a, b, i, j, 0, k, m, n, k, 1, n, 1, TILE_M, TILE_N, TILE_K), i, j, m, n)
            tile += tl.num_programs(0)
        before = after


@triton.jit
def batched_matmul(
    a, b, c, S, M, N, K, TILE_S: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr
):
    """``c[S, M, N] = a[S, M, K] @ b[S, K, N]``, several matrices at a time; one tile is all of M and N."""
    s = (tl.program_id(0) * TILE_S + tl.arange(0, TILE_S))[:, None, None]
    m, n = tl.arange(0, TILE_M)[None, :, None], tl.arange(0, TILE_N)[None, None, :]
    sums = tl.zeros((TILE_S, TILE_M, TILE_N), tl.int32 if a.dtype.element_ty == tl.int8 else tl.float32)
    for start in range(0, K, TILE_K):
        k_a, k_b = start + tl.arange(0, TILE_K)[None, None, :], start + tl.arange(0, TILE_K)[None, :, None]
        x = tl.load(a + s * M * K + m * K + k_a, mask=(s < S) & (m < M) & (k_a < K), other=0)
        y = tl.load(b + s * K * N + k_b * N + n, mask=(s < S) & (k_b < K) & (n < N), other=0)
        sums = tl.dot(x, y, sums, out_dtype=sums.dtype)
    tl.store(c + s * M * N + m * N + n, sums.to(c.dtype.element_ty), mask=(s < S) & (m < M) & (n < N))


@triton.jit
def gated(x, gate, up, y, M, N, K, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr):
    """``silu(x @ gate) * (x @ up)``: two products of the same rows."""
    i, j = tl.program_id(0), tl.program_id(1)
    rows, columns = i * TILE_M + tl.arange(0, TILE_M), j * TILE_N + tl.arange(0, TILE_N)
    gates = tl.zeros((TILE_M, TILE_N), tl.float32)
    ups = tl.zeros((TILE_M, TILE_N), tl.float32)
    for start in range(0, K, TILE_K):
        k = start + tl.arange(0, TILE_K)
        values = tl.load(x + rows[:, None] * K + k[None, :], mask=(rows < M)[:, None] & (k < K)[None, :], other=0)
        places, there = k[:, None] * N + columns[None, :], (k < K)[:, None] & (columns < N)[None, :]
        gates = tl.dot(values, tl.load(gate + places, mask=there, other=0), gates)
        ups = tl.dot(values, tl.load(up + places, mask=there, other=0), ups)
    store_tile(y, gates * tl.sigmoid(gates) * ups, i, j, M, N)


@triton.jit
def attention(
    q, k, v, o, length, scale, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr
):
    """``softmax(q @ k.T * scale) @ v`` of ``[heads, length, WIDTH]`` by running maxima and sums; grid (blocks, heads).

    Source of the method: FlashAttention-2, https://arxiv.org/abs/2307.08691.
    """
    head = tl.program_id(1) * length * WIDTH
    rows, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    places = head + rows[:, None] * WIDTH + d[None, :]
    queries = tl.load(q + places, mask=(rows < length)[:, None], other=0)
    top, total = tl.full((ROWS,), -float("inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    end = tl.minimum(length, (tl.program_id(0) + 1) * ROWS) if CAUSAL else length
    for first in range(0, end, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        there = columns < length
        keys = tl.load(k + head + columns[None, :] * WIDTH + d[:, None], mask=there[None, :], other=0)
        seen = there[None, :] & (columns[None, :] <= rows[:, None]) if CAUSAL else there[None, :]
        scores = tl.where(seen, tl.dot(queries, keys) * scale, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights, kept = tl.exp(scores - new_top[:, None]), tl.exp(top - new_top)
        values = tl.load(v + head + columns[:, None] * WIDTH + d[None, :], mask=there[:, None], other=0)
        sums = tl.dot(weights.to(values.dtype), values, sums * kept[:, None])
        top, total = new_top, total * kept + tl.sum(weights, 1)
    tl.store(o + places, (sums / total[:, None]).to(o.dtype.element_ty), mask=(rows < length)[:, None])
