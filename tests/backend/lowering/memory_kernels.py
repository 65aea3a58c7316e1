"""Kernels whose masks, offsets and order of loads and stores are what is tested; see `tensor_kernels`."""

import numpy as np
import triton
import triton.language as tl
from tensor_kernels import KernelCase, poisoned


@triton.jit
def moved_in_place(x, distance, o, N: tl.constexpr, B: tl.constexpr):
    for start in range(0, N, B):
        tl.store(o + start + tl.arange(0, B), tl.load(x + start + tl.arange(0, B)))
    i = tl.arange(0, B)
    tl.store(o + B + distance + i, tl.load(o + B + i) + 1)


@triton.jit
def spread_in_place(x, distance, stride, o, N: tl.constexpr, B: tl.constexpr):
    tl.store(o + tl.arange(0, N), tl.load(x + tl.arange(0, N)))
    i = tl.arange(0, B)
    tl.store(o + distance + i * stride, tl.load(o + i) + 1)


@triton.jit
def reversed_in_place(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i))
    tl.store(o + (B - 1 - i), tl.load(o + i))


@triton.jit
def loaded_before_overwritten(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i))
    old = tl.load(o + i)
    tl.store(o + i, old * 3)
    tl.store(o + B + i, old)


@triton.jit
def summed_before_overwritten(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i))
    old = tl.load(o + i)
    tl.store(o + i, i)
    tl.store(o + B, tl.sum(old, 0))


@triton.jit
def transposed_in_place(x, o, B: tl.constexpr):
    i, j = tl.arange(0, B)[:, None], tl.arange(0, B)[None, :]
    tl.store(o + i * B + j, tl.load(x + i * B + j))
    tl.store(o + i * B + j, tl.load(o + j * B + i))


@triton.jit
def window(x, low, high, o, SIDE: tl.constexpr, B: tl.constexpr):
    i = tl.arange(0, B)
    if SIDE == 0:
        m = (i >= low) & (i < high)
    elif SIDE == 1:
        m = (low <= i) & (high > i)
    elif SIDE == 2:
        m = (i > low - 1) & (i <= high - 1)
    elif SIDE == 3:
        m = (i.to(tl.uint32) >= low.to(tl.uint32)) & (i.to(tl.uint32) < high.to(tl.uint32))
    else:
        m = (i.to(tl.int64) >= low) & (i * 2 < high * 2) & (i != low - 1)
    tl.store(o + i, tl.load(x + i, mask=m, other=-5), mask=m)
    tl.store(o + B + i, tl.load(x + i, mask=m, other=-5))


@triton.jit
def masked_sum(x, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o, tl.sum(tl.load(x + i, mask=i < n, other=3), 0))


@triton.jit
def wrapping_mask(x, base, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i, mask=i + base < 2147483647, other=-1))
    tl.store(o + B + i, tl.load(x + i, mask=i + base > 0, other=-1))


@triton.jit
def tile(x, m, n, o, R: tl.constexpr, C: tl.constexpr):
    rows = tl.program_id(0) * R + tl.arange(0, R)
    columns = tl.arange(0, C)
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    v = tl.load(x + rows[:, None] * C + columns[None, :], mask=inside, other=7)
    tl.store(o + rows[:, None] * C + columns[None, :], v * 2)


@triton.jit
def wrapped_around(x, n, o, R: tl.constexpr, C: tl.constexpr):
    columns = (tl.program_id(0) * C + tl.arange(0, C)) % n
    p = x + tl.arange(0, R)[:, None] * n + columns[None, :]
    for k in range(2):
        out = (tl.program_id(0) * 2 + k) * R * C
        tl.store(o + out + tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :], tl.load(p))
        p += R * n


@triton.jit
def far_apart(x, n, o, B: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B).to(tl.int64)
    tl.store(o + i, tl.load(x + i, mask=i < n), mask=i < n)


@triton.jit
def upright(x, stride, o, K: tl.constexpr, N: tl.constexpr):
    k, n = tl.arange(0, K), tl.arange(0, N)
    v = tl.load(x + k[None, :] * stride + n[:, None])
    tl.store(o + n[:, None] * K + k[None, :], v + 1)


