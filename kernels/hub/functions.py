"""What a user of these kernels calls, with checks of what it is called with."""

from typing import NamedTuple

import torch
from torch import Tensor

from hf_tle_int8.arithmetic import FLOAT_DTYPES
from hf_tle_int8.errors import InputTypeError, InputValueError, UnsupportedPlacementError
from hf_tle_int8.nn.linear import check_bias, check_int8_weight
from hf_tle_int8.ops import check_input, is_plain_call

from . import operators


class Panels(NamedTuple):
    """An int8 weight as the kernels read it on one kind of CPU, see `pack`.

    Attributes:
        codes: int8 ``[N / columns, K / group, columns, group]``, zeros behind N and K.
        out_features: N.
        in_features: K.
    """

    codes: Tensor
    out_features: int
    in_features: int


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize rows, symmetrically: activations per token, or a weight per output channel.

    Args:
        x: ``[..., K]``, fp32, fp16 or bf16, on the CPU.

    Returns:
        ``(q, scale)``: int8 ``[..., K]`` of -127 to 127 and fp32 ``[..., 1]`` with ``x ≈ q * scale``. A row that holds
        NaN or Inf has codes of 0 and a scale of NaN.

    Raises:
        InputTypeError: another dtype.
        InputValueError: no dimension, or a last one of 0.
        UnsupportedPlacementError: on another device.
    """
    if x.dtype not in FLOAT_DTYPES:
        raise InputTypeError(f"x has dtype {x.dtype}: float32, float16 or bfloat16 is quantized. Convert it first.")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise InputValueError(f"x has shape {tuple(x.shape)}: [..., K] with a K of 1 or more is needed. Reshape it.")
    _check_device(x)
    q, scale = operators.quantize_rows(x.reshape(-1, x.shape[-1]))
    return q.reshape(x.shape), scale.reshape(*x.shape[:-1], 1)


def pack(weight: Tensor) -> Panels:
    """Bring an int8 weight into the order in which this CPU's instructions read it; once, not for each call.

    Args:
        weight: int8 ``[N, K]``, on the CPU; K at most 131072, beyond which sums could overflow int32.

    Raises:
        InputTypeError: not an int8 tensor.
        InputValueError: not 2-D, N is 0, or K is out of range.
        UnsupportedPlacementError: on another device.
    """
    check_int8_weight(weight, "weight")
    if not len(weight):
        raise InputValueError(f"weight has shape {tuple(weight.shape)}: an N of 1 or more is needed.")
    return Panels(operators.pack_weight(weight), *weight.shape)


def int8_linear(x: Tensor, weight: Panels, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ (weight * scale).T + bias``, with ``x`` quantized per row and summed in int32 without rounding.

    Bits are those of `hf_tle_int8.arithmetic.int8_linear`, whatever the number of rows and of threads.

    Args:
        x: ``[..., K]``, fp32, fp16 or bf16, on the CPU.
        weight: what `pack` gives for int8 ``[N, K]``.
        scale: ``[N]`` or ``[N, 1]``, floating point, ``w ≈ weight * scale[:, None]``.
        bias: ``[N]``, floating point, or None.

    Returns:
        ``[..., N]`` in the dtype of ``x``. A row of ``x`` with NaN or Inf gives a row of NaN.

    Raises:
        InputTypeError: ``weight`` is not packed, or a dtype is none of these.
        InputValueError: a shape is none of these, or the panels are those of another kind of CPU.
        UnsupportedPlacementError: a tensor is on another device.
    """
    if not isinstance(weight, Panels):
        raise InputTypeError(
            f"weight is a {type(weight).__name__}: Panels are needed. Give the int8 [N, K] weight to pack(), once."
        )
    panels, n, k = weight
    check_input(x, panels, scale, bias, k)
    if not scale.is_floating_point() or scale.shape not in ((n,), (n, 1)):
        raise InputValueError(
            f"scale is {scale.dtype} of shape {tuple(scale.shape)}: floating point [{n}] or [{n}, 1] is needed, one "
            f"for each output channel. Convert or reshape it."
        )
    if bias is not None:
        check_bias(bias, n)
        bias = (bias if bias.dtype in FLOAT_DTYPES else bias.float()).contiguous()
    # Where nothing traces or differentiates, an operator would be most of the time of a small linear.
    plain = not torch.compiler.is_compiling() and not scale.requires_grad and is_plain_call(x, bias)
    linear = operators.linear_of_panels if plain else operators.linear_operator
    y = linear(x.reshape(-1, k), panels, scale.float().contiguous(), bias, n)
    return y.reshape(*x.shape[:-1], n)


def int_mm(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of int8 matrices in int32, as ``torch._int_mm``: exact for K up to 131071, sums wrap beyond.

    Args:
        a: int8 ``[M, K]``, on the CPU, of any strides.
        b: int8 ``[K, N]``, on the CPU, of any strides.

    Returns:
        int32 ``[M, N]``.

    Raises:
        InputTypeError: another dtype.
        InputValueError: shapes that do not fit, or a dimension of 0.
        UnsupportedPlacementError: on another device.
    """
    if a.dtype != torch.int8 or b.dtype != torch.int8:
        raise InputTypeError(f"a has dtype {a.dtype} and b {b.dtype}: both must be int8. Quantize them first.")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or 0 in (*a.shape, *b.shape):
        raise InputValueError(
            f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}: [M, K] and [K, N] are needed, none of them 0. "
            f"Reshape or transpose them."
        )
    _check_device(a)
    _check_device(b)
    return operators.int_product(a, b)


def _check_device(tensor: Tensor) -> None:
    if tensor.device.type not in ("cpu", "meta"):
        raise UnsupportedPlacementError(
            f"a tensor is on {tensor.device}: these kernels run on the CPU. Move it there with .to('cpu')."
        )
