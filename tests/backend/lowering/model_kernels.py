"""The kernels of language models as users write them: norms, rotary embeddings, softmax, lookups, activations."""

import numpy as np
import torch
import triton
import triton.language as tl
from tensor_kernels import KernelCase


@triton.jit
def layer_norm(x, w, b, n, o, E: tl.constexpr, B: tl.constexpr):
    row = tl.program_id(0)
    x += row * n
    o += row * n
    total = tl.zeros([B], dtype=tl.float32)
    for start in range(0, n, B):
        i = start + tl.arange(0, B)
        total += tl.load(x + i, mask=i < n, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / n
    total = tl.zeros([B], dtype=tl.float32)
    for start in range(0, n, B):
        i = start + tl.arange(0, B)
        v = tl.load(x + i, mask=i < n, other=0.0).to(tl.float32)
        v = tl.where(i < n, v - mean, 0.0)
        total += v * v
    rstd = 1 / tl.sqrt(tl.sum(total, axis=0) / n + E)
    for start in range(0, n, B):
        i = start + tl.arange(0, B)
        mask = i < n
        weight = tl.load(w + i, mask=mask)
        bias = tl.load(b + i, mask=mask)
        v = tl.load(x + i, mask=mask, other=0.0).to(tl.float32)
        tl.store(o + i, (v - mean) * rstd * weight + bias, mask=mask)


@triton.jit
def rms_norm(x, w, n, rows, o, E: tl.constexpr, R: tl.constexpr, B: tl.constexpr):
    row = tl.program_id(0) * R + tl.arange(0, R)
    i = tl.arange(0, B)
    mask = (row < rows)[:, None] & (i < n)[None, :]
    place = row[:, None].to(tl.int64) * n + i[None, :]
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v, axis=1, keep_dims=True) / n + E)
    weight = tl.load(w + i, mask=i < n, other=0.0).to(tl.float32)
    tl.store(o + place, (v * scale * weight[None, :]).to(o.dtype.element_ty), mask=mask)


