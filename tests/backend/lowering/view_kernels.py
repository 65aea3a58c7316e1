"""Kernels that join, split and gather tensors, and that read memory as another type."""

import numpy as np
import triton
import triton.language as tl
from tensor_kernels import KernelCase


@triton.jit
def interleaved(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    a, b = tl.load(x + i), tl.load(x + B + i)
    tl.store(o + tl.arange(0, 2 * B), tl.interleave(a * 2, b))


@triton.jit
def deinterleaved(x, o, B: tl.constexpr):
    even, odd = tl.split(tl.load(x + tl.arange(0, 2 * B)).reshape(B, 2))
    i = tl.arange(0, B)
    tl.store(o + i, even - odd)
    tl.store(o + B + i, odd)


@triton.jit
def joined_outside(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    pair = tl.join(tl.load(x + i), tl.load(x + B + i) + 1)
    tl.store(o + tl.arange(0, 2)[:, None] * B + i[None, :], tl.trans(pair))


@triton.jit
def concatenated(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + tl.arange(0, 2 * B), tl.cat(tl.load(x + i), tl.load(x + B + i) * 3, can_reorder=True))


@triton.jit
def joined_pointers(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    sources = tl.join(x + i, x + 2 * B - 1 - i)
    indices = tl.join(2 * i, 2 * i + 1)
    mask = tl.join(i > 1, i < 3)
    tl.store(o + indices, tl.load(sources, mask=mask, other=-1), mask=mask)
    targets, _ = tl.split(o + 2 * B + tl.arange(0, 2 * B).reshape(B, 2))
    tl.store(targets, i)


@triton.jit
def joined_in_a_loop(x, n, o, B: tl.constexpr):
    i = tl.arange(0, B)
    a, b = tl.load(x + i), tl.load(x + B + i)
    for _ in range(n):
        a, b = tl.split(tl.join(a + b, a))
    tl.store(o + i, a)


def _joined_pointers(x):
    block = x.size // 2
    order = np.arange(block)
    values = np.stack([x[:block], x[block:][::-1]], 1)
    masks = np.stack([order > 1, order < 3], 1)
    rest = np.stack([order, np.full(block, _POISONED)], 1)
    return np.concatenate([np.where(masks, values, _POISONED).ravel(), rest.ravel()]).astype(np.int32)


def _fibonacci(a, b, n):
    return a if n == 0 else _fibonacci(a + b, a, n - 1)


_POISONED = 0x7B7B7B7B
_XO = {"x": "*i32", "o": "*i32"}
CASES: list[KernelCase] = []
for _block in (1, 4, 64, 1024):
    _x = np.random.default_rng(_block).integers(-9, 9, 2 * _block).astype(np.int32)
    _a, _b, _size = _x[:_block], _x[_block:], {"B": _block}
    CASES.append(KernelCase(interleaved, _XO, _size, (_x,), np.stack([_a * 2, _b], 1)))
    CASES.append(KernelCase(deinterleaved, _XO, _size, (_x,), np.concatenate([_x[::2] - _x[1::2], _x[1::2]])))
    CASES.append(KernelCase(joined_outside, _XO, _size, (_x,), np.stack([_a, _b + 1])))
    CASES.append(KernelCase(concatenated, _XO, _size, (_x,), np.concatenate([_a, _b * 3])))
    CASES.append(KernelCase(joined_pointers, _XO, _size, (_x,), _joined_pointers(_x)))
    _kinds = {"x": "*i32", "n": "i32", "o": "*i32"}
    CASES.append(KernelCase(joined_in_a_loop, _kinds, _size, (_x, 5), _fibonacci(_a, _b, 5)))