@triton.jit
def upright_inside(x, rows, columns, o, K: tl.constexpr, N: tl.constexpr):
    k, n = tl.arange(0, K)[None, :], tl.arange(0, N)[:, None]
    v = tl.load(x + k * columns + n, mask=(k < rows) & (n < columns), other=5)
    tl.store(o + n * K + k, v + 1)


@triton.jit
def stored_upright(x, stride, o, R: tl.constexpr, C: tl.constexpr):
    i, j = tl.arange(0, R)[:, None], tl.arange(0, C)[None, :]
    tl.store(o + j * stride + i, tl.load(x + i * C + j))


@triton.jit
def flipped(x, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i, mask=i < n) == 0, mask=i < n)


@triton.jit
def picked(x, flags, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i, mask=tl.load(flags + i) > 0, other=9), mask=i % 3 > 0)


def _integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-99, 99, shape).astype(np.int32)


def _moved(x: np.ndarray, block: int, distance: int) -> np.ndarray:
    out = x.copy()
    out[block + distance : 2 * block + distance] = x[block : 2 * block] + 1
    return out


def _spread(x: np.ndarray, block: int, distance: int, stride: int) -> np.ndarray:
    out = x.copy()
    out[distance + stride * np.arange(block)] = x[:block] + 1
    return out