@triton.jit
def rotary_halves(x, cosines, sines, o, H: tl.constexpr, D: tl.constexpr):
    token = tl.program_id(0)
    heads = tl.arange(0, H)[:, None] * D
    i = tl.arange(0, D // 2)
    c = tl.load(cosines + token * (D // 2) + i)[None, :]
    s = tl.load(sines + token * (D // 2) + i)[None, :]
    first = token * H * D + heads + i[None, :]
    second = first + D // 2
    a, b = tl.load(x + first), tl.load(x + second)
    tl.store(o + first, a * c - b * s)
    tl.store(o + second, b * c + a * s)


@triton.jit
def rotary_pairs(x, cosines, sines, o, H: tl.constexpr, D: tl.constexpr):
    token = tl.program_id(0)
    i = tl.arange(0, D // 2)
    c = tl.load(cosines + token * (D // 2) + i)[None, :]
    s = tl.load(sines + token * (D // 2) + i)[None, :]
    place = token * H * D + tl.arange(0, H)[:, None] * D + tl.arange(0, D)[None, :]
    even, odd = tl.split(tl.reshape(tl.load(x + place), (H, D // 2, 2)))
    tl.store(o + place, tl.interleave(even * c - odd * s, odd * c + even * s))


@triton.jit
def masked_softmax(x, keep, n, rows, o, B: tl.constexpr):
    for row in tl.range(tl.program_id(0), rows, tl.num_programs(0)):
        i = tl.arange(0, B)
        inside = i < n
        kept = tl.load(keep + row * n + i, mask=inside, other=0) != 0
        v = tl.load(x + row * n + i, mask=inside & kept, other=-float("inf"))
        numerator = tl.exp(v - tl.max(v, axis=0))
        tl.store(o + row * n + i, numerator / tl.sum(numerator, axis=0), mask=inside)


@triton.jit
def online_softmax(x, n, o, B: tl.constexpr):
    x += tl.program_id(0) * n
    o += tl.program_id(0) * n
    largest, total = -float("inf"), 0.0
    for start in range(0, n, B):
        i = start + tl.arange(0, B)
        v = tl.load(x + i, mask=i < n, other=-float("inf"))
        new = tl.maximum(largest, tl.max(v, 0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(v - new), 0)
        largest = new
    for start in range(0, n, B):
        i = start + tl.arange(0, B)
        v = tl.load(x + i, mask=i < n)
        tl.store(o + i, tl.exp(v - largest) / total, mask=i < n)


@triton.jit
def embedding(ids, table, n, o, B: tl.constexpr):
    token = tl.load(ids + tl.program_id(0))
    if token < 0:
        return
    for start in range(0, n, B):
        i = start + tl.arange(0, B)
        v = tl.load(table + token * n + i, mask=i < n)
        tl.store(o + tl.program_id(0) * n + i, v, mask=i < n)


@triton.jit
def _silu(v):
    return v * tl.sigmoid(v)


@triton.jit
def gated(x, n, o, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    gate = tl.load(x + row * 2 * n + i, mask=i < n, other=0).to(tl.float32)
    up = tl.load(x + row * 2 * n + n + i, mask=i < n, other=0).to(tl.float32)
    tl.store(o + row * n + i, _silu(gate) * up, mask=i < n)


@triton.jit
def quantized_rows(x, n, o, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + i, mask=i < n, other=0.0)
    scale = tl.maximum(tl.max(tl.abs(v), 0), 1e-8) / 127.0
    q = tl.clamp(tl.floor(v / scale + 0.5), -127.0, 127.0)
    tl.store(o + row * n + i, q.to(tl.int8), mask=i < n)


@triton.jit
def cross_entropy(x, labels, n, o, B: tl.constexpr):
    row = tl.program_id(0)
    label = tl.load(labels + row)
    if label == -100:
        tl.store(o + row, 0.0)
        return
    i = tl.arange(0, B)
    v = tl.load(x + row * n + i, mask=i < n, other=-float("inf"))
    largest = tl.max(v, 0)
    log_sum = tl.log(tl.sum(tl.exp(v - largest), 0)) + largest
    tl.store(o + row, log_sum - tl.load(x + row * n + label))


@triton.jit
def dropout(x, seed, n, o, P: tl.constexpr, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + i, mask=i < n)
    keep = tl.rand(seed, i) > P
    tl.store(o + i, tl.where(keep, v / (1 - P), 0.0), mask=i < n)


def _uniform(seed: int, count: int) -> np.ndarray:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), its first word in [0, 1)."""
    words = [np.arange(count, dtype=np.uint64), *[np.zeros(count, np.uint64)] * 3]
    keys, low = [seed, 0], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        first, second = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        words = [
            second >> np.uint64(32) ^ words[1] ^ np.uint64(keys[0]), second & low,
            first >> np.uint64(32) ^ words[3] ^ np.uint64(keys[1]), first & low,
        ]  # fmt: skip
        keys = [keys[0] + 0x9E3779B9 & 0xFFFFFFFF, keys[1] + 0xBB67AE85 & 0xFFFFFFFF]
    signed = words[0].astype(np.uint32).view(np.int32)
    return np.where(signed < 0, -signed - 1, signed).astype(np.float32) * np.float32(4.6566127342e-10)


def _floats(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as numpy has it: bfloat16 as its bits."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def _rotated(x: torch.Tensor, c: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = x[..., 0, :], x[..., 1, :]
    return a * c - b * s, b * c + a * s


CASES: list[KernelCase] = []
_F = "*fp32"
for _rows, _n, _block in ((3, 96, 128), (2, 1000, 256), (2, 4096, 4096)):
    _x, _w, _b = _floats(_rows, _n), _floats(_n), _floats(_n) * 2
    _normed = torch.nn.functional.layer_norm(_x, (_n,), _w, _b, 1e-5)
    _kinds = {"x": _F, "w": _F, "b": _F, "n": "i32", "o": _F}
    _inputs = (_array(_x), _array(_w), _array(_b), _n)
    CASES.append(KernelCase(layer_norm, _kinds, {"E": 1e-5, "B": _block}, _inputs, _array(_normed), _rows, 2e-5))
    _half, _tile = _x.half(), {"E": 1e-6, "R": 2, "B": triton.next_power_of_2(_n)}
    _normed = torch.nn.functional.rms_norm(_half.float(), (_n,), _w, 1e-6).half()
    _kinds = {"x": "*fp16", "w": _F, "n": "i32", "rows": "i32", "o": "*fp16"}
    _inputs = (_array(_half), _array(_w), _n, _rows)
    CASES.append(KernelCase(rms_norm, _kinds, _tile, _inputs, _array(_normed), -(-_rows // 2), 2e-3))
    _scores, _keep = _floats(_rows, _n), (_floats(_rows, _n) > 0.2).to(torch.int8)
    _wanted = _scores.masked_fill(_keep == 0, -torch.inf).softmax(1)
    _kinds, _size = {"x": _F, "keep": "*i8", "n": "i32", "rows": "i32", "o": _F}, {"B": triton.next_power_of_2(_n)}
    _inputs = (_array(_scores), _array(_keep), _n, _rows)
    CASES.append(KernelCase(masked_softmax, _kinds, _size, _inputs, _array(_wanted), 2, 1e-6))
    _kinds = {"x": _F, "n": "i32", "o": _F}
    _wanted = _array(_scores.softmax(1))
    CASES.append(KernelCase(online_softmax, _kinds, {"B": _block}, (_array(_scores), _n), _wanted, _rows, 1e-6))
    _labels = torch.tensor([_n - 1, -100, 0])[:_rows]
    _wanted = _array(torch.nn.functional.cross_entropy(_scores, _labels, reduction="none"))
    _kinds, _inputs = {"x": _F, "labels": "*i64", "n": "i32", "o": _F}, (_array(_scores), _labels.numpy(), _n)
    CASES.append(KernelCase(cross_entropy, _kinds, _size, _inputs, _wanted, _rows, 1e-5))
    _kinds = {"x": _F, "n": "i32", "o": "*i8"}
    _scales = _scores.abs().amax(1, keepdim=True) / 127
    _wanted = _array((_scores / _scales + 0.5).floor().to(torch.int8))
    CASES.append(KernelCase(quantized_rows, _kinds, _size, (_array(_scores), _n), _wanted, _rows))
    _gate_up = _floats(_rows, 2 * _n).bfloat16()
    _gate, _up = _gate_up.float().chunk(2, 1)
    _wanted = _array(torch.nn.functional.silu(_gate) * _up)
    _kinds = {"x": "*bf16", "n": "i32", "o": _F}
    CASES.append(KernelCase(gated, _kinds, _size, (_array(_gate_up), _n), _wanted, _rows, 1e-5))
    _table, _ids = _floats(50, _n), torch.tensor([7, 49, 7])[:_rows]
    _kinds, _inputs = {"ids": "*i64", "table": _F, "n": "i32", "o": _F}, (_ids.numpy(), _array(_table), _n)
    CASES.append(KernelCase(embedding, _kinds, {"B": _block}, _inputs, _array(_table[_ids]), _rows))
for _heads, _size in ((1, 8), (4, 64), (8, 128)):
    _x, _angles = _floats(3, _heads, _size), _floats(3, 1, _size // 2)
    _c, _s = _angles.cos(), _angles.sin()
    _tile, _inputs = {"H": _heads, "D": _size}, (_array(_x), _array(_c), _array(_s))
    _kinds = {"x": _F, "cosines": _F, "sines": _F, "o": _F}
    _wanted = _array(torch.cat(_rotated(_x.unflatten(2, (2, -1)), _c, _s), 2))
    CASES.append(KernelCase(rotary_halves, _kinds, _tile, _inputs, _wanted, 3, 1e-6))
    _wanted = _array(torch.stack(_rotated(_x.unflatten(2, (-1, 2)).mT, _c, _s), 3).flatten(2))
    CASES.append(KernelCase(rotary_pairs, _kinds, _tile, _inputs, _wanted, 3, 1e-6))
for _n, _block in ((1000, 256), (4096, 4096)):
    _x = _array(_floats(_n))
    _wanted = np.where(_uniform(123, _n) > 0.25, _x / np.float32(0.75), np.float32(0))
    _kinds, _size = {"x": _F, "seed": "i32", "n": "i32", "o": _F}, {"P": 0.25, "B": _block}
    CASES.append(KernelCase(dropout, _kinds, _size, (_x, 123, _n), _wanted, -(-_n // _block)))
