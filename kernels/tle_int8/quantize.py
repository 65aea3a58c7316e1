"""Rows of activations to int8 codes and one scale each: the oracle is `hf_tle_int8.arithmetic.quantize_activation`."""

import triton
import triton.language as tl

from .scheme import ABSMAX_FLOOR, ACTIVATION_QMIN, QMAX

_FLOOR = tl.constexpr(ABSMAX_FLOOR)
_QMIN = tl.constexpr(float(ACTIVATION_QMIN))
_QMAX = tl.constexpr(float(QMAX))
# Added to and taken from a number below 2**22, it rounds that to the nearest integer, ties to even.
_ROUNDER = tl.constexpr(12582912.0)


@triton.jit
def magnitude(x):
    """The bits of floats without their sign: integers in the order of the magnitudes, NaN above infinity."""
    if x.dtype == tl.float32:
        return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    else:  # noqa: RET505 - Triton compiles what follows a return
        return x.to(tl.int16, bitcast=True) & 0x7FFF


@triton.jit
def infinity(dtype: tl.constexpr):
    """`magnitude` of an infinity."""
    if dtype == tl.float32:
        return 0x7F800000
    elif dtype == tl.bfloat16:  # noqa: RET505
        return 0x7F80
    else:
        return 0x7C00


@triton.jit
def quantize_rows(
    x, stride, q, scale, first, M, K, K_PADDED, ROWS: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
    FLIPPED: tl.constexpr,
):  # fmt: skip
    """Quantize rows ``first`` to ``first + ROWS - 1``; rows from M on are taken for zeros.

    Args:
        x: ``[M, K]`` fp32, fp16 or bf16, rows ``stride`` elements apart.
        q: int8 ``[K_PADDED / GROUP][ROWS][GROUP]``; sign bits flipped if FLIPPED; zeros from K on.
        scale: fp32 ``[ROWS]``; NaN, and codes of 0, for a row that holds NaN or Inf.
        BLOCK: elements of a row at a time, a multiple of GROUP.
    """
    rows, columns = tl.arange(0, ROWS), tl.arange(0, BLOCK)
    places = x + (first + rows)[:, None].to(tl.int64) * stride + columns[None, :]
    there = (first + rows)[:, None] < M
    largest = magnitude(tl.zeros((ROWS, BLOCK), x.dtype.element_ty))
    for k in range(0, K, BLOCK):
        values = tl.load(places + k, mask=there & ((k + columns)[None, :] < K), other=0.0)
        largest = tl.maximum(largest, magnitude(values))
    top = tl.max(largest, 1).to(largest.dtype)
    finite = top < infinity(x.dtype.element_ty)
    absmax = tl.maximum(top.to(x.dtype.element_ty, bitcast=True).to(tl.float32), _FLOOR)
    inverse = tl.where(finite, _QMAX / absmax, 0.0)
    tl.store(scale + rows, tl.where(finite, absmax / _QMAX, float("nan")))
    packed = tl.arange(0, ROWS * BLOCK)
    for k in range(0, K_PADDED, BLOCK):
        values = tl.load(places + k, mask=there & ((k + columns)[None, :] < K), other=0.0).to(tl.float32)
        scaled = tl.where(finite[:, None], values * inverse[:, None], 0.0)
        rounded = tl.minimum(tl.maximum(scaled, _QMIN), _QMAX) + _ROUNDER
        codes = rounded.to(tl.int32, bitcast=True).to(tl.int8)
        if FLIPPED:
            codes = codes ^ -128
        in_order = codes.reshape(ROWS, BLOCK // GROUP, GROUP).permute(1, 0, 2).reshape(ROWS * BLOCK)
        tl.store(q + k * ROWS + packed, in_order, mask=packed < (K_PADDED - k) * ROWS)


@triton.jit
def quantize(
    x, stride, q, scale, M, K, K_PADDED, ROWS: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
    FLIPPED: tl.constexpr,
):  # fmt: skip
    """`quantize_rows` for all groups of ROWS rows: q is ``[M / ROWS][K_PADDED / GROUP][ROWS][GROUP]``.

    Grid: ``(ceil(M / ROWS),)``.
    """
    group = tl.program_id(0)
    first = group * ROWS
    to = q + group.to(tl.int64) * ROWS * K_PADDED
    quantize_rows(x, stride, to, scale + first, first, M, K, K_PADDED, ROWS, GROUP, BLOCK, FLIPPED)
