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


@triton.jit
def strided_sums(x, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    up, down, wide, fixed = tl.zeros((B,), tl.int32), tl.load(x + i), tl.load(x + i) * 2, tl.load(x + i) * 3
    for j in range(1, n, 3):
        up += tl.load(x + i) * j
    for j in range(n, 0, -2):
        down = down * 3 + j
    for j in range(n.to(tl.int64) << 33, 40 << 33, 1 << 34):
        wide += (j >> 33).to(tl.int32)
    for j in tl.static_range(5, 0, -2):
        fixed = fixed * j + i
    tl.store(o + i, up)
    tl.store(o + B + i, down)
    tl.store(o + 2 * B + i, wide)
    tl.store(o + 3 * B + i, fixed)


@triton.jit
def swapped_when_odd(x, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    a, b = tl.load(x + i), tl.load(x + B + i)
    k = 0
    while k < n:
        for j in range(k):
            if (j + k) % 2 == 1:
                a, b = b, a + j
        k += 1
    tl.store(o + i, a)
    tl.store(o + B + i, b)


@triton.jit
def normalized_large_tile(x, n, o, B: tl.constexpr):
    if tl.program_id(0) == 1:
        return
    i = tl.arange(0, B)[:, None] * B + tl.arange(0, B)[None, :]
    v = tl.load(x + i)
    for _ in range(n):
        v -= tl.sum(v, 1)[:, None] // B
    v -= tl.min(v, 0)[None, :]
    tl.store(o + i, tl.trans(v))


def _normalized(v, n):
    for _ in range(n):
        v = v - np.trunc(v.sum(1, keepdims=True) / v.shape[1]).astype(np.int32)
    return np.ascontiguousarray((v - v.min(0)).T)


def _strided_sums(v, n):
    down, fixed = v, v * 3
    for j in range(n, 0, -2):
        down = down * 3 + j
    for j in (5, 3, 1):
        fixed = fixed * j + np.arange(v.size)
    return np.stack([v * sum(range(1, n, 3)), down, v * 2 + sum(range(n, 40, 2)), fixed]).astype(np.int32)


def _swapped_when_odd(a, b, n):
    for k in range(n):
        for j in range(k):
            if (j + k) % 2 == 1:
                a, b = b, a + j
    return np.stack([a, b])


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
    for _n in (-3, 1, 6, 41):
        _wanted = _strided_sums(_x.astype(np.int32), _n)
        CASES.append(KernelCase(strided_sums, _XNO, {"B": _block}, (_x, _n), _wanted))
    _pair = _integers(2, _block)
    for _n in (0, 5):
        _wanted = _swapped_when_odd(*_pair, _n)
        CASES.append(KernelCase(swapped_when_odd, _XNO, {"B": _block}, (_pair, _n), _wanted))
    for _n in (0, 6):
        _wanted = _returns_within_a_loop(_x, _n)
        CASES.append(KernelCase(returns_within_a_loop, _XNO, {"B": _block}, (_x, _n), _wanted))
    _x = _integers(2, _block)
    _v, _w = _x[0] * 2, _x[1] * _x[0, 0]
    CASES.append(KernelCase(calls, _XNO, {"B": _block}, (_x, 2), np.stack([_v, _w, _v + _w])))
_tile = _integers(1024, 1024)
LARGE_TILE = KernelCase(normalized_large_tile, _XNO, {"B": 1024}, (_tile, 2), _normalized(_tile, 2), 3)
CASES.append(LARGE_TILE)
