import pytest
import torch
import triton
import user_kernels as k
from plugin_support import registered
from torch.nn import functional

INT8, FLOATS = torch.int8, (torch.float32, torch.float16, torch.bfloat16)
SHAPES = [(1, 1, 1), (37, 50, 70), (64, 64, 64), (130, 33, 65)]
SMALL, LARGE = (16, 32, 16), (64, 64, 32)


@pytest.fixture(autouse=True, scope="module")
def _on_cpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, registered():
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def matrix(dtype, *shape):
    """Random numbers; those of fp32 are small integers, whose products and sums are exact."""
    if dtype == INT8:
        return torch.randint(-128, 128, shape, dtype=dtype)
    return torch.randint(-8, 9, shape).float() if dtype == torch.float32 else torch.randn(shape).to(dtype)


def product(a, b):
    """The exact product: int32, or rounded once to the type of the operands."""
    return (a.long() @ b.long()).int() if a.dtype == INT8 else (a.double() @ b.double()).to(a.dtype)


def assert_equal(actual, expected):
    """Equal, or apart by what sums in fp32 in another order, rounded to 16 bits, are."""
    exact = expected.dtype in (torch.int32, torch.float32)
    torch.testing.assert_close(actual, expected, rtol=0 if exact else 2**-7, atol=0 if exact else 1e-3)


def inside(expected):
    """Room for the result in the middle of poison, and that poison."""
    whole = torch.full((expected.numel() + 128,), 77, dtype=expected.dtype)
    return whole[64:-64].view(expected.shape), (whole[:64], whole[-64:])


def assert_untouched(edges):
    assert all((edge == 77).all() for edge in edges)


def multiply(kernel, a, b, **tile):
    (m, inner), n = a.shape, b.shape[1]
    expected = product(a, b)
    c, edges = inside(expected)
    kernel[lambda meta: (triton.cdiv(m, meta["TILE_M"]) * triton.cdiv(n, meta["TILE_N"]),)](
        a, b, c, m, n, inner, *a.stride(), *b.stride(), **tile
    )
    assert_equal(c, expected)
    assert_untouched(edges)


@pytest.mark.parametrize("dtype", [*FLOATS, INT8])
class TestMatmul:
    @pytest.mark.parametrize(("shape", "tile"), [*((shape, SMALL) for shape in SHAPES), (SHAPES[-1], LARGE)])
    def test_shapes(self, dtype, shape, tile):
        m, n, inner = shape
        names = dict(zip(("TILE_M", "TILE_N", "TILE_K"), tile, strict=True))
        multiply(k.matmul, matrix(dtype, m, inner), matrix(dtype, inner, n), **names, BAND=2)

    def test_transposed_by_strides(self, dtype):
        a, b = matrix(dtype, 45, 40), matrix(dtype, 70, 45)
        multiply(k.matmul, a.T, b.T, TILE_M=16, TILE_N=32, TILE_K=16, BAND=3)

    def test_autotuned(self, dtype):
        multiply(k.tuned_matmul, matrix(dtype, 37, 70), matrix(dtype, 70, 50))
        assert k.tuned_matmul.best_config in k.tuned_matmul.configs

    def test_split(self, dtype):
        m, n, inner, part = 20, 37, 200, 64
        a, b = matrix(dtype, m, inner), matrix(dtype, inner, n)
        expected = product(a, b)
        parts = torch.empty(4, m, n, dtype=torch.int32 if dtype == INT8 else torch.float32)
        k.split_products[(2 * 3, 4)](a, b, parts, m, n, inner, part, TILE_M=16, TILE_N=16, TILE_K=32)
        c, edges = inside(expected)
        k.sum_parts[(triton.cdiv(m * n, 256),)](parts, c, 4, m * n, BLOCK=256)
        assert_equal(c, expected)
        assert_untouched(edges)

    def test_batched(self, dtype):
        s, m, n, inner = 5, 7, 12, 30
        a, b = matrix(dtype, s, m, inner), matrix(dtype, s, inner, n)
        expected = product(a, b)
        c, edges = inside(expected)
        k.batched_matmul[(3,)](a, b, c, s, m, n, inner, TILE_S=2, TILE_M=8, TILE_N=16, TILE_K=16)
        assert_equal(c, expected)
        assert_untouched(edges)


@pytest.mark.parametrize("programs", [1, 3, 100])
def test_grouped_by_persistent_programs(programs):
    problems = [(matrix(torch.float32, m, inner), matrix(torch.float32, inner, n)) for m, n, inner in SHAPES]
    results = [inside(product(a, b)) for a, b in problems]
    addresses = [[x.data_ptr() for x in (a, b, c)] for (a, b), (c, _) in zip(problems, results, strict=True)]
    k.grouped_matmul[(programs,)](
        torch.tensor(addresses), torch.tensor(SHAPES, dtype=torch.int32), len(SHAPES), TILE_M=16, TILE_N=32, TILE_K=32
    )
    for (a, b), (c, edges) in zip(problems, results, strict=True):
        assert_equal(c, product(a, b))
        assert_untouched(edges)


@pytest.mark.parametrize("dtype", FLOATS)
def test_two_products_of_the_same_rows(dtype):
    x, gate, up = torch.randn(21, 75), torch.randn(75, 40) / 8, torch.randn(75, 40) / 8
    x, gate, up = (tensor.to(dtype) for tensor in (x, gate, up))
    expected = (functional.silu(x.double() @ gate.double()) * (x.double() @ up.double())).to(dtype)
    y, edges = inside(expected)
    k.gated[(2, 3)](x, gate, up, y, 21, 40, 75, TILE_M=16, TILE_N=16, TILE_K=32)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    assert_untouched(edges)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(dtype, width, causal):
    heads, length = 3, 75
    q, keys, v = (torch.randn(heads, length, width).to(dtype) for _ in range(3))
    expected = functional.scaled_dot_product_attention(q.double(), keys.double(), v.double(), is_causal=causal)
    o, edges = inside(expected.to(dtype))
    k.attention[(triton.cdiv(length, 32), heads)](
        q, keys, v, o, length, width**-0.5, WIDTH=width, ROWS=32, COLUMNS=16, CAUSAL=causal
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(o, expected.to(dtype), rtol=tolerance, atol=tolerance)
    assert_untouched(edges)
