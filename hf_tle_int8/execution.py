"""Running linears of packed weights: kernels compiled once for each kind, called without Triton's own Python."""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_tle_int8.backend import schedule
from hf_tle_int8.backend.target import Target
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, Choice, Scheme, choose, constexprs, scheme

_TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_ARGUMENTS = {
    **{"stride": "i64", "stride_x": "i64", "stride_y": "i64", "q": "*i8", "scale": "*fp32"},
    **{"scale_x": "*fp32", "w": "*i8", "scale_w": "*fp32"},
    **dict.fromkeys(("M", "N", "K", "K_PADDED", "tiles"), "i32"),
}
_ALIGNMENT = 64


@functools.cache
def unavailable() -> str | None:
    """Why kernels cannot run in this process; None where they can. The reason names the remedy."""
    try:
        from hf_tle_int8.backend import settings
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


@functools.cache
def layout() -> Scheme:
    """How operands lie in memory here."""
    return scheme(target())


# Loaded code must outlive the functions that point into it.
_entries: list[Any] = []


def compiled(kernel: Any, types: dict[str, str], values: dict[str, Any]) -> Callable[..., None]:
    """A kernel, ready to be called with addresses and integers, the grid and the number of threads.

    Args:
        kernel: a ``triton.jit`` function of `hf_tle_int8.kernels`.
        types: Triton's names of the types of arguments that differ from call to call.
        values: of its constexprs.
    """
    from hf_tle_int8.backend.prepared import prepare

    entry = prepare(kernel, {**_ARGUMENTS, **types}, values, target())
    _entries.append(entry)
    call: Callable[..., None] = entry.call
    return call


@functools.cache
def _quantizer(dtype: torch.dtype, rows: int) -> Callable[..., None]:
    from hf_tle_int8.kernels.quantize import quantize

    values = {"ROWS": rows, "GROUP": layout().packing.group, "BLOCK": QUANTIZED_BLOCK, "FLIPPED": layout().flipped}
    return compiled(quantize, {"x": f"*{_TYPES[dtype]}"}, values)


@functools.cache
def _linear(kernel: str, rows: int, columns: int, together: int, x: str, bias: str | None) -> Callable[..., None]:
    from hf_tle_int8.kernels import linear

    values = constexprs(layout(), Choice(kernel, rows, columns, together, 1, 1), bias is not None)
    return compiled(getattr(linear, kernel), {"x": f"*{x}", "y": f"*{x}", "bias": f"*{bias or x}"}, values)


@dataclass(frozen=True)
class _Plan:
    """All that a call for one shape needs.

    Attributes:
        choice: the kernel and its tile.
        call: the kernel.
        quantize: the kernel that quantizes rows before it; None where it does so itself.
        padded_k: K with its padding.
        programs: of the kernel, along rows and columns.
        scales: bytes of scratch for scales; codes follow.
        scratch: bytes of scratch.
    """

    choice: Choice
    call: Callable[..., None]
    quantize: Callable[..., None] | None
    padded_k: int
    programs: tuple[int, int]
    scales: int
    scratch: int


def _plan(m: int, n: int, k: int, dtype: torch.dtype, bias: torch.dtype | None, threads: int) -> _Plan:
    unlike = schedule.current().name == schedule.DYNAMIC
    choice, padded_k = choose(m, n, k, target(), threads, unlike), layout().packing.padded(n, k)[1]
    types = _TYPES[dtype], None if bias is None else _TYPES[bias]
    call = _linear(choice.kernel, choice.tile_m, choice.tile_n, choice.rows, *types)
    columns = -(-n // choice.tile_n)
    if choice.kernel == "gemv":
        programs, quantize = (-(-columns // choice.tiles), 1), None
    else:
        programs, quantize = (-(-m // choice.tile_m), columns), _quantizer(dtype, choice.rows)
    rows = programs[0] * choice.tile_m
    scales = -(-4 * rows // _ALIGNMENT) * _ALIGNMENT
    return _Plan(choice, call, quantize, padded_k, programs, scales, scales + rows * padded_k + _ALIGNMENT)


_PLANS: dict[tuple[Any, ...], _Plan] = {}
_MOST_PLANS = 4096


class _Scratch(threading.local):
    """Memory for codes and scales of activations, one for each thread of Python that calls."""

    def __init__(self) -> None:
        self.size, self.address = 0, 0

    def at_least(self, size: int) -> int:
        """The address of ``size`` bytes, aligned for vectors; what they held before is gone."""
        if size > self.size:
            self.memory = torch.empty(size + _ALIGNMENT, dtype=torch.int8)
            self.size, self.address = size, -(-self.memory.data_ptr() // _ALIGNMENT) * _ALIGNMENT
        return self.address


_scratch = _Scratch()
# Longer scratch is not kept between calls.
_MOST_KEPT = 1 << 24


def packed_linear(x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """`hf_tle_int8.arithmetic.int8_linear` of packed weights; nothing is recorded for autograd.

    Args:
        x: ``[..., K]``, fp32, fp16 or bf16, on the CPU.
        panels: int8, those of `layout` for ``[N, K]``.
        scale: ``[N, 1]``, floating point.
        bias: ``[N]``, floating point, or None.

    Returns:
        ``[..., N]`` in the dtype of ``x``.
    """
    shape, n = x.shape, scale.shape[0]
    k = shape[-1]
    if not x.is_contiguous():
        x = x.contiguous()
    if not panels.is_contiguous():
        panels = panels.contiguous()
    if scale.dtype is not torch.float32 or not scale.is_contiguous():
        scale = scale.float().contiguous()
    m = x.numel() // k
    y = torch.empty((*shape[:-1], n), dtype=x.dtype)
    if not m:
        return y
    if bias is not None and (bias.dtype not in _TYPES or not bias.is_contiguous()):
        bias = bias.float().contiguous()
    key = m, n, k, x.dtype, None if bias is None else bias.dtype, torch.get_num_threads()
    plan = _PLANS.get(key)
    if plan is None:
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        plan = _PLANS[key] = _plan(*key)
    _run(plan, x, panels, scale, bias, y, (m, n, k))
    return y


def _run(
    plan: _Plan, x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None, y: Tensor, size: tuple[int, int, int]
) -> None:
    (m, n, k), choice = size, plan.choice
    scratch = _scratch if plan.scratch <= _MOST_KEPT else _Scratch()
    scales = scratch.at_least(plan.scratch)
    q, address = scales + plan.scales, 0 if bias is None else bias.data_ptr()
    operands = panels.data_ptr(), scale.data_ptr(), address, y.data_ptr(), n, m, n
    if plan.quantize is None:
        plan.call(
            x.data_ptr(), k, q, scales, *operands, k, plan.padded_k, choice.tiles, *plan.programs, 1, choice.threads
        )
        return
    groups = -(-m // choice.rows)
    plan.quantize(x.data_ptr(), k, q, scales, m, k, plan.padded_k, groups, 1, 1, choice.threads)
    plan.call(q, scales, *operands, plan.padded_k, *plan.programs, 1, choice.threads)
