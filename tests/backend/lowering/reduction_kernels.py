"""Kernels that reduce in all ways: truth values, by functions with branches, over all dimensions; and that map."""

import numpy as np
import triton
import triton.language as tl
from tensor_kernels import KernelCase


@triton.jit
def any_positive(x, o, R: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :])
    tl.store(o + tl.arange(0, B), tl.reduce_or(v > 7, 0))
    tl.store(o + B + tl.arange(0, R), tl.reduce_or(v > 7, 1))


@triton.jit
def _larger_magnitude(a, b):
    if tl.abs(a) > tl.abs(b):  # noqa: SIM108 - a branch is what is tested
        larger = a
    else:
        larger = b + a // 100
    return larger


@triton.jit
def _larger_magnitude_returned(a, b):
    if tl.abs(a) > tl.abs(b):
        return a
    if tl.abs(b) > 100:
        return b * 2
    return b


@triton.jit
def _through_a_call(a, b):
    c = _larger_magnitude_returned(a, b)
    if c == 0:
        c = a + b
    return c


@triton.jit
def largest_magnitudes(x, o, R: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :]) * 4 + 1
    tl.store(o + tl.arange(0, B), tl.reduce(v, 0, _larger_magnitude))
    tl.store(o + B + tl.arange(0, R), tl.reduce(v, 1, _through_a_call))


@triton.jit
def _ordered(a, b):
    if a > b:
        return b, a - b
    if a == 0:
        return a, _larger_magnitude_returned(b, a)
    return a, b // a


@triton.jit
def mapped(x, o, R: tl.constexpr, B: tl.constexpr):
    i = tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :]
    low, rest = tl.map_elementwise(_ordered, tl.load(x + i), i % 7)
    tl.store(o + i, low * 100 + rest)


@triton.jit
def over_everything(x, o, R: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :])
    tl.store(o, tl.sum(v, axis=None))
    tl.store(o + 1 + tl.arange(0, 1)[:, None], tl.max(v, keep_dims=True))
    tl.store(o + 2, tl.xor_sum(v, axis=None))
    centered = v - tl.sum(v, 1, keep_dims=True) + tl.min(v, 0, keep_dims=True)
    tl.store(o + 3 + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :], centered)


@triton.jit
def extremes_with_indices(x, o, R: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * B + tl.arange(0, B)[None, :])
    largest, first = tl.max(v, 1, return_indices=True)
    smallest, last = tl.min(v, 1, return_indices=True)
    row = o + tl.arange(0, R)
    tl.store(row, largest)
    tl.store(row + R, first)
    tl.store(row + 2 * R, smallest)
    tl.store(row + 3 * R, last)
    some = tl.argmax(v, 1, tie_break_left=False)
    tl.store(row + 4 * R, tl.sum(tl.where(tl.arange(0, B)[None, :] == some[:, None], v, 0), 1))
    some = tl.argmin(v, 1, tie_break_left=False, keep_dims=True)
    tl.store(row + 5 * R, tl.sum(tl.where(tl.arange(0, B)[None, :] == some, v, 0), 1))


def _mapped(a, b):
    if a > b:
        return b * 100 + a - b
    return b if a == 0 else a * 100 + int(b / a)


def _larger(v, axis):
    return np.take_along_axis(v, np.expand_dims(np.abs(v).argmax(axis), axis), axis).squeeze(axis)


CASES: list[KernelCase] = []
_XO = {"x": "*i32", "o": "*i32"}
for _rows, _block in ((4, 8), (2, 64), (64, 64), (128, 4), (4, 1024), (1, 1)):
    _x = np.random.default_rng(_rows).integers(-9, 9, (_rows, _block)).astype(np.int32)
    _tile = {"R": _rows, "B": _block}
    _wanted = np.concatenate([(_x > 7).any(0), (_x > 7).any(1)]).astype(np.int32)
    CASES.append(KernelCase(any_positive, _XO, _tile, (_x,), _wanted))
    _wanted = np.vectorize(_mapped)(_x, np.arange(_x.size).reshape(_x.shape) % 7).astype(np.int32)
    CASES.append(KernelCase(mapped, _XO, _tile, (_x,), _wanted))
    _odd = _x * 4 + 1
    CASES.append(
        KernelCase(largest_magnitudes, _XO, _tile, (_x,), np.concatenate([_larger(_odd, 0), _larger(_odd, 1)]))
    )
    _scalars = np.array([_x.sum(), _x.max(), np.bitwise_xor.reduce(_x.ravel())], np.int32)
    _centered = _x - _x.sum(1, keepdims=True, dtype=np.int32) + _x.min(0)
    CASES.append(KernelCase(over_everything, _XO, _tile, (_x,), np.concatenate([_scalars, _centered.ravel()])))
    _high, _low = _x.max(1), _x.min(1)
    _wanted = np.concatenate([_high, _x.argmax(1), _low, _x.argmin(1), _high, _low]).astype(np.int32)
    CASES.append(KernelCase(extremes_with_indices, _XO, _tile, (_x,), _wanted))
