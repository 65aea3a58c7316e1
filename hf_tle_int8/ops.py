"""The torch operators of this package: schemas, fake kernels, autograd and argument checks.

``tle_int8::linear`` is opaque to ``torch.compile`` and differentiable in ``x`` and ``bias``.
"""

import functools
import math
import warnings

import torch
from torch import Tensor
from torch.autograd import forward_ad

from hf_tle_int8 import arithmetic, execution, native
from hf_tle_int8.activations import Reader, traced_in
from hf_tle_int8.backend.torch_abi import MOST_DIMENSIONS
from hf_tle_int8.errors import InputTypeError, InputValueError, UnsupportedPlacementError
from hf_tle_int8.import_hook import after_import
from hf_tle_int8.packing import Packing, is_packed, unpack, unpack_channels

# Looked up once: each call of a layer asks them.
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_transform, _tracing = torch._C._functorch.peek_interpreter_stack, torch._C._get_tracing_state

# Elements of an input that are quantized anew for each linear sooner than it is found out who shares them.
LITTLE = 1 << 13

# The panels that ``packed_linear`` takes, once it is implemented: that is not when this is imported.
_native_packing: Packing | None = None

_LIBRARY = torch.library.Library("tle_int8", "DEF")
_LIBRARY.define("linear(Tensor x, Tensor weight, Tensor weight_scale, Tensor? bias, int in_features) -> Tensor")
_LIBRARY.define("quantize(Tensor x) -> Tensor")
_LIBRARY.define(
    "linear_quantized(Tensor x, Tensor quantized, Tensor weight, Tensor weight_scale, Tensor? bias, int in_features) "
    "-> Tensor"
)
_LIBRARY.define("packed_linear(Tensor x, Tensor panels, Tensor weight_scale, int in_features) -> Tensor")
_LIBRARY.define(
    "packed_linear.bias(Tensor x, Tensor panels, Tensor weight_scale, Tensor bias, int in_features) -> Tensor"
)
_LIBRARY.define("linear_grad_input(Tensor grad, Tensor weight, Tensor weight_scale, int in_features) -> Tensor")


def linear(
    x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None = None, in_features: int | None = None
) -> Tensor:
    """INT8 linear: ``x @ (weight * weight_scale).T + bias`` with ``x`` quantized per token.

    Args:
        x: ``[..., K]``, fp32, fp16 or bf16.
        weight: int8 ``[N, K]``, which the plain-torch reference multiplies, or panels (see `packing.Packing`), which
            the kernels do.
        weight_scale: fp32 ``[N, 1]``, ``w ≈ weight * weight_scale``.
        bias: ``[N]``, floating point, or None.
        in_features: K; needed with panels, whose K is padded.

    Returns:
        ``[..., N]`` in the dtype of ``x``. A row of ``x`` with NaN or Inf gives a row of NaN.

    Raises:
        InputTypeError: ``x`` is not fp32, fp16 or bf16, or ``weight`` is not int8.
        InputValueError: the last dimension of ``x`` is not K.
        UnsupportedPlacementError: ``x`` or ``weight`` is not in the memory of the CPU.
        NotImplementedError: ``x`` has a forward-mode tangent.
    """
    refuse_tangent(x)
    in_features = weight.shape[1] if in_features is None else in_features
    check_input(x, weight, weight_scale, bias, in_features)
    return torch.ops.tle_int8.linear(x, weight, weight_scale, bias, in_features)


