"""The kernels of this folder as torch operators of the loaded module's own name; its `functions` check what they take.

`torch.compile` sees operators and no kernels. None has a derivative: torch says so in a backward pass.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_tle_int8 import execution
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, Choice, choose, constexprs
from hf_tle_int8.errors import InputValueError

from .kernels import linear, quantize
from .kernels import pack as packing

_TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int8: "i8", torch.int32: "i32"}

_operator = functools.partial(torch.library.custom_op, mutates_args=(), device_types="cpu")


def _name(operator: str) -> str:
    return f"{__package__}::{operator}"


@functools.cache
def _compiled(kernel: Any, types: frozenset[tuple[str, torch.dtype]], **values: int) -> Callable[..., None]:
    return execution.compiled(kernel, {name: f"*{_TYPES[dtype]}" for name, dtype in types}, values).call


def _choice(m: int, n: int, k: int) -> Choice:
    return choose(m, n, k, execution.layout(), torch.get_num_threads())


def _quantize_rows(x: Tensor, q: Tensor, scale: Tensor, rows: int, padded_k: int, flipped: bool, threads: int) -> None:
    """Contiguous ``x [M, K]`` to codes ``[M / rows][padded_k / group][rows][group]`` and scales."""
    m, k = x.shape
    group = execution.layout().packing.group
    call = _compiled(
        quantize.quantize, frozenset({("x", x.dtype)}), ROWS=rows, GROUP=group, BLOCK=QUANTIZED_BLOCK, FLIPPED=flipped
    )
    call(x.data_ptr(), k, q.data_ptr(), scale.data_ptr(), m, k, padded_k, -(-m // rows), 1, 1, threads)


def _pack_rows(x: Tensor, padded: tuple[int, int], rows: int, flipped: bool, threads: int) -> Tensor:
    """int8 ``x [M, K]`` to ``[padded M / rows, padded K / group, rows, group]``."""
    if 1 not in x.stride():
        x = x.contiguous()
    transposed = x.stride(1) != 1
    (m, k), group = x.shape, execution.layout().packing.group
    call = _compiled(
        packing.pack, frozenset({("x", torch.int8)}),
        ROWS=rows, GROUP=group, BLOCK=QUANTIZED_BLOCK, FLIPPED=flipped, TRANSPOSED=transposed,
    )  # fmt: skip
    to = torch.empty((padded[0] // rows, padded[1] // group, rows, group), dtype=torch.int8)
    call(
        x.data_ptr(), x.stride(1 if transposed else 0), to.data_ptr(), m, k, padded[1], padded[0] // rows, 1, 1, threads
    )
    return to


@_operator(_name("quantize"))
def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """``[M, K]`` to int8 ``[M, K]`` and fp32 ``[M, 1]``."""
    (m, k), x = x.shape, x.contiguous()
    q, scale = torch.empty((m, k), dtype=torch.int8), torch.empty((m, 1), dtype=torch.float32)
    if m:
        _quantize_rows(x, q, scale, 1, k, False, _choice(m, 1, k).threads)
    return q, scale


@quantize_rows.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty((x.shape[0], 1), dtype=torch.float32)


@_operator(_name("pack"))
def pack_weight(weight: Tensor) -> Tensor:
    """int8 ``[N, K]`` to panels."""
    (n, k), layout = weight.shape, execution.layout().packing
    return _pack_rows(weight, layout.padded(n, k), layout.columns, False, _choice(n, 1, k).threads)


@pack_weight.register_fake
def _(weight: Tensor) -> Tensor:
    layout = execution.layout().packing
    n, k = layout.padded(*weight.shape)
    return weight.new_empty((n // layout.columns, k // layout.group, layout.columns, layout.group))


def linear_of_panels(x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None, n: int) -> Tensor:
    """``[M, K]`` to ``[M, N]`` by panels of ``[N, K]``, contiguous fp32 scales and a contiguous bias."""
    (m, k), x, here = x.shape, x.contiguous(), execution.layout()
    if not here.packing.fits(panels, n, k):
        raise InputValueError(
            f"the panels have shape {tuple(panels.shape)}, and this CPU's of an [{n}, {k}] weight have another: they "
            f"were packed for another CPU, or reshaped. Give the row-major weight to pack() here."
        )
    y = torch.empty((m, n), dtype=x.dtype)
    if not m:
        return y
    choice, padded_k = _choice(m, n, k), here.packing.padded(n, k)[1]
    programs = -(-m // choice.tile_m), -(-n // choice.tile_n)
    room = programs[0] * choice.tile_m
    q, scale_x = torch.empty(room * padded_k, dtype=torch.int8), torch.empty(room, dtype=torch.float32)
    _quantize_rows(x, q, scale_x, choice.rows, padded_k, choice.flipped, choice.threads)
    types = frozenset({("y", x.dtype), ("bias", x.dtype if bias is None else bias.dtype)})
    call = _compiled(linear.gemm, types, **constexprs(here, choice), HAS_BIAS=bias is not None)
    added = 0 if bias is None else bias.data_ptr()
    operands = q.data_ptr(), scale_x.data_ptr(), panels.data_ptr(), scale.data_ptr(), added, y.data_ptr()
    call(*operands, n, m, n, padded_k, *programs, 1, choice.threads)
    return y


linear_operator = _operator(_name("linear"))(linear_of_panels)


@linear_operator.register_fake
def _(x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None, n: int) -> Tensor:
    return x.new_empty((x.shape[0], n))


@_operator(_name("int_mm"))
def int_product(a: Tensor, b: Tensor) -> Tensor:
    """int8 ``[M, K]`` times int8 ``[K, N]``, int32 ``[M, N]``."""
    (m, k), n, here = a.shape, b.shape[1], execution.layout()
    y = torch.empty((m, n), dtype=torch.int32)
    choice, (padded_n, padded_k) = _choice(m, n, k), here.packing.padded(n, k)
    programs = -(-m // choice.tile_m), -(-n // choice.tile_n)
    q = _pack_rows(a, (programs[0] * choice.tile_m, padded_k), choice.rows, choice.flipped, choice.threads)
    panels = _pack_rows(b.t(), (padded_n, padded_k), here.packing.columns, False, choice.threads)
    call = _compiled(linear.gemm_int32, frozenset({("y", torch.int32)}), **constexprs(here, choice))
    call(q.data_ptr(), panels.data_ptr(), y.data_ptr(), n, m, n, padded_k, *programs, 1, choice.threads)
    return y


@int_product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[1]), dtype=torch.int32)
