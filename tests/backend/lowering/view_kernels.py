"""Kernels that join, split and gather tensors, and that read memory as another type."""

import numpy as np
import triton
import triton.language as tl
from tensor_kernels import KernelCase


@triton.jit
def described(x, rows, columns, o, R: tl.constexpr, B: tl.constexpr):
    """Triton itself rewrites tensor descriptors to pointers and masks."""
    source = tl.make_tensor_descriptor(x, [rows, columns], [columns, 1], [R, B])
    target = tl.make_tensor_descriptor(o, [rows, columns], [columns, 1], [R, B])
    row = tl.program_id(0) * R
    target.store([row, 0], source.load([row, 0]) * 2)


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


@triton.jit
def read_as_other_types(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    bits = tl.load((x + i).to(tl.pointer_type(tl.int32), bitcast=True))
    later = tl.load((x + B).to(tl.pointer_type(tl.int32), bitcast=True) + i)
    first_bytes = (x + i).to(tl.pointer_type(tl.int8), bitcast=True)
    words = (o.to(tl.pointer_type(tl.int8), bitcast=True) + 4 * i).to(tl.pointer_type(tl.int32), bitcast=True)
    tl.store(words, bits ^ later)
    address = (o + B + i).to(tl.int64) + 0 * bits
    tl.store(address.to(tl.pointer_type(tl.int32)), tl.load(first_bytes + 1) + tl.load(first_bytes))


@triton.jit
def with_hints(x, n, o, B: tl.constexpr):
    tl.assume(n >= 8)
    tl.assume(n % 8 == 0)
    tl.static_assert(B > 0)
    tl.static_print("elements", B)
    i = tl.arange(0, B)
    column = tl.max_constancy(tl.multiple_of(i // 8 * n, 8), 8) + tl.max_contiguous(i % 8, 8)
    v = tl.load(x + column)
    tl.debug_barrier()
    tl.store(o + i, v)


@triton.jit
def gathered_along(x, indices, o, A: tl.constexpr, R: tl.constexpr, C: tl.constexpr, N: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :])
    rows: tl.constexpr = N if A == 0 else R
    columns: tl.constexpr = N if A == 1 else C
    place = tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]
    g = tl.gather(v, tl.load(indices + place), A)
    positive = tl.gather(v > 0, tl.load(indices + place), A)
    tl.store(o + place, g + 100 * positive)


@triton.jit
def shuffled_by_arithmetic(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.store(o + i, tl.gather(v + 1, (i * 5 + 3) % B, 0) - tl.gather(v + 1, i ^ 1, 0))


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
_POINTERS = {np.int32: "*i32", np.int8: "*i8", np.float16: "*fp16"}
CASES: list[KernelCase] = []
for _block in (1, 4, 64, 1024):
    _x = np.random.default_rng(_block).integers(-9, 9, 2 * _block).astype(np.int32)
    _a, _b, _size = _x[:_block], _x[_block:], {"B": _block}
    CASES.append(KernelCase(interleaved, _XO, _size, (_x,), np.stack([_a * 2, _b], 1)))
    CASES.append(KernelCase(deinterleaved, _XO, _size, (_x,), np.concatenate([_x[::2] - _x[1::2], _x[1::2]])))
    CASES.append(KernelCase(joined_outside, _XO, _size, (_x,), np.stack([_a, _b + 1])))
    CASES.append(KernelCase(concatenated, _XO, _size, (_x,), np.concatenate([_a, _b * 3])))
    CASES.append(KernelCase(joined_pointers, _XO, _size, (_x,), _joined_pointers(_x)))
    if _block > 1:
        _wanted = _a[(np.arange(_block) * 5 + 3) % _block] - _a[np.arange(_block) ^ 1]
        CASES.append(KernelCase(shuffled_by_arithmetic, _XO, _size, (_a,), _wanted))
    _f = (_x * 0.7).astype(np.float32)
    _bits, _bytes = _f.view(np.int32), _f.view(np.int8).reshape(-1, 4)[:_block].astype(np.int32)
    _wanted = np.concatenate([_bits[:_block] ^ _bits[_block:], (_bytes[:, 0] + _bytes[:, 1]).astype(np.int8)])
    CASES.append(KernelCase(read_as_other_types, {"x": "*fp32", "o": "*i32"}, _size, (_f,), _wanted))
    _kinds = {"x": "*i32", "n": "i32", "o": "*i32"}
    _wanted = np.concatenate([_row[:8] for _row in np.resize(_x, (-(-_block // 8), 24))])[:_block]
    CASES.append(KernelCase(with_hints, _kinds, _size, (np.resize(_x, 3 * _block + 8), 24), _wanted))
    CASES.append(KernelCase(joined_in_a_loop, _kinds, _size, (_x, 5), _fibonacci(_a, _b, 5)))
for _axis, _rows, _columns, _count in ((0, 4, 8, 16), (1, 4, 8, 2), (0, 64, 32, 64), (1, 16, 128, 128), (1, 1, 1, 4)):
    _random = np.random.default_rng(_rows)
    _x = _random.integers(-9, 9, (_rows, _columns)).astype(np.int32)
    _shape = (_count, _columns) if _axis == 0 else (_rows, _count)
    _where = _random.integers(0, _x.shape[_axis], _shape)
    _values = np.take_along_axis(_x, _where, _axis)
    _size = {"A": _axis, "R": _rows, "C": _columns, "N": _count}
    for _type, _index in ((np.int32, np.int32), (np.float16, np.int8)):
        _kinds = {"x": _POINTERS[_type], "indices": _POINTERS[_index], "o": _POINTERS[_type]}
        _inputs = (_x.astype(_type), _where.astype(_index))
        _wanted = (_values + 100 * (_values > 0)).astype(_type)
        CASES.append(KernelCase(gathered_along, _kinds, _size, _inputs, _wanted))
for _rows, _columns, _tile in ((8, 16, (4, 16)), (7, 13, (4, 16))):
    _x = np.arange(_rows * _columns, dtype=np.int32).reshape(_rows, _columns)
    _kinds = {"x": "*i32", "rows": "i32", "columns": "i32", "o": "*i32"}
    _size = {"R": _tile[0], "B": _tile[1]}
    CASES.append(KernelCase(described, _kinds, _size, (_x, _rows, _columns), _x * 2, 2))
