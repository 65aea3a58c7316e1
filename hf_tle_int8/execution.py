"""Running linears of packed weights: kernels compiled once for each kind, called without Triton's own Python."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_tle_int8.backend.target import Target
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, Choice, Scheme, choose, constexprs, scheme

_TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_LINEAR = {"scale_x": "*fp32", "w": "*i8", "scale_w": "*fp32", "M": "i32", "N": "i32", "K": "i32"}


@functools.cache
def unavailable() -> str | None:
    """Why kernels cannot run in this process; None where they can. The reason names the remedy."""
    try:
        from hf_tle_int8.backend import settings
    except ImportError as error:
        return f"Triton cannot be imported ({error}): pip install triton."
    try:
        from hf_tle_int8.backend.codegen import llvm
        from hf_tle_int8.backend.target import current

        llvm()
        current()
    except (ImportError, RuntimeError) as error:
        return str(error)
    return settings.why_not_registered()


@functools.cache
def target() -> Target:
    """What kernels are compiled for.

    Raises:
        RuntimeError: see `unavailable`.
    """
    reason = unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    from hf_tle_int8.backend.target import current

    return current()


def layout() -> Scheme:
    """How operands lie in memory here."""
    return scheme(target())


@functools.cache
def _quantizer(dtype: torch.dtype, rows: int) -> Callable[..., None]:
    from hf_tle_int8.backend.prepared import prepare
    from hf_tle_int8.kernels.quantize import quantize

    here = layout()
    signature = {"x": f"*{_TYPES[dtype]}", "stride": "i64", "q": "*i8", "scale": "*fp32"}
    signature |= dict.fromkeys(("M", "K", "K_PADDED"), "i32")
    values = {"ROWS": rows, "GROUP": here.packing.group, "BLOCK": QUANTIZED_BLOCK, "FLIPPED": here.flipped}
    call: Callable[..., None] = _kept(prepare(quantize, signature, values, target()))
    return call


@functools.cache
def _linear(kernel: str, dtype: torch.dtype, bias: torch.dtype | None, tile: Choice) -> Callable[..., None]:
    from hf_tle_int8.backend.prepared import prepare
    from hf_tle_int8.kernels import linear

    x, y = f"*{_TYPES[dtype]}", f"*{_TYPES[dtype]}"
    signature = {**_LINEAR, "bias": y if bias is None else f"*{_TYPES[bias]}", "y": y, "q": "*i8"}
    signature |= {"stride": "i64", "stride_x": "i64", "stride_y": "i64", "x": x, "K_PADDED": "i32", "tiles": "i32"}
    values = constexprs(layout(), tile, bias is not None)
    call: Callable[..., None] = _kept(prepare(getattr(linear, kernel), signature, values, target()))
    return call


# Loaded code must outlive the functions that point into it.
_entries: list[Any] = []


def _kept(entry: Any) -> Callable[..., None]:
    _entries.append(entry)
    call: Callable[..., None] = entry.call
    return call


def packed_linear(x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None, n: int) -> Tensor:
    """`hf_tle_int8.arithmetic.int8_linear` of packed weights.

    Args:
        x: ``[M, K]``, fp32, fp16 or bf16, its last dimension contiguous.
        panels: int8, see `packing.Packing`, for `layout`.
        scale: fp32 ``[N, 1]`` or ``[N]``, contiguous.
        bias: ``[N]`` fp32, fp16 or bf16, contiguous, or None.
        n: N.

    Returns:
        ``[M, N]`` in the dtype of ``x``.
    """
    m, k = x.shape
    y = torch.empty((m, n), dtype=x.dtype)
    if not m:
        return y
    choice = choose(m, n, k, target(), torch.get_num_threads())
    run = _gemv if choice.kernel == "gemv" else _gemm
    run(choice, x, panels, scale, bias, y)
    return y


def _gemv(choice: Choice, x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None, y: Tensor) -> None:
    (m, k), n = x.shape, y.shape[1]
    padded = layout().packing.padded(n, k)[1]
    programs = -(-n // (choice.tiles * choice.tile_n))
    q = torch.empty(programs * choice.tile_m * padded, dtype=torch.int8)
    scales = torch.empty(programs * choice.tile_m, dtype=torch.float32)
    addresses = (x.data_ptr(), x.stride(0), q.data_ptr(), scales.data_ptr(), panels.data_ptr(), scale.data_ptr())
    call = _linear("gemv", x.dtype, None if bias is None else bias.dtype, _compiled(choice))
    call(
        *addresses, 0 if bias is None else bias.data_ptr(), y.data_ptr(), y.stride(0), m, n, k, padded, choice.tiles,
        programs, 1, 1, choice.threads,
    )  # fmt: skip


def _gemm(choice: Choice, x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None, y: Tensor) -> None:
    (m, k), n = x.shape, y.shape[1]
    padded = layout().packing.padded(n, k)[1]
    tiles = -(-m // choice.tile_m)
    q = torch.empty(tiles * choice.tile_m * padded, dtype=torch.int8)
    scales = torch.empty(tiles * choice.tile_m, dtype=torch.float32)
    groups = -(-m // choice.rows)
    arguments = (x.data_ptr(), x.stride(0), q.data_ptr(), scales.data_ptr(), m, k, padded)
    _quantizer(x.dtype, choice.rows)(*arguments, groups, 1, 1, choice.threads)
    call = _linear("gemm", x.dtype, None if bias is None else bias.dtype, _compiled(choice))
    call(
        q.data_ptr(), scales.data_ptr(), panels.data_ptr(), scale.data_ptr(), 0 if bias is None else bias.data_ptr(),
        y.data_ptr(), y.stride(0), m, n, padded, tiles, -(-n // choice.tile_n), 1, choice.threads,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _compiled(choice: Choice) -> Choice:
    """The part of a choice that a kernel is compiled for."""
    return Choice(choice.kernel, choice.tile_m, choice.tile_n, choice.rows, 1, 1)
