import pytest
import torch
import triton
import triton.language as tl
import user_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_support import registered
from strided import CONTIGUOUS, LAYOUTS, Strided

INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = st.integers(1, 70)
TILES = st.sampled_from([(1, 16), (4, 8), (16, 32), (64, 2)])
# The last is how many rows of tiles a band has.
PRODUCT_TILES = st.sampled_from([(16, 16, 16, 1), (2, 32, 8, 3)])
THREE_LAYOUTS = st.tuples(LAYOUTS, LAYOUTS, LAYOUTS)
few = settings(max_examples=12, deadline=None, derandomize=True, database=None)


@pytest.fixture(autouse=True, scope="module")
def _on_cpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, registered():
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@triton.jit
def add_inside(
    x, y, o, M, N, x_row, x_column, y_row, y_column, o_row, o_column, top, bottom, left, right, BOTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr,
):  # fmt: skip
    """``o = x + y``, or x without BOTH, in a window."""
    i = (tl.program_id(0) * TILE_M + tl.arange(0, TILE_M))[:, None]
    j = (tl.program_id(1) * TILE_N + tl.arange(0, TILE_N))[None, :]
    there = (i >= top) & (i < bottom) & (j >= left) & (j < right) & (i < M) & (j < N)
    values = tl.load(x + i * x_row + j * x_column, mask=there)
    if BOTH:
        values += tl.load(y + i * y_row + j * y_column, mask=there)
    tl.store(o + i * o_row + j * o_column, values, mask=there)


@triton.jit
def copy_chosen(
    x, chosen, o, M, N, x_row, x_column, o_row, o_column, TILE_M: tl.constexpr, TILE_N: tl.constexpr
):  # fmt: skip
    """``o = x`` where ``chosen[M, N]``, else -1 on even columns."""
    i = (tl.program_id(0) * TILE_M + tl.arange(0, TILE_M))[:, None]
    j = (tl.program_id(1) * TILE_N + tl.arange(0, TILE_N))[None, :]
    there = (i < M) & (j < N)
    mine = there & tl.load(chosen + i * N + j, mask=there, other=0)
    values = tl.load(x + i * x_row + j * x_column, mask=mine, other=-1)
    tl.store(o + i * o_row + j * o_column, values, mask=there & (mine | (j % 2 == 0)))


@triton.jit
def reduce_rows(
    x, sums, tops, M, N, x_row, x_column, sums_step, tops_step, TILE_M: tl.constexpr, TILE_N: tl.constexpr
):  # fmt: skip
    i = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    total = tl.zeros((TILE_M,), sums.dtype.element_ty)
    top = tl.full((TILE_M,), -100, tl.float32)
    for start in range(0, N, TILE_N):
        j = start + tl.arange(0, TILE_N)
        places, there = x + i[:, None] * x_row + j[None, :] * x_column, (i < M)[:, None] & (j < N)[None, :]
        total += tl.sum(tl.load(places, mask=there, other=0).to(sums.dtype.element_ty), 1)
        top = tl.maximum(top, tl.max(tl.load(places, mask=there, other=-99).to(tl.float32), 1))
    tl.store(sums + i * sums_step, total, mask=i < M)
    tl.store(tops + i * tops_step, top.to(tops.dtype.element_ty), mask=i < M)


def numbers(dtype, *shape, seed=0):
    """Integers whose sums are exact in all types."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def window(draw, size):
    """The first of some elements, and the one after the last, which may be beyond all that there are."""
    first = draw(st.integers(0, size))
    return first, draw(st.integers(first, size + 3))


@few
@given(st.data(), st.booleans(), st.sampled_from(INTEGERS + FLOATS), SIZES, SIZES, TILES, THREE_LAYOUTS)
def test_sums_in_a_window(data, both, dtype, m, n, tile, layouts):
    a, b = numbers(dtype, m, n, seed=1), numbers(dtype, m, n, seed=2)
    x, y, o = Strided(a, layouts[0]), Strided(b, layouts[1]), Strided.poison(dtype, m, n, layouts[2])
    (top, bottom), (left, right) = window(data.draw, m), window(data.draw, n)
    grid = triton.cdiv(m, tile[0]), triton.cdiv(n, tile[1])
    strides = *x.strides, *y.strides, *o.strides
    add_inside[grid](x.pointer, y.pointer, o.pointer, m, n, *strides, top, bottom, left, right, both, *tile)
    inside = torch.zeros(m, n, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    o.assert_written(a + b if both else a, inside)


@few
@given(st.sampled_from(INTEGERS + FLOATS), SIZES, SIZES, TILES, LAYOUTS, LAYOUTS, st.integers(-9, 10))
def test_copies_of_chosen_elements(dtype, m, n, tile, from_layout, to_layout, least):
    a, chosen = numbers(dtype, m, n), numbers(torch.int8, m, n, seed=1) >= least
    x, o = Strided(a, from_layout), Strided.poison(dtype, m, n, to_layout)
    grid = triton.cdiv(m, tile[0]), triton.cdiv(n, tile[1])
    copy_chosen[grid](x.pointer, chosen, o.pointer, m, n, *x.strides, *o.strides, *tile)
    expected = torch.where(chosen, a, torch.tensor(-1, dtype=dtype))
    o.assert_written(expected, chosen | (torch.arange(n) % 2 == 0))


@few
@given(st.sampled_from(INTEGERS + FLOATS), SIZES, SIZES, TILES, THREE_LAYOUTS)
def test_reductions_of_rows(dtype, m, n, tile, layouts):
    a, wide = numbers(dtype, m, n), torch.float64 if dtype.is_floating_point else torch.int32
    x = Strided(a, layouts[0])
    sums, tops = Strided.poison(wide, m, 1, layouts[1]), Strided.poison(torch.int32, m, 1, layouts[2])
    steps = sums.strides[0], tops.strides[0]
    reduce_rows[(triton.cdiv(m, tile[0]),)](x.pointer, sums.pointer, tops.pointer, m, n, *x.strides, *steps, *tile)
    everywhere = torch.ones(m, 1, dtype=torch.bool)
    sums.assert_written(a.to(wide).sum(1, keepdim=True).to(wide), everywhere)
    tops.assert_written(a.amax(1, keepdim=True).int(), everywhere)


@few
@given(st.sampled_from([torch.int8, *FLOATS[:3]]), SIZES, SIZES, SIZES, PRODUCT_TILES, LAYOUTS, LAYOUTS)
def test_products(dtype, m, n, k, tile, a_layout, b_layout):
    a, b = numbers(dtype, m, k, seed=1), numbers(dtype, k, n, seed=2)
    x, y = Strided(a, a_layout), Strided(b, b_layout)
    wide = torch.int32 if dtype == torch.int8 else torch.float32
    o = Strided.poison(wide, m, n, CONTIGUOUS)
    grid = (triton.cdiv(m, tile[0]) * triton.cdiv(n, tile[1]),)
    user_kernels.matmul[grid](x.pointer, y.pointer, o.pointer, m, n, k, *x.strides, *y.strides, *tile)
    # Sums begin with 0, to which products of -0 add nothing.
    o.assert_written(0 + a.to(wide) @ b.to(wide), torch.ones(m, n, dtype=torch.bool))
