"""TLEInt8Linear: the state of an INT8 linear layer and one operator call."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_tle_int8 import arithmetic, ops
from hf_tle_int8.activations import Reader, called_in
from hf_tle_int8.errors import (
    InputTypeError,
    InputValueError,
    TLEInt8Error,
    UnsupportedPlacementError,
    UnsupportedTrainingError,
)
from hf_tle_int8.nn.packed import pack_parameter, unpack_parameter
from hf_tle_int8.packing import is_packed, unpack

_MANY_TIMES = 8
_OFTEN_UNPACKED = (
    "{}: something looks at its weight between calls, so that it is unpacked and packed again each time: slow. "
    "Look at weight_scale or in_features instead, or leave this layer in float (modules_to_not_convert)."
)

NOT_TRAINABLE = (
    "requires_grad_(True) on a {}: INT8 weights have no gradient. Train adapters on top of them (PEFT), or float "
    "weights: model.dequantize(), or layer.to_linear() for one layer."
)


def _frozen(tensor: Tensor) -> nn.Parameter:
    if tensor.is_inference():
        # Outside of inference_mode, such a tensor cannot even be copied row by row.
        with torch.inference_mode(False):
            tensor = tensor.clone()
    return nn.Parameter(tensor.detach(), requires_grad=False)


def check_placement(tensor: Tensor, name: str, allowed: tuple[str, ...] = ("cpu", "meta")) -> None:
    """Raise `UnsupportedPlacementError` unless ``tensor`` is on one of the device types ``allowed``."""
    if tensor.device.type not in allowed:
        raise UnsupportedPlacementError(
            f"{name} is on {tensor.device}: INT8 linears run on the CPU. Move it there with .to('cpu')."
        )


def check_is_tensor(value: object, name: str) -> None:
    """Raise `InputTypeError` unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise InputTypeError(f"{name} is a {type(value).__name__}: a torch.Tensor is needed, see torch.as_tensor.")


def check_int8_weight(weight: Tensor, name: str = "w_int8") -> None:
    """Raise unless ``weight`` is an int8 tensor ``[N, K]`` in the memory of the CPU (or on the meta device)."""
    check_is_tensor(weight, name)
    if weight.dtype != torch.int8:
        raise InputTypeError(
            f"{name} has dtype {weight.dtype}: int8 codes are needed. "
            f"To quantize a float weight, use TLEInt8Linear.from_linear or quantize_and_replace_linears."
        )
    arithmetic.check_weight_shape(weight, name)
    check_placement(weight, name)


def normalize_scale(scale: Tensor, out_features: int, name: str = "w_scale") -> Tensor:
    """Bring a per-channel scale to fp32 ``[N, 1]``.

    Args:
        scale: ``[N]``, ``[N, 1]`` or a scalar, floating point, each value finite and above 0.
        out_features: N.
        name: what an error calls the tensor.

    Raises:
        InputTypeError: not a floating-point tensor.
        InputValueError: another shape, or a value that is zero, negative, NaN or Inf.
    """
    check_is_tensor(scale, name)
    if not scale.is_floating_point():
        raise InputTypeError(
            f"{name} has dtype {scale.dtype}: a scale must be floating point. Convert it with .float()."
        )
    if scale.ndim == 0:
        scale = scale.expand(out_features)
    if scale.shape not in ((out_features,), (out_features, 1)):
        raise InputValueError(
            f"{name} has shape {tuple(scale.shape)}: [{out_features}], [{out_features}, 1] or a scalar is needed, "
            f"one scale for each output channel."
        )
    check_placement(scale, name)
    scale = scale.detach().to(torch.float32).reshape(out_features, 1).contiguous()
    if scale.device.type != "meta":
        check_scale_values(scale, name)
    return scale


