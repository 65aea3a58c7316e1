"""Kernels that return early, call functions and loop in all ways."""

import numpy as np
import triton
import triton.language as tl
from tensor_kernels import KernelCase, poisoned


@triton.jit
def surplus_programs_leave(x, n, o, B: tl.constexpr):
    if tl.program_id(0) >= n:
        return
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(o + i, tl.load(x + i) * 2)


@triton.jit
def nested_returns(x, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    mirrored = x + (B - 1) - i
    if n > 3:
        if n > 5:
            return
        v += tl.load(mirrored)
    else:
        v *= 2
        if n < 0:
            tl.store(o + i, v)
            return
        v -= 1
    tl.store(o + i, v + i)


@triton.jit
def _clipped(v, n):
    if n > 2:
        return v * 2, n
    if n == 1:
        return v + n, 7
    return v, -n


@triton.jit
def returns_within_a_loop(x, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v, total = tl.load(x + i), 0
    for j in range(n):
        v, count = _clipped(v, j)
        if j % 2 == 0:
            v, count = _clipped(v + 1, count)
        total += count
    tl.store(o + i, v + total)


@triton.jit(noinline=True)
def _scaled(p, q, factor, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(p + i) * factor
    tl.store(q + i, v)
    return v, q + B


@triton.jit(noinline=True)
def _later(p, n):
    if n > 0:
        return p + n
    return p


@triton.jit
def calls(x, n, o, B: tl.constexpr):
    v, p = _scaled(x, o, n, B)
    w, q = _scaled(_later(x, B), _later(p, n - 2), tl.load(x), B)
    tl.store(q + tl.arange(0, B), v + w)


def _clipped_oracle(v, n):
    return (v * 2, n) if n > 2 else (v + n, 7) if n == 1 else (v, -n)


def _returns_within_a_loop(v, n):
    total = 0
    for j in range(n):
        v, count = _clipped_oracle(v, j)
        if j % 2 == 0:
            v, count = _clipped_oracle(v + 1, count)
        total += count
    return v + total


def _integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-9, 9, shape).astype(np.int32)


CASES: list[KernelCase] = []
_XNO = {"x": "*i32", "n": "i32", "o": "*i32"}
for _block in (4, 64, 1024):
    _x, _order, _poison = _integers(3, _block), np.arange(_block, dtype=np.int32), poisoned(_block, np.int32)
    _wanted = np.stack([_x[0] * 2, _x[1] * 2, _poison])
    CASES.append(KernelCase(surplus_programs_leave, _XNO, {"B": _block}, (_x, 2), _wanted, 3))
    _x = _x[0]
    for _n, _wanted in ((9, _poison), (4, _x + _x[::-1] + _order), (-1, _x * 2), (2, _x * 2 - 1 + _order)):
        CASES.append(KernelCase(nested_returns, _XNO, {"B": _block}, (_x, _n), _wanted))
    for _n in (0, 6):
        _wanted = _returns_within_a_loop(_x, _n)
        CASES.append(KernelCase(returns_within_a_loop, _XNO, {"B": _block}, (_x, _n), _wanted))
    _x = _integers(2, _block)
    _v, _w = _x[0] * 2, _x[1] * _x[0, 0]
    CASES.append(KernelCase(calls, _XNO, {"B": _block}, (_x, 2), np.stack([_v, _w, _v + _w])))
