"""Kernels in which products are added to, branched around, carried by several loops and used more than once."""

import numpy as np
import triton
import triton.language as tl
from dot_kernels import NUMPY, case, exact, operand, product, result_of
from tensor_kernels import KernelCase


@triton.jit
def operands_of(a, b, step, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    """``a[:, step * B:][:, :B]`` and ``b[step * B:][:B]``."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), step * B + tl.arange(0, B)
    return tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + n[None, :])


@triton.jit
def places(M: tl.constexpr, N: tl.constexpr):
    return tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]


@triton.jit
def added_to_loaded(a, b, c, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    """The result is stored, and added to again."""
    at = places(M, N)
    x, y = operands_of(a, b, 0, M, N, K, B)
    sums = tl.dot(x, y, tl.load(c + at), out_dtype=o.dtype.element_ty)
    tl.store(o + at, sums)
    x, y = operands_of(a, b, 1, M, N, K, B)
    tl.store(o + M * N + at, tl.dot(x, y, sums, out_dtype=sums.dtype) + sums)


@triton.jit
def in_a_branch(a, b, flag, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    if flag > 0:
        x, y = operands_of(a, b, 0, M, N, K, K)
        sums = tl.dot(x, y)
    else:
        sums = tl.full((M, N), 5, o.dtype.element_ty)
    tl.store(o + places(M, N), sums)


@triton.jit
def every_other(a, b, steps, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    sums = tl.zeros((M, N), o.dtype.element_ty)
    for step in range(steps):
        if step % 2 == 0:
            x, y = operands_of(a, b, step, M, N, K, B)
            sums = tl.dot(x, y, sums, out_dtype=sums.dtype)
    tl.store(o + places(M, N), sums)


@triton.jit
def in_nested_loops(a, b, outer, inner, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    sums = tl.zeros((M, N), o.dtype.element_ty)
    for i in range(outer):
        for j in range(inner):
            x, y = operands_of(a, b, i * inner + j, M, N, K, B)
            sums = tl.dot(x, y, sums, out_dtype=sums.dtype)
        sums += i + 1
    tl.store(o + places(M, N), sums)


@triton.jit
def two_sums(a, b, steps, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    """Rows from the left operand, and from below it, by the same columns; the second sums take in the first."""
    first = tl.zeros((M, N), o.dtype.element_ty)
    second = tl.zeros((M, N), o.dtype.element_ty)
    for step in range(steps):
        x, y = operands_of(a, b, step, M, N, K, B)
        z, _ = operands_of(a + M * K, b, step, M, N, K, B)
        second = tl.dot(z, y, second, out_dtype=second.dtype)
        second += first
        first = tl.dot(x, y, first, out_dtype=first.dtype)
    tl.store(o + places(M, N), first)
    tl.store(o + M * N + places(M, N), second)


@triton.jit
def stored_in_the_loop(a, b, steps, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    sums = tl.zeros((M, N), o.dtype.element_ty)
    for step in range(steps):
        x, y = operands_of(a, b, step, M, N, K, B)
        sums = tl.dot(x, y, sums, out_dtype=sums.dtype)
        tl.store(o + step * M * N + places(M, N), sums)


@triton.jit
def rounded(a, b, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    x, y = operands_of(a, b, 0, M, N, K, K)
    tl.store(o + places(M, N), tl.dot(x, y).to(o.dtype.element_ty))


STEPS = 4


class _Operands:
    """Operands ``[2 * m, k]`` and ``[k, n]``, and the products of their parts along k."""

    def __init__(self, kind: str, m: int, n: int, k: int):
        self.kind, self.sizes = kind, {"M": m, "N": n, "K": k}
        self.a, self.b, out = operand(kind, 2 * m, k), operand(kind, k, n), result_of(kind)
        self.c = np.arange(m * n).reshape(m, n).astype(NUMPY[out]) - 100
        a, b, part = exact(kind, self.a), exact(kind, self.b), k // STEPS
        parts = [a[:, i : i + part] @ b[i : i + part] for i in range(0, k, part)]
        self.upper, self.lower = (np.stack([x[half] for x in parts]) for half in (slice(m), slice(m, None)))

    def case(self, kernel, expected: np.ndarray, *scalars: "int | np.ndarray", step: int | None = None) -> KernelCase:
        """A kernel of the operands, ``scalars`` (c among them), and the output."""
        out = result_of(self.kind)
        constexprs = self.sizes if step is None else {**self.sizes, "B": step}
        names = [name for name in kernel.arg_names if name not in ("a", "b", "o", *constexprs)]
        others = {name: f"*{out}" if name == "c" else "i32" for name in names}
        signature = {"a": f"*{self.kind}", "b": f"*{self.kind}", **others, "o": f"*{out}"}
        tolerance = 0.0 if self.kind == "i8" else 5e-4
        expected = expected.astype(NUMPY[out])
        return KernelCase(kernel, signature, constexprs, (self.a, self.b, *scalars), expected, tolerance=tolerance)


def _uses(kind: str, m: int, n: int, k: int) -> list[KernelCase]:
    of = _Operands(kind, m, n, k)
    up, low, step = of.upper, of.lower, k // STEPS
    first = up[0] + of.c
    before = sum((STEPS - 1 - i) * up[i] for i in range(STEPS))
    return [
        of.case(added_to_loaded, np.stack([first, 2 * first + up[1]]), of.c, step=step),
        of.case(in_a_branch, up.sum(0), 1),
        of.case(in_a_branch, np.full((m, n), 5), 0),
        of.case(every_other, up[0] + up[2], STEPS, step=step),
        of.case(in_nested_loops, up.sum(0) + 3, 2, STEPS // 2, step=step),
        of.case(two_sums, np.stack([up.sum(0), low.sum(0) + before]), STEPS, step=step),
        of.case(stored_in_the_loop, up.cumsum(0), STEPS, step=step),
    ]


def _rounded(kind: str, m: int, n: int, k: int) -> KernelCase:
    """Sums of small integers, exact in fp32, to the bits of bf16: half to even."""
    a, b = (np.random.default_rng(seed).integers(-9, 10, shape) for seed, shape in ((0, (m, k)), (1, (k, n))))
    bits = (a @ b).astype(np.float32).view(np.uint32)
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    inputs = [x.astype(np.float32) for x in (a, b)]
    inputs = [(x.view(np.uint32) >> 16).astype(np.uint16) if kind == "bf16" else x.astype(NUMPY[kind]) for x in inputs]
    signature = {"a": f"*{kind}", "b": f"*{kind}", "o": "*bf16"}
    return KernelCase(rounded, signature, {"M": m, "N": n, "K": k}, tuple(inputs), expected)


def rows_alone(m: int, n: int, k: int) -> list[KernelCase]:
    """int8 products of the same rows, all of them at once and one by one."""
    whole = case(product, "i8", m, n, k, M=m, N=n, K=k)
    a, b = whole.inputs
    sizes = {"M": 1, "N": n, "K": k}
    single = [KernelCase(product, whole.signature, sizes, (a[i], b), whole.expected[i : i + 1]) for i in range(m)]
    return [whole, *single]


# In registers, and more than there are registers on any target.
DOT_USES = [
    *(use for kind in ("i8", "bf16") for use in _uses(kind, 4, 16, 64)),
    *(use for kind in ("i8", "fp32") for use in _uses(kind, 64, 32, 64)),
    *(use for m in (32, 64) for use in _uses("i8", m, 32, 256)),
    *(_rounded(kind, m, 32, 64) for kind in ("bf16", "fp32") for m in (2, 64)),
    *(case(product, kind, m, n, 1, M=m, N=n, K=1) for kind in ("i8", "bf16") for m, n in ((16, 32), (1, 64), (64, 1))),
    case(product, "fp32", 128, 128, 64, M=128, N=128, K=64),
    *rows_alone(4, 32, 64),
]