def check_scale_values(scale: Tensor, name: str) -> None:
    """Raise `InputValueError` unless each value of ``scale`` is finite and above 0."""
    valid = torch.isfinite(scale) & (scale > 0)
    if not valid.all():
        channel = int(torch.nonzero(~valid.flatten())[0])
        raise InputValueError(
            f"{name} is {scale.flatten()[channel].item()} for output channel {channel}: a scale must be finite and "
            f"above 0. The checkpoint is damaged or was made by another scheme; quantize the float model again."
        )


def check_bias(bias: Tensor, out_features: int, name: str = "bias") -> None:
    """Raise unless ``bias`` is a floating-point tensor ``[N]`` in the memory of the CPU (or on the meta device)."""
    check_is_tensor(bias, name)
    if not bias.is_floating_point():
        raise InputTypeError(f"{name} has dtype {bias.dtype}: a bias must be floating point. Convert it with .float().")
    if bias.shape != (out_features,):
        raise InputValueError(
            f"{name} has shape {tuple(bias.shape)}: [{out_features}] is needed, one for each channel."
        )
    check_placement(bias, name)


def check_same_device(weight: Tensor, scale: Tensor, bias: Tensor | None, name: str = "the layer") -> None:
    """Raise `UnsupportedPlacementError` unless all tensors of a layer are on one device."""
    devices = {tensor.device for tensor in (weight, scale, bias) if tensor is not None}
    if len(devices) > 1:
        raise UnsupportedPlacementError(
            f"{name} has tensors on {' and '.join(sorted(map(str, devices)))}: one device is needed for all of them. "
            f"Move them with .to('cpu')."
        )