CASES: list[KernelCase] = []
_XO = {"x": "*i32", "o": "*i32"}
for _block in (16, 512, 1024):
    _x = _integers(4 * _block)
    for _distance in (-_block, -3, 0, 1, 7, _block - 1, _block):
        _kinds, _sizes = {"x": "*i32", "distance": "i32", "o": "*i32"}, {"N": 4 * _block, "B": _block}
        _wanted = _moved(_x, _block, _distance)
        CASES.append(KernelCase(moved_in_place, _kinds, _sizes, (_x, _distance), _wanted))
    for _distance, _stride in ((0, 2), (_block, 2), (2 * _block - 1, -1), (3 * _block, 1)):
        _kinds = {"x": "*i32", "distance": "i32", "stride": "i32", "o": "*i32"}
        _wanted = _spread(_x, _block, _distance, _stride)
        CASES.append(KernelCase(spread_in_place, _kinds, _sizes, (_x, _distance, _stride), _wanted))
    _x = _integers(_block)
    CASES.append(KernelCase(reversed_in_place, _XO, {"B": _block}, (_x,), _x[::-1].copy()))
    CASES.append(KernelCase(loaded_before_overwritten, _XO, {"B": _block}, (_x,), np.concatenate([_x * 3, _x])))
    _wanted = np.concatenate([np.arange(_block), [_x.sum()]]).astype(np.int32)
    CASES.append(KernelCase(summed_before_overwritten, _XO, {"B": _block}, (_x,), _wanted))
    _kinds = {"x": "*i32", "low": "i32", "high": "i32", "o": "*i32"}
    for _low, _high in ((0, _block), (3, _block - 2), (_block - 1, _block), (2, 2), (_block // 2, _block // 2 + 9)):
        _inside = (np.arange(_block) >= _low) & (np.arange(_block) < _high)
        _first = np.where(_inside, _x, poisoned(_block, np.int32))
        _wanted = np.concatenate([_first, np.where(_inside, _x, -5)]).astype(np.int32)
        CASES += [
            KernelCase(window, _kinds, {"SIDE": side, "B": _block}, (_x, _low, _high), _wanted) for side in range(5)
        ]
    _kinds = {"x": "*i32", "n": "i32", "o": "*i32"}
    for _n in (0, 1, _block - 5, _block, 2 * _block):
        _wanted = np.where(np.arange(_block) < _n, _x, 3).sum(keepdims=True).astype(np.int32)
        CASES.append(KernelCase(masked_sum, _kinds, {"B": _block}, (_x, _n), _wanted))
    _kinds = {"x": "*i32", "base": "i32", "o": "*i32"}
    for _base in (0, 2**31 - 1 - _block, 2**31 - 5, -(2**31), -3):
        _sums = (np.arange(_block) + _base + 2**31) % 2**32 - 2**31
        _wanted = np.concatenate([np.where(_sums < 2**31 - 1, _x, -1), np.where(_sums > 0, _x, -1)]).astype(np.int32)
        CASES.append(KernelCase(wrapping_mask, _kinds, {"B": _block}, (_x, _base), _wanted))
    _flags = _integers(_block, 1)[:, 0]
    _wanted = np.where(np.arange(_block) % 3 > 0, np.where(_flags > 0, _x, 9), poisoned(_block, np.int32))
    _kinds = {"x": "*i32", "flags": "*i32", "o": "*i32"}
    CASES.append(KernelCase(picked, _kinds, {"B": _block}, (_x, _flags), _wanted.astype(np.int32)))
    _wanted = np.concatenate([_x[: _block - 3] < 0, poisoned(3, np.int8).view(bool)])
    CASES.append(
        KernelCase(flipped, {"x": "*i1", "n": "i32", "o": "*i1"}, {"B": _block}, (_x >= 0, _block - 3), _wanted)
    )
    _kinds = {"x": "*i32", "n": "i32", "o": "*i32"}
    _wanted = np.concatenate([_x[: _block - 3], poisoned(_block + 3, np.int32)])
    CASES.append(KernelCase(far_apart, _kinds, {"B": _block}, (_x, _block - 3), _wanted, 2))
for _rows, _block in ((4, 8), (8, 64), (2, 1024)):
    _kinds = {"x": "*i32", "m": "i32", "n": "i32", "o": "*i32"}
    for _m, _n in ((2 * _rows, _block), (2 * _rows - 1, _block - 3), (1, 1), (0, _block)):
        _x = _integers(2 * _rows, _block)
        _wanted = np.full_like(_x, 14)
        _wanted[:_m, :_n] = 2 * _x[:_m, :_n]
        CASES.append(KernelCase(tile, _kinds, {"R": _rows, "C": _block}, (_x, _m, _n), _wanted, 2))
    for _n in (2 * _block, 2 * _block - 3, _block // 2 + 1, 1):
        _x = _integers(2 * _rows, _n)
        _places = np.arange(2 * _block).reshape(2, 1, _block) % _n
        _wanted = np.stack([_x[:, p[0]].reshape(2, _rows, _block) for p in _places])
        _kinds = {"x": "*i32", "n": "i32", "o": "*i32"}
        CASES.append(KernelCase(wrapped_around, _kinds, {"R": _rows, "C": _block}, (_x, _n), _wanted, 2))
for _k, _n in ((4, 4), (8, 8), (16, 64), (128, 8), (2, 1024), (1, 8)):
    for _kind in (np.int32, np.int8, np.int16, np.int64):
        _x = _integers(_k, _n + 5).astype(_kind)
        _name = f"*i{8 * _x.itemsize}"
        _kinds = {"x": _name, "stride": "i32", "o": _name}
        _wanted = np.ascontiguousarray(_x[:, :_n].T + _kind(1))
        CASES.append(KernelCase(upright, _kinds, {"K": _k, "N": _n}, (_x, _n + 5), _wanted))
for _k, _n in ((8, 8), (64, 64), (16, 256)):
    for _rows, _columns in ((_k, _n), (_k - 3, _n - 1), (1, 5)):
        for _name, _kind in (("i32", np.int32), ("fp16", np.float16)):
            _x = _integers(_rows, _columns).astype(_kind)
            _wanted = np.full((_n, _k), 6, _kind)
            _wanted[:_columns, :_rows] = _x.T + _kind(1)
            _kinds = {"x": f"*{_name}", "rows": "i32", "columns": "i32", "o": f"*{_name}"}
            CASES.append(KernelCase(upright_inside, _kinds, {"K": _k, "N": _n}, (_x, _rows, _columns), _wanted))
    _x = _integers(_k, _n)
    _kinds, _wanted = {"x": "*i32", "stride": "i32", "o": "*i32"}, np.ascontiguousarray(_x.T)
    CASES.append(KernelCase(stored_upright, _kinds, {"R": _k, "C": _n}, (_x, _k), _wanted))
for _block in (4, 16, 64):
    _x = _integers(_block, _block)
    CASES.append(KernelCase(transposed_in_place, _XO, {"B": _block}, (_x,), np.ascontiguousarray(_x.T)))
