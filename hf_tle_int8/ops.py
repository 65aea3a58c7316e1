"""The torch operators of this package: schemas, fake kernels, autograd and argument checks.

``tle_int8::linear`` is opaque to ``torch.compile`` and differentiable in ``x`` and ``bias``.
"""

import torch
from torch import Tensor

from hf_tle_int8 import arithmetic
from hf_tle_int8.errors import InputTypeError, InputValueError, UnsupportedPlacementError

_LIBRARY = torch.library.Library("tle_int8", "DEF")
_LIBRARY.define("linear(Tensor x, Tensor weight, Tensor weight_scale, Tensor? bias) -> Tensor")
_LIBRARY.define("linear_grad_input(Tensor grad, Tensor weight, Tensor weight_scale) -> Tensor")


def linear(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """INT8 linear: ``x @ (weight * weight_scale).T + bias`` with ``x`` quantized per token.

    Args:
        x: ``[..., K]``, fp32, fp16 or bf16.
        weight: int8 ``[N, K]``.
        weight_scale: fp32 ``[N, 1]``, ``w ≈ weight * weight_scale``.
        bias: ``[N]``, floating point, or None.

    Returns:
        ``[..., N]`` in the dtype of ``x``. A row of ``x`` with NaN or Inf gives a row of NaN.

    Raises:
        InputTypeError: ``x`` is not fp32, fp16 or bf16.
        InputValueError: the last dimension of ``x`` is not K.
        UnsupportedPlacementError: ``x`` or ``weight`` is not in the memory of the CPU.
    """
    _check_input(x, weight, weight_scale, bias)
    return torch.ops.tle_int8.linear(x, weight, weight_scale, bias)


def _check_input(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> None:
    if x.dtype not in arithmetic.FLOAT_DTYPES:
        raise InputTypeError(
            f"the input has dtype {x.dtype}: an INT8 linear takes float32, float16 or bfloat16 and quantizes it "
            f"itself. Convert it first, for example with x.to(torch.float32)."
        )
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise InputValueError(
            f"the input has shape {tuple(x.shape)}: [..., {weight.shape[1]}] is needed, in_features last. "
            f"Reshape it, or check which layer it was meant for."
        )
    devices = {tensor.device for tensor in (x, weight, weight_scale, bias) if tensor is not None}
    if len(devices) > 1 or x.device.type not in ("cpu", "meta"):
        raise UnsupportedPlacementError(
            f"the input is on {x.device}, the INT8 weight on {weight.device} and its scale on {weight_scale.device}: "
            f"INT8 linears run on the CPU. Move all of them there with .to('cpu')."
        )


def _linear_cpu(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    rows = x.reshape(x.shape[:-1].numel(), weight.shape[1])
    y = arithmetic.int8_linear(rows, weight, weight_scale, bias)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _linear_fake(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _grad_input_cpu(grad: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    rows = grad.reshape(grad.shape[:-1].numel(), weight.shape[0])
    grad_x = arithmetic.int8_linear_grad_input(rows, weight, weight_scale)
    return grad_x.reshape(*grad.shape[:-1], weight.shape[1])


def _grad_input_fake(grad: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], weight.shape[1]))


def _save_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, weight, weight_scale, bias = inputs
    ctx.save_for_backward(weight, weight_scale)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    weight, weight_scale = ctx.saved_tensors
    needs_x, _, _, needs_bias = ctx.needs_input_grad
    grad_x = torch.ops.tle_int8.linear_grad_input(grad, weight, weight_scale) if needs_x else None
    grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0).to(ctx.bias_dtype) if needs_bias else None
    return grad_x, None, None, grad_bias


_LIBRARY.impl("linear", _linear_cpu, "CPU")
_LIBRARY.impl("linear_grad_input", _grad_input_cpu, "CPU")
torch.library.register_fake("tle_int8::linear", _linear_fake, lib=_LIBRARY)
torch.library.register_fake("tle_int8::linear_grad_input", _grad_input_fake, lib=_LIBRARY)
torch.library.register_autograd("tle_int8::linear", _backward, setup_context=_save_for_backward, lib=_LIBRARY)
