"""Kernels of ``tl.dot``, each with inputs and a numpy oracle: run on the host and under emulation."""

import numpy as np
import triton
import triton.language as tl
from tensor_kernels import KernelCase, poisoned

# numpy has no bf16: its bits are the upper half of those of fp32.
NUMPY = {
    "i8": np.int8,
    "i32": np.int32,
    "fp16": np.float16,
    "bf16": np.uint16,
    "fp32": np.float32,
    "fp64": np.float64,
}


@triton.jit
def product(a, b, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(a + m[:, None] * K + k[None, :])
    y = tl.load(b + k[:, None] * N + n[None, :])
    tl.store(o + m[:, None] * N + n[None, :], tl.dot(x, y))


@triton.jit
def long_product(a, b, steps, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, B)
    sums = tl.zeros((M, N), o.dtype.element_ty)
    x, y = a + m[:, None] * K + k[None, :], b + k[:, None] * N + n[None, :]
    for _ in range(steps):
        sums = tl.dot(tl.load(x), tl.load(y), sums, out_dtype=sums.dtype)
        x += B
        y += B * N
    tl.store(o + m[:, None] * N + n[None, :], sums)


@triton.jit
def scaled_between(a, b, steps, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, B)
    sums = tl.zeros((M, N), tl.float32)
    for step in range(steps):
        x = tl.load(a + m[:, None] * K + step * B + k[None, :])
        y = tl.load(b + (step * B + k)[:, None] * N + n[None, :])
        sums = sums * (0.5 + m)[:, None] + tl.dot(x, y)
    tl.store(o + m[:, None] * N + n[None, :], sums)


@triton.jit
def masked_product(a, b, rows, columns, inner, o, M: tl.constexpr, N: tl.constexpr, B: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, B)
    sums = tl.zeros((M, N), o.dtype.element_ty)
    for start in range(0, inner, B):
        i = start + k
        x = tl.load(a + m[:, None] * inner + i[None, :], mask=(m[:, None] < rows) & (i[None, :] < inner), other=0)
        y = tl.load(b + i[:, None] * columns + n[None, :], mask=(i[:, None] < inner) & (n[None, :] < columns), other=0)
        sums += tl.dot(x, y)
    tl.store(o + m[:, None] * columns + n[None, :], sums, mask=(m[:, None] < rows) & (n[None, :] < columns))


@triton.jit
def of_packed(a, b, steps, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, C: tl.constexpr, G: tl.constexpr):
    """The right operand lies in panels: ``[K / G][N / C][C][G]``."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, G)
    sums = tl.zeros((M, N), tl.int32)
    for step in range(steps):
        y = tl.load(b + step * N * G + tl.arange(0, N * G)).reshape(N, G).trans()
        sums = tl.dot(tl.load(a + m[:, None] * K + step * G + k[None, :]), y, sums, out_dtype=sums.dtype)
    tl.store(o + m[:, None] * N + n[None, :], sums)


@triton.jit
def of_flipped(a, b, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """The left operand lies with its sign bits flipped, as unsigned bytes 128 more than it is."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(a + m[:, None] * K + k[None, :]) ^ -128
    tl.store(o + m[:, None] * N + n[None, :], tl.dot(x, tl.load(b + k[:, None] * N + n[None, :])))


@triton.jit
def placed(a, b, rows, columns, stride, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """Rows of the result lie ``stride`` apart; a register may hold several of them."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    sums = tl.dot(tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + n[None, :]))
    row, column = tl.program_id(0) * M + m, tl.program_id(1) * N + n
    places = o + row[:, None].to(tl.int64) * stride + column[None, :]
    tl.store(places, sums, mask=(row < rows)[:, None] & (column < columns)[None, :])


@triton.jit
def batched(a, b, o, S: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    s, m, n, k = tl.arange(0, S), tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(a + s[:, None, None] * M * K + m[None, :, None] * K + k[None, None, :])
    y = tl.load(b + s[:, None, None] * N * K + k[None, :, None] * N + n[None, None, :])
    tl.store(o + s[:, None, None] * M * N + m[None, :, None] * N + n[None, None, :], tl.dot(x, y))


@triton.jit
def chained(a, b, c, o, M: tl.constexpr):
    """Attention's shape: a product of a product, of which the left operand is transposed."""
    i = tl.arange(0, M)
    at = i[:, None] * M + i[None, :]
    scores = tl.dot(tl.load(a + at), tl.load(b + at).trans())
    tl.store(o + at, tl.dot(scores * 0.25, tl.load(c + at)))


@triton.jit
def stored_between(a, o, M: tl.constexpr):
    """What is stored between a load and the product must not be seen by it."""
    i = tl.arange(0, M)
    at = i[:, None] * M + i[None, :]
    x = tl.load(o + at)
    tl.store(o + at, tl.load(a + at))
    tl.store(o + at, tl.dot(x, tl.load(o + at)).to(tl.int8))


_RANDOM = np.random.default_rng(7)


def operand(kind: str, *shape: int) -> np.ndarray:
    """Random numbers, exact in ``kind``: all int8, saturated ones more often than by chance."""
    if kind == "i8":
        return np.where(_RANDOM.random(shape) < 0.2, -128, _RANDOM.integers(-128, 128, shape)).astype(np.int8)
    values = _RANDOM.standard_normal(shape).astype(np.float32)
    if kind == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(NUMPY[kind])


def exact(kind: str, values: np.ndarray) -> np.ndarray:
    """The numbers as int64 or fp64."""
    if kind == "bf16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.int64 if kind == "i8" else np.float64)


def result_of(kind: str) -> str:
    """The type that products of ``kind`` are summed in."""
    return {"i8": "i32", "fp64": "fp64"}.get(kind, "fp32")


def case(kernel, kind: str, m: int, n: int, k: int, *scalars: int, **constexprs: int) -> KernelCase:
    """A kernel of the operands ``[m, k]`` and ``[k, n]``, integers, and the output."""
    a, b = operand(kind, m, k), operand(kind, k, n)
    out = result_of(kind)
    expected = (exact(kind, a) @ exact(kind, b)).astype(NUMPY[out])
    names = [parameter for parameter in kernel.arg_names if parameter not in ("a", "b", "o", *constexprs)]
    signature = {"a": f"*{kind}", "b": f"*{kind}", **dict.fromkeys(names, "i32"), "o": f"*{out}"}
    tolerance = 0.0 if kind == "i8" else 2e-5 * max(k, 8) ** 0.5
    return KernelCase(kernel, signature, constexprs, (a, b, *scalars), expected, tolerance=tolerance)


def _products() -> list[KernelCase]:
    shapes = [
        (1, 1, 1),
        (1, 1, 64),
        (1, 64, 8),
        (64, 1, 8),
        (2, 2, 2),
        (4, 2, 8),
        (2, 32, 4),
        (16, 16, 16),
        (64, 64, 64),
    ]
    # fp16 and fp64 are multiplied like fp32.
    fewer = [*shapes[1::2], shapes[-1]]
    return [
        case(product, kind, *shape, **dict(zip("MNK", shape, strict=True)))
        for kind in ("i8", "bf16", "fp32", "fp16", "fp64")
        for shape in (fewer if kind in ("fp16", "fp64") else shapes)
    ]


def _loops() -> list[KernelCase]:
    return [
        case(long_product, kind, m, n, k, k // step, M=m, N=n, K=k, B=step)
        for kind in ("i8", "bf16", "fp32")
        for m, n, k, step in ((1, 32, 64, 16), (8, 8, 64, 16), (4, 16, 24, 8), (32, 64, 48, 16))
    ]


def _others() -> list[KernelCase]:
    packed = operand("i8", 8, 64), operand("i8", 64, 16)
    square = [operand("fp32", 32, 32) for _ in range(3)]
    pointers = dict.fromkeys("abco", "*fp32")
    cubes = operand("fp32", 2, 8, 16), operand("fp32", 2, 16, 32)
    panels = packed[1].reshape(8, 8, 16).transpose(0, 2, 1).copy()
    return [
        *(
            case(masked_product, kind, m, n, k, m, n, k, M=tile, N=tile, B=16)
            for kind in ("i8", "fp32")
            for m, n, k, tile in ((3, 5, 20, 8), (13, 27, 33, 32))
        ),
        KernelCase(
            of_packed,
            {"a": "*i8", "b": "*i8", "steps": "i32", "o": "*i32"},
            {"M": 8, "N": 16, "K": 64, "C": 16, "G": 8},
            (packed[0], panels, 8),
            packed[0].astype(np.int32) @ packed[1].astype(np.int32),
        ),
        *(_flipped(m, n, k) for m, n, k in ((8, 16, 32), (1, 64, 2), (64, 64, 64))),
        KernelCase(
            batched,
            dict.fromkeys("abo", "*fp32"),
            {"S": 2, "M": 8, "N": 32, "K": 16},
            cubes,
            cubes[0] @ cubes[1],
            tolerance=1e-4,
        ),
        KernelCase(
            chained, pointers, {"M": 32}, tuple(square), square[0] @ square[1].T * 0.25 @ square[2], tolerance=1e-3
        ),
        *(_placed(m, n, rows) for m, n in ((2, 8), (4, 8), (8, 4), (8, 8)) for rows in (m, m - 1)),
        *(_stored_between(size) for size in (8, 64)),
        *(_scaled(m, n) for m, n in ((8, 8), (64, 64))),
    ]


def _flipped(m: int, n: int, k: int) -> KernelCase:
    a, b = operand("i8", m, k), operand("i8", k, n)
    signature = {"a": "*i8", "b": "*i8", "o": "*i32"}
    expected = a.astype(np.int32) @ b.astype(np.int32)
    return KernelCase(of_flipped, signature, {"M": m, "N": n, "K": k}, (a ^ np.int8(-128), b), expected)


def _placed(m: int, n: int, rows: int) -> KernelCase:
    a, b = operand("i8", m, 16), operand("i8", 16, n)
    expected = poisoned((m, n + 3), np.int32)
    expected[:rows, :n] = (a.astype(np.int32) @ b.astype(np.int32))[:rows]
    integers = dict.fromkeys(("rows", "columns"), "i32") | {"stride": "i64"}
    signature = {"a": "*i8", "b": "*i8", **integers, "o": "*i32"}
    return KernelCase(placed, signature, {"M": m, "N": n, "K": 16}, (a, b, rows, n, n + 3), expected)


def _stored_between(size: int) -> KernelCase:
    a = operand("i8", size, size)
    expected = (poisoned((size, size), np.int8).astype(int) @ a).astype(np.int8)
    return KernelCase(stored_between, {"a": "*i8", "o": "*i8"}, {"M": size}, (a,), expected)


def _scaled(m: int, n: int) -> KernelCase:
    a, b = operand("fp32", m, 48), operand("fp32", 48, n)
    expected = np.zeros((m, n))
    for step in range(0, 48, 16):
        expected = expected * (0.5 + np.arange(m))[:, None] + a[:, step : step + 16].astype(float) @ b[step : step + 16]
    signature = {"a": "*fp32", "b": "*fp32", "steps": "i32", "o": "*fp32"}
    constexprs = {"M": m, "N": n, "K": 48, "B": 16}
    return KernelCase(scaled_between, signature, constexprs, (a, b, 3), expected.astype(np.float32), tolerance=1e-2)


def _matrices() -> list[KernelCase]:
    """int8 that fills tile registers of 16 rows of 64 bytes: one, all of them, more than there are, under masks."""
    shapes = ((16, 16, 64), (32, 64, 128), (128, 64, 256))
    loops = ((16, 64, 192, 64), (32, 32, 256, 64), (64, 64, 256, 128))
    masked = ((20, 27, 130), (32, 32, 64))
    return [
        *(case(product, "i8", *shape, **dict(zip("MNK", shape, strict=True))) for shape in shapes),
        *(case(long_product, "i8", m, n, k, k // step, M=m, N=n, K=k, B=step) for m, n, k, step in loops),
        *(case(masked_product, "i8", m, n, k, m, n, k, M=32, N=32, B=64) for m, n, k in masked),
        _flipped(32, 16, 128),
    ]


DOT_CASES = [*_products(), *_loops(), *_others(), *_matrices()]
