"""Kernels of tensors, each with inputs and a numpy oracle: run on the host and under emulation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import triton
import triton.language as tl
from ttir_support import stock_module

from hf_tle_int8.backend.lowering.kernel import LoweredKernel, lower_kernel
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.ttir import stock

POISON = 0x7B


@dataclass(frozen=True)
class KernelCase:
    """A kernel whose last pointer is its output.

    Attributes:
        kernel: a ``triton.jit`` function.
        signature: types of its arguments.
        constexprs: values of the others.
        inputs: arrays and integers before the output.
        expected: what the output must be; the elements where it is masked hold the poison.
        grid: programs along x.
        tolerance: relative and absolute; 0 for equal bits.
    """

    kernel: Callable
    signature: dict[str, str]
    constexprs: dict[str, object]
    inputs: tuple
    expected: np.ndarray
    grid: int = 1
    tolerance: float = 0.0

    @property
    def id(self) -> str:
        """The name in the test report."""
        pointees = [kind[1:] for kind in self.signature.values() if kind[0] == "*"]
        return "-".join([self.kernel.__name__, pointees[0], *map(str, self.constexprs.values())])

    def lowered(self, target: Target) -> LoweredKernel:
        """The kernel as LLVM IR."""
        module = stock_module(self.kernel, self.signature, **self.constexprs)
        return lower_kernel(stock.read(module), target, python_entry=False)

    def check(self, call: Callable) -> None:
        """``call(*arguments, gx, gy, gz, threads)`` must write what is expected and nothing else."""
        output = poisoned(self.expected.shape, self.expected.dtype)
        call(*self.inputs, output, self.grid, 1, 1, 1)
        if self.tolerance:
            np.testing.assert_allclose(output, self.expected, rtol=self.tolerance, atol=self.tolerance)
        else:
            np.testing.assert_array_equal(output, self.expected)


def poisoned(shape: tuple[int, ...] | int, dtype: type) -> np.ndarray:
    """An array that nothing has been written to."""
    array = np.empty(shape, dtype)
    array.view(np.uint8)[...] = POISON
    return array


@triton.jit
def add(x, y, n, o, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(o + i, tl.load(x + i, mask=m) + tl.load(y + i, mask=m), mask=m)


@triton.jit
def softmax(x, n, o, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + i, mask=i < n, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(o + row * n + i, e / tl.sum(e, 0), mask=i < n)


@triton.jit
def row_sums(x, k, o, R: tl.constexpr, B: tl.constexpr):
    rows = tl.program_id(0) * R + tl.arange(0, R)
    acc = tl.zeros((R, B), tl.float32)
    p = x + rows[:, None] * k + tl.arange(0, B)[None, :]
    for _ in range(0, k, B):
        acc += tl.load(p)
        p += B
    tl.store(o + rows, tl.sum(acc, 1))


@triton.jit
def column_maxima(x, o, R: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :])
    tl.store(o + tl.arange(0, B), tl.max(v, 0))


@triton.jit
def first_maximum(x, o, R: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :])
    tl.store(o + tl.arange(0, R), tl.argmax(v, 1))


@triton.jit
def transpose(x, o, R: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :])
    tl.store(o + tl.arange(0, B)[:, None] * R + tl.arange(0, R)[None, :], tl.trans(v))


@triton.jit
def repacked(x, o, G: tl.constexpr, C: tl.constexpr, K: tl.constexpr):
    v = tl.load(x + tl.arange(0, G * C * K)).reshape(G, C, K).permute(1, 0, 2).reshape(C, G * K)
    tl.store(o + tl.arange(0, C)[:, None] * (G * K) + tl.arange(0, G * K)[None, :], v)


@triton.jit
def shifted_in_place(o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, i)
    tl.store(o + i + 1, tl.load(o + i))


@triton.jit
def gathered(x, indices, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    j = tl.load(indices + i)
    tl.store(o + i, tl.load(x + j, mask=j < n, other=-1))


@triton.jit
def collatz_steps(x, o, B: tl.constexpr):
    n = tl.load(x + tl.arange(0, B))
    steps = tl.zeros((B,), tl.int32)
    while tl.max(n, 0) > 1:
        steps += (n > 1).to(tl.int32)
        n = tl.where(n > 1, tl.where(n % 2 == 0, n // 2, 3 * n + 1), n)
    tl.store(o + tl.arange(0, B), steps)


@triton.jit
def even_programs_double(x, o, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + i)
    if tl.program_id(0) % 2 == 0:  # noqa: SIM108 - a branch is what is tested
        v = v * 2
    else:
        v = v - tl.arange(0, B)
    tl.store(o + i, v)


@triton.jit
def wrapping(o, B: tl.constexpr):
    i = tl.arange(0, B) * 300000007 + 2147483600
    tl.store(o + tl.arange(0, B), i.to(tl.int64) * 2)


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-9, 9, shape).astype(np.int32)


def _with_tail(values: np.ndarray, tail: int) -> np.ndarray:
    return np.concatenate([values.ravel(), poisoned(tail, values.dtype.type)])


def _collatz(n: int) -> int:
    return 0 if n <= 1 else 1 + _collatz(n // 2 if n % 2 == 0 else 3 * n + 1)


CASES: list[KernelCase] = []
_XYO = {"x": "*fp32", "y": "*fp32", "n": "i32", "o": "*fp32"}
for _n, _block in ((1000, 1024), (1000, 128), (37, 16), (5, 1), (1024, 1024)):
    _x, _y = _floats(_n), _floats(_n)
    CASES.append(KernelCase(add, _XYO, {"B": _block}, (_x, _y, _n), _with_tail(_x + _y, 40), -(-_n // _block)))
    _half, _kinds = _floats(_n).astype(np.float16), {"x": "*fp16", "y": "*fp16", "n": "i32", "o": "*fp16"}
    _wanted = _with_tail(_half + _half, 40)
    CASES.append(KernelCase(add, _kinds, {"B": _block}, (_half, _half, _n), _wanted, -(-_n // _block)))
for _n, _block in ((61, 64), (1500, 2048), (2048, 2048)):
    _x = _floats(3, _n)
    _e = np.exp(_x - _x.max(1, keepdims=True))
    _wanted = _e / _e.sum(1, keepdims=True)
    CASES.append(
        KernelCase(softmax, {"x": "*fp32", "n": "i32", "o": "*fp32"}, {"B": _block}, (_x, _n), _wanted, 3, 1e-6)
    )
for _rows, _block in ((8, 16), (16, 64), (1, 64), (4, 4), (64, 128)):
    _x = _floats(2 * _rows, 3 * _block)
    _k = {"x": "*fp32", "k": "i32", "o": "*fp32"}
    CASES.append(KernelCase(row_sums, _k, {"R": _rows, "B": _block}, (_x, 3 * _block), _x.sum(1), 2, tolerance=1e-4))
_XO = {"x": "*i32", "o": "*i32"}
for _rows, _block in ((4, 8), (2, 64), (64, 64), (128, 4), (1, 1)):
    _x, _tile = _integers(_rows, _block), {"R": _rows, "B": _block}
    CASES.append(KernelCase(column_maxima, _XO, _tile, (_x,), _x.max(0)))
    CASES.append(KernelCase(first_maximum, _XO, _tile, (_x,), _x.argmax(1).astype(np.int32)))
    CASES.append(KernelCase(transpose, _XO, _tile, (_x,), np.ascontiguousarray(_x.T)))
for _shape in ((2, 8, 4), (16, 8, 8), (64, 2, 4)):
    _x = np.arange(np.prod(_shape)).astype(np.int8)
    _wanted = np.ascontiguousarray(_x.reshape(_shape).transpose(1, 0, 2)).reshape(_shape[1], -1)
    CASES.append(KernelCase(repacked, {"x": "*i8", "o": "*i8"}, dict(zip("GCK", _shape, strict=True)), (_x,), _wanted))
for _block in (4, 64, 1024):
    _order = np.arange(_block, dtype=np.int32)
    _wanted = np.concatenate([_order[:1], _order])
    CASES.append(KernelCase(shifted_in_place, {"o": "*i32"}, {"B": _block}, (), _wanted))
    _x, _where = _integers(_block), np.random.default_rng(7).integers(0, 2 * _block, _block).astype(np.int32)
    _wanted = np.where(_where < _block, _x[_where % _block], -1).astype(np.int32)
    _kinds = {"x": "*i32", "indices": "*i32", "n": "i32", "o": "*i32"}
    CASES.append(KernelCase(gathered, _kinds, {"B": _block}, (_x, _where, _block), _wanted))
    _n = np.arange(1, _block + 1, dtype=np.int32)
    CASES.append(
        KernelCase(collatz_steps, _XO, {"B": _block}, (_n,), np.array([_collatz(int(n)) for n in _n], np.int32))
    )
    _x = _integers(3, _block)
    _wanted = np.stack([_x[0] * 2, _x[1] - _order, _x[2] * 2])
    CASES.append(KernelCase(even_programs_double, _XO, {"B": _block}, (_x,), _wanted, 3))
    _wanted = (_order * np.int32(300000007) + np.int32(2147483600)).astype(np.int64) * 2
    CASES.append(KernelCase(wrapping, {"o": "*i64"}, {"B": _block}, (), _wanted))