def refuse_tangent(x: Tensor) -> None:
    """Raise `NotImplementedError` where ``x`` has a forward-mode tangent, which would be taken for zero."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        raise NotImplementedError(
            "the input has a tangent: INT8 linears have no forward-mode derivative, and would take it for zero. "
            "Use reverse mode (backward, torch.func.vjp), or dequantize the layer with to_linear()."
        )


def traced_linear(
    x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int, reader: Reader | None
) -> Tensor:
    """`linear` in code that is traced; where that is compiled, by fewer calls of Python.

    What is exported is run by others, and what is differentiated keeps ``x``: there each linear is one operator.

    Args:
        reader: which of the linears that share ``x`` this is.
    """
    differentiated = torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad))
    differentiated = differentiated or _is_transformed() or forward_ad._current_level >= 0
    compiled = torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()
    if differentiated or not compiled:
        return linear(x, weight, weight_scale, bias, in_features)
    # Not before something is compiled: it takes a quarter of a second.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    shares = reader is not None and not statically_known_true(x.numel() <= LITTLE) and traced_in(reader.of)
    fits = _native_packing is not None and _native_packing.fits(weight, weight_scale.shape[0], in_features)
    if fits and not shares and x.dim() <= MOST_DIMENSIONS and _fits_native(weight, weight_scale, bias):
        check_input(x, weight, weight_scale, bias, in_features)
        return _call_native(x.contiguous(), weight, weight_scale, bias, in_features)
    if reader is None or not shares:
        return linear(x, weight, weight_scale, bias, in_features)
    check_input(x, weight, weight_scale, bias, in_features)
    quantized = reader.of.traced(x, reader.bit)
    return torch.ops.tle_int8.linear_quantized(x, quantized, weight, weight_scale, bias, in_features)


def _is_transformed() -> bool:
    """Whether a transformation of ``torch.func`` is at work, which makes no input ``requires_grad`` for Dynamo."""
    return _transform() is not None


# Before anything is traced; at once, this would import Dynamo.
after_import("torch._dynamo", lambda _: torch.compiler.assume_constant_result(_is_transformed))


def called_linear(
    x: Tensor, panels: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int, reader: Reader | None
) -> Tensor:
    """`linear` of a plain call (see `is_plain_call`) with panels for this machine and an ``x`` that goes with them.

    Args:
        reader: which of the linears that share ``x`` this is, if it does.
    """
    if reader is None and x.is_contiguous() and _fits_native(panels, weight_scale, bias):
        return _call_native(x, panels, weight_scale, bias, in_features)
    return execution.packed_linear(x, panels, weight_scale, bias, reader)


def prepare() -> None:
    """Let calls reach the kernels without Python from now on; warns once where they cannot."""
    global _native_packing
    if _native_packing is not None:
        return
    reason = native.install()
    if reason is None:
        _native_packing = execution.layout().packing
    else:
        _warn_of_slow_calls(reason)


@functools.cache
def _warn_of_slow_calls(reason: str) -> None:
    warnings.warn(
        f"each call of an INT8 linear takes some microseconds more than it need, through Python: {reason}",
        RuntimeWarning,
        stacklevel=5,
    )


def _fits_native(panels: Tensor, weight_scale: Tensor, bias: Tensor | None) -> bool:
    return (
        _native_packing is not None
        and panels.is_contiguous()
        and weight_scale.dtype is torch.float32
        and weight_scale.is_contiguous()
        and (bias is None or (bias.dtype in arithmetic.FLOAT_DTYPES and bias.is_contiguous()))
    )


def _call_native(x: Tensor, panels: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int) -> Tensor:
    if bias is None:
        return _PACKED_LINEAR(x, panels, weight_scale, in_features)
    return _PACKED_LINEAR_BIAS(x, panels, weight_scale, bias, in_features)


def is_plain_call(x: Tensor, bias: Tensor | None) -> bool:
    """Whether a linear of ``x`` is numbers alone: nothing traces, transforms, dispatches or differentiates it."""
    return (
        type(x) is Tensor
        and x.is_cpu
        and x.layout is torch.strided
        and not x.is_neg()
        and not x._is_zerotensor()
        and x.dtype in arithmetic.FLOAT_DTYPES
        and 0 < x.dim() <= MOST_DIMENSIONS
        and not (torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)))
        and forward_ad._current_level < 0
        and not _dispatch_modes()
        and not _function_modes()
        and _transform() is None
        and _tracing() is None
    )


def check_input(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int) -> None:
    """Raise unless ``x`` can be the input of a layer of these tensors; see `linear`."""
    if x.dtype not in arithmetic.FLOAT_DTYPES:
        raise InputTypeError(
            f"the input has dtype {x.dtype}: an INT8 linear takes float32, float16 or bfloat16 and quantizes it "
            f"itself. Convert it first, for example with x.to(torch.float32)."
        )
    if weight.dtype != torch.int8:
        raise InputTypeError(
            f"the weight of an INT8 linear has dtype {weight.dtype}: int8 codes are needed. "
            f"Quantize it with TLEInt8Linear.from_linear, or use torch.nn.functional.linear."
        )
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise InputValueError(
            f"the input has shape {tuple(x.shape)}: [..., {in_features}] is needed, in_features last. "
            f"Reshape it, or check which layer it was meant for."
        )
    devices = {tensor.device for tensor in (x, weight, weight_scale, bias) if tensor is not None}
    if len(devices) > 1 or x.device.type not in ("cpu", "meta"):
        raise UnsupportedPlacementError(
            f"the input is on {x.device}, the INT8 weight on {weight.device} and its scale on {weight_scale.device}: "
            f"INT8 linears run on the CPU. Move all of them there with .to('cpu')."
        )


def _linear_cpu(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int) -> Tensor:
    # Traced code gets here without `linear`.
    check_input(x, weight, weight_scale, bias, in_features)
    return _linear_quantized_cpu(x, None, weight, weight_scale, bias, in_features)


def _linear_quantized_cpu(
    x: Tensor, quantized: Tensor | None, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int
) -> Tensor:
    n, k = weight_scale.shape[0], in_features
    if is_packed(weight):
        if execution.unavailable() is None and execution.layout().packing.fits(weight, n, k):
            return execution.packed_linear(x, weight, weight_scale, bias, quantized=quantized)
        weight = unpack(weight, n, k)
    if execution.unavailable() is None:
        _warn_of_other_weights()
    rows = x.reshape(x.shape[:-1].numel(), k)
    y = arithmetic.int8_linear(rows, weight, weight_scale, bias)
    return y.reshape(*x.shape[:-1], n)


def _quantize_cpu(x: Tensor) -> Tensor:
    if execution.unavailable() is None:
        return execution.quantized_rows(x)
    return torch.empty(_quantized_size(x), dtype=torch.int8)


def _quantized_size(x: Tensor) -> int:
    return execution.quantized_size(math.prod(x.shape[:-1]), x.shape[-1])


@functools.cache
def _warn_of_other_weights() -> None:
    warnings.warn(
        "an INT8 linear with row-major weights runs on the plain-torch reference, which is slow; so does one with "
        "weights packed for another CPU. Layers pack their weights for the kernels when they are loaded or called, but "
        "not inside of torch.compile: after state_dict() or another use of layer.weight, call the model once outside "
        "of it. A program of torch.export keeps those that it was exported with: export it on the CPU that runs it.",
        RuntimeWarning,
        stacklevel=4,
    )


def _linear_fake(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight_scale.shape[0]))


def _quantize_fake(x: Tensor) -> Tensor:
    return x.new_empty(_quantized_size(x), dtype=torch.int8)


def _linear_quantized_fake(
    x: Tensor, quantized: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int
) -> Tensor:
    return _linear_fake(x, weight, weight_scale, bias, in_features)


def _packed_linear_fake(x: Tensor, panels: Tensor, weight_scale: Tensor, in_features: int) -> Tensor:
    # Some on the meta device and some not would end here too, and give memory that nothing has been written to.
    check_input(x, panels, weight_scale, None, in_features)
    return _linear_fake(x, panels, weight_scale, None, in_features)


def _packed_linear_bias_fake(x: Tensor, panels: Tensor, weight_scale: Tensor, bias: Tensor, in_features: int) -> Tensor:
    check_input(x, panels, weight_scale, bias, in_features)
    return _linear_fake(x, panels, weight_scale, bias, in_features)


def _grad_input_cpu(grad: Tensor, weight: Tensor, weight_scale: Tensor, in_features: int) -> Tensor:
    n = weight_scale.shape[0]

    def channels(start: int, stop: int) -> Tensor:
        return unpack_channels(weight, start, stop, in_features) if is_packed(weight) else weight[start:stop]

    grad_x = arithmetic.int8_linear_grad_input(grad.reshape(-1, n), channels, weight_scale, in_features)
    return grad_x.reshape(*grad.shape[:-1], in_features)


def _grad_input_fake(grad: Tensor, weight: Tensor, weight_scale: Tensor, in_features: int) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], in_features))


def _save_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, weight, weight_scale, bias, in_features = inputs
    ctx.save_for_backward(weight, weight_scale)
    ctx.in_features = in_features
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    weight, weight_scale = ctx.saved_tensors
    needs_x, _, _, needs_bias, _ = ctx.needs_input_grad
    grad_x = None
    if needs_x:
        grad_x = torch.ops.tle_int8.linear_grad_input(grad, weight, weight_scale, ctx.in_features)
    grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0).to(ctx.bias_dtype) if needs_bias else None
    return grad_x, None, None, grad_bias, None


# Looked up once, as they are called without anything between.
_PACKED_LINEAR, _PACKED_LINEAR_BIAS = torch.ops.tle_int8.packed_linear.default, torch.ops.tle_int8.packed_linear.bias

_LIBRARY.impl("linear", _linear_cpu, "CPU")
_LIBRARY.impl("quantize", _quantize_cpu, "CPU")
_LIBRARY.impl("linear_quantized", _linear_quantized_cpu, "CPU")
_LIBRARY.impl("linear_grad_input", _grad_input_cpu, "CPU")
torch.library.register_fake("tle_int8::linear", _linear_fake, lib=_LIBRARY)
torch.library.register_fake("tle_int8::quantize", _quantize_fake, lib=_LIBRARY)
torch.library.register_fake("tle_int8::linear_quantized", _linear_quantized_fake, lib=_LIBRARY)
torch.library.register_fake("tle_int8::packed_linear", _packed_linear_fake, lib=_LIBRARY)
torch.library.register_fake("tle_int8::packed_linear.bias", _packed_linear_bias_fake, lib=_LIBRARY)
torch.library.register_fake("tle_int8::linear_grad_input", _grad_input_fake, lib=_LIBRARY)
torch.library.register_autograd("tle_int8::linear", _backward, setup_context=_save_for_backward, lib=_LIBRARY)