class TLEInt8Linear(nn.Linear):
    """A linear layer with int8 weights, one scale per output channel, and activations quantized per token.

    ``y = x @ (weight * weight_scale).T + bias``. All of its parameters are frozen; gradients flow to ``x``, so that
    adapters such as LoRA train on top. ``.to(dtype)``, ``.half()`` and the like cast the bias alone.

    The weight is held once: as panels for the kernels after `pack_` or a first call, row-major before.
    ``layer.weight`` and ``state_dict()`` are row-major ``[N, K]``, into which it is turned back for them;
    ``parameters()`` gives it as it is.

    Args:
        w_int8: int8 ``[N, K]`` codes, ``1 <= K <= 131072``.
        w_scale: scale with ``w ≈ w_int8 * w_scale[:, None]``: ``[N]``, ``[N, 1]`` or a scalar, finite and above 0.
        bias: ``[N]``, floating point, or None.

    Raises:
        InputTypeError: a tensor of a wrong dtype.
        InputValueError: a tensor of a wrong shape, or a scale that is zero, negative, NaN or Inf.
        UnsupportedPlacementError: a tensor that is not in the memory of the CPU.
    """

    # transformers must not run its weight initialization on int8 codes; PEFT dispatches its LoRA layer to nn.Linear.
    _is_hf_initialized = True

    weight_scale: nn.Parameter
    # Class attributes, for layers that were made by `become`: how often a call had to pack the weight, and whether
    # its panels are known to be those of this machine.
    _packed_times = 0
    _is_ready = False
    # Which of the linears that share their input this is; see `hf_tle_int8.shared_inputs`.
    _reader: Reader | None = None
    # The class that `revert` gives back.
    _float_class: type[nn.Module] = nn.Linear

    def __init__(self, w_int8: Tensor, w_scale: Tensor | float, bias: Tensor | None = None):
        check_int8_weight(w_int8)
        out_features, in_features = w_int8.shape
        if isinstance(w_scale, int | float):
            w_scale = torch.tensor(float(w_scale), device=w_int8.device)
        scale = normalize_scale(w_scale, out_features)
        if bias is not None:
            check_bias(bias, out_features)
        check_same_device(w_int8, scale, bias)
        nn.Module.__init__(self)
        self.in_features = in_features
        self.out_features = out_features
        self._set_state(w_int8.contiguous(), scale, bias)

    @property  # type: ignore[override]
    def weight(self) -> nn.Parameter:
        """int8 ``[N, K]``; a packed weight is turned back into that, and packed again by the next call."""
        weight = self._weight()
        if weight.dtype == torch.int8:
            unpack_parameter(weight, self.out_features, self.in_features)
        return weight

    @weight.setter
    def weight(self, value: nn.Parameter) -> None:
        self.register_parameter("weight", value)

    def _weight(self) -> nn.Parameter:
        """The weight as it is."""
        weight = self._parameters.get("weight")
        if weight is None:
            raise AttributeError(
                f"{type(self).__name__} has no weight of its own: none was loaded yet, or it is parametrized, which "
                f"int8 codes cannot be. Do that to a float layer, see to_linear()."
            )
        return weight

    def pack_(self) -> "TLEInt8Linear":
        """Turn the weight into panels for the kernels now rather than in the next call; nothing where none can run."""
        weight = self._weight()
        if weight.dtype == torch.int8:
            pack_parameter(weight, self.out_features, self.in_features)
        return self

    def _set_state(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.weight = _frozen(weight)
        self.weight_scale = _frozen(scale)
        self.register_parameter("bias", None if bias is None else _frozen(bias))

    @staticmethod
    def rows(weight: Tensor) -> Tensor:
        """The weight of the float class as ``[N, K]``, and back: a view."""
        return weight

    @classmethod
    def from_linear(cls, linear: nn.Module) -> "TLEInt8Linear":
        """Quantize a float ``nn.Linear`` into a new layer; ``linear`` is left as it is.

        Raises:
            InputTypeError, InputValueError: its weight cannot be quantized (see `arithmetic.check_weight`).
            UnsupportedPlacementError: its weight is not in the memory of the CPU.
        """
        weight, bias = cls.rows(cast(Tensor, linear.weight)), linear._parameters["bias"]
        check_placement(weight, "the weight", allowed=("cpu",))
        layer = cls(*arithmetic.quantize_weight(weight), None if bias is None else bias.clone())
        return layer.train(linear.training).pack_()

    @classmethod
    def become(cls, linear: nn.Module, weight: Tensor, scale: Tensor, bias: Tensor | None) -> "TLEInt8Linear":
        """Turn ``linear`` itself into an INT8 layer, so that every reference to it and its hooks stay valid.

        Args:
            linear: an ``nn.Linear`` or another module that this class stands for (see `int8_class`); its float weight
                is dropped.
            weight: int8 ``[N, K]``, or a float placeholder on the meta device that a loader will replace.
            scale: fp32 ``[N, 1]``.
            bias: ``[N]`` or None.
        """
        float_class = type(linear)
        linear.__class__ = cls
        layer = cast(TLEInt8Linear, linear)
        if float_class is not nn.Linear:
            layer._float_class = float_class
        layer.out_features, layer.in_features = weight.shape
        layer._set_state(weight, scale, bias)
        return layer

    def revert(self, weight: Tensor, bias: Tensor | None) -> nn.Linear:
        """Turn this layer itself back into a trainable module of the class that it was; undoes `become`.

        Args:
            weight: ``[N, K]``, floating point.
            bias: ``[N]`` or None.
        """
        linear, float_weight = cast(nn.Linear, self), self.rows(weight.detach()).contiguous()
        del self.weight_scale
        linear.__class__ = self._float_class  # type: ignore[assignment]
        for key in ("_packed_times", "_is_ready", "_reader", "_float_class"):
            linear.__dict__.pop(key, None)
        linear.weight = nn.Parameter(float_weight)
        linear.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach()))
        return linear

    def to_linear(self, dtype: torch.dtype | None = None) -> nn.Linear:
        """A new ``nn.Linear``: dequantized weight and bias, both in ``dtype`` (default: that of the bias, or fp32).

        Raises:
            InputTypeError: ``dtype`` is not floating point.
        """
        if dtype is None:
            dtype = torch.float32 if self.bias is None else self.bias.dtype
        weight = self.dequantize(dtype)
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, dtype=dtype)
        linear.weight = nn.Parameter(weight)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().to(dtype))
        return linear.train(self.training)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The float weight ``[N, K]``: ``weight * weight_scale`` in fp32, rounded once to ``dtype``.

        Raises:
            InputTypeError: ``dtype`` is not floating point.
        """
        if not dtype.is_floating_point:
            raise InputTypeError(f"dequantize to {dtype}: a floating-point dtype is needed, such as torch.bfloat16.")
        weight = self._weight().detach()
        if is_packed(weight):
            weight = unpack(weight, self.out_features, self.in_features)
        return arithmetic.dequantize_weight(weight, self.weight_scale.detach(), dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., K]`` in fp32, fp16 or bf16 -> ``[..., N]`` in the same dtype; see `ops.linear`."""
        parameters: dict[str, Any] = self._parameters
        bias = parameters["bias"]
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            reader = None if self._forward_pre_hooks or self._forward_hooks else self._reader
            return ops.traced_linear(
                x, parameters["weight"], parameters["weight_scale"], bias, self.in_features, reader
            )
        # Another reference: a thread that turns the weight back must not take its memory from under the kernel.
        weight = self._weight().detach()
        if not (self._is_ready and is_packed(weight)):
            weight = self._packed_now(weight)
        if is_packed(weight) and ops.is_plain_call(x, bias) and x.shape[-1] == self.in_features:
            reader = self._reader
            if reader is not None and (x.numel() <= ops.LITTLE or not called_in(reader.of)):
                reader = None
            return ops.called_linear(x, weight, parameters["weight_scale"], bias, self.in_features, reader)
        return ops.linear(x, weight, self.weight_scale, bias, self.in_features)

    def _packed_now(self, weight: Tensor) -> Tensor:
        """The weight for a call, packed if kernels can run; warns where something unpacks it between calls."""
        panels = pack_parameter(self._weight(), self.out_features, self.in_features)
        if panels is None:
            return weight
        self._is_ready = True
        if not is_packed(weight):
            self._packed_times += 1
            if self._packed_times == _MANY_TIMES:
                warnings.warn(_OFTEN_UNPACKED.format(self), RuntimeWarning, stacklevel=4)
        return panels

    def requires_grad_(self, requires_grad: bool = True) -> "TLEInt8Linear":
        """Raise `UnsupportedTrainingError` when asked to train: the codes have no gradient."""
        if requires_grad:
            raise UnsupportedTrainingError(NOT_TRAINABLE.format(type(self).__name__))
        return super().requires_grad_(False)

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"{super().extra_repr()}, weights=int8 per channel, activations=int8 per token"

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: panels may meet another machine, whose packing is another."""
        return {key: value for key, value in self.__dict__.items() if key != "_is_ready"}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = self._weight()
        if weight.dtype == torch.int8:
            # Not what was saved a moment ago: another thread's call may have packed it between.
            row_major = unpack_parameter(weight, self.out_features, self.in_features)
            if not keep_vars:
                destination[f"{prefix}weight"] = row_major

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TLEInt8Linear":
        codes_and_scale = (self._weight(), self.weight_scale)

        def keep_dtype(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            if not any(tensor is own for own in codes_and_scale):
                return applied
            # Kernels read them as they are: `.to(memory_format=torch.channels_last)` strides all that has 4 dimensions.
            return (applied if applied.dtype == tensor.dtype else tensor.to(applied.device)).contiguous()

        super()._apply(keep_dtype, recurse)
        if self._weight().device.type != "cpu":
            _ = self.weight
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Refuse what ``copy_`` would silently cast to int8 codes, and accept every shape of scale."""
        _ = self.weight
        try:
            if (weight := state_dict.get(f"{prefix}weight")) is not None:
                check_int8_weight(weight, f"{prefix}weight")
            if (scale := state_dict.get(f"{prefix}weight_scale")) is not None:
                state_dict[f"{prefix}weight_scale"] = normalize_scale(scale, self.out_features, f"{prefix}weight_scale")
        except TLEInt8Error as error:
            error_msgs.append(str(error))
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
