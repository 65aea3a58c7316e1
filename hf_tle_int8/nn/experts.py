"""TLEInt8Experts: the fused experts of a layer of a mixture, in INT8."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_tle_int8 import arithmetic
from hf_tle_int8.errors import InputValueError, TLEInt8Error, UnsupportedTrainingError
from hf_tle_int8.nn.expert_codes import Codes
from hf_tle_int8.nn.expert_layout import projection_names, row_major
from hf_tle_int8.nn.expert_ops import expert_linear
from hf_tle_int8.nn.linear import NOT_TRAINABLE, check_int8_weight, check_is_tensor, normalize_scale
from hf_tle_int8.nn.packed import pack_parameter, unpack_parameter
from hf_tle_int8.packing import is_packed, unpack


class TLEInt8Experts(nn.Module):
    """The experts of a layer with int8 weights, one scale per expert and output channel.

    ``w ≈ weight * scale`` for ``gate_up_proj`` (``up_proj`` where the class has no gate) and ``down_proj``, both int8
    ``[E, N, K]``, each with ``<name>_scale`` fp32 ``[E, N, 1]`` and, where the class has biases, ``<name>_bias``
    ``[E, N]``. Classes that keep ``[E, K, N]`` in float are turned to that as well. Activations are quantized per token
    before each of the two products; the gate is that of the class it was made of. Only the experts that are routed to
    are touched. ``config._experts_implementation`` has no effect.

    All parameters are frozen; gradients flow to the input and to the routing weights. As in `TLEInt8Linear`, weights
    are held once, as panels after `pack_` or a first call, and ``state_dict()`` and attributes show them row-major.

    Made by `become` only.

    Attributes:
        source_cls: the class that it was made of.
        projections: the name of each weight -> ``(E, N, K)``.
    """

    # transformers must not run its weight initialization on int8 codes.
    _is_hf_initialized = True

    gate_up_proj = Codes()
    up_proj = Codes()
    down_proj = Codes()

    source_cls: Any
    projections: dict[str, tuple[int, int, int]]
    # Of the class that it was made of.
    has_gate: bool
    has_post_expert_norm: bool
    is_transposed: bool
    act_fn: Any
    post_expert_norm: Any

    @classmethod
    def become(cls, experts: nn.Module, weights: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> "TLEInt8Experts":
        """Turn ``experts`` itself into INT8 experts, so that every reference to it and its hooks stay valid.

        Args:
            experts: of a class that `expert_layout.obstacle` has nothing against; its float weights are dropped.
            weights: the name of each projection -> int8 ``[E, N, K]`` and fp32 ``[E, N, 1]``. Without it, float
                placeholders on the meta device that a loader will replace.
        """
        names = projection_names(experts)
        floats = {name: row_major(experts, cast(Tensor, experts._parameters[name])) for name in names}
        experts.source_cls = type(experts)  # type: ignore[assignment]
        experts.projections = {name: tuple(weight.shape) for name, weight in floats.items()}  # type: ignore[assignment]
        experts.__class__ = cls
        layer = cast(TLEInt8Experts, experts)
        for name, weight in floats.items():
            scale = torch.empty((*weight.shape[:2], 1), dtype=torch.float32, device="meta")
            placeholder = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
            layer._set(name, *((placeholder, scale) if weights is None else weights[name]))
        return layer.requires_grad_(False)

    def _set(self, name: str, weight: Tensor, scale: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(weight.detach(), requires_grad=False))
        self.register_parameter(f"{name}_scale", nn.Parameter(scale.detach(), requires_grad=False))

    def close(self) -> None:
        """After loading: placeholders of what was offloaded are int8, since the codes on the disk are."""
        for name in self.projections:
            if (weight := self._weight(name)).is_meta:
                self.register_parameter(name, nn.Parameter(weight.to(torch.int8), requires_grad=False))

    def revert(self, dtype: torch.dtype) -> nn.Module:
        """Turn this layer itself back into trainable float experts of its first class; undoes `become`.

        Each weight is dequantized in fp32, expert by expert, and rounded once to ``dtype``.
        """
        for name in self.projections:
            weight = row_major(self, self.dequantize(name, dtype)).contiguous()
            delattr(self, f"{name}_scale")
            self.register_parameter(name, nn.Parameter(weight))
        experts = cast(nn.Module, self)
        experts.__class__ = self.source_cls
        del experts.source_cls, experts.projections
        return experts.requires_grad_(True)

    def dequantize(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """``[E, N, K]``: the weight called ``name`` times its scale, in fp32 and rounded once to ``dtype``."""
        shape, codes = self.projections[name], self._weight(name).detach()
        scale = cast(Tensor, self._parameters[f"{name}_scale"]).detach()
        weight = torch.empty(shape, dtype=dtype)
        for expert, own in enumerate(codes):
            q = unpack(own, *shape[1:]) if is_packed(own) else own
            weight[expert] = arithmetic.dequantize_weight(q, scale[expert], dtype)
        return weight

    def _weight(self, name: str) -> nn.Parameter:
        """The weight as it is."""
        return cast(nn.Parameter, self._parameters[name])

    def _quantized(self) -> Iterator[tuple[str, nn.Parameter, tuple[int, int, int]]]:
        """The weights that are int8: while a loader is at work, some may be placeholders."""
        for name, shape in self.projections.items():
            if (weight := self._weight(name)).dtype == torch.int8:
                yield name, weight, shape

    def pack_(self) -> "TLEInt8Experts":
        """Turn the weights into panels for the kernels now rather than in the next call; nothing where none can run."""
        for _, weight, shape in self._quantized():
            pack_parameter(weight, *shape)
        return self

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The weighted sum of the experts that each token is routed to.

        Args:
            hidden_states: ``[T, H]``, fp32, fp16 or bf16.
            top_k_index: int64 ``[T, k]``, the experts of each token; E stands for none.
            top_k_weights: ``[T, k]``, floating point.

        Returns:
            ``[T, H]`` in the dtype of ``hidden_states``, summed in fp32 in the order of ``top_k_index``: a token gives
            the same bits alone and in any batch, as far as torch computes the gate so.

        Raises:
            InputTypeError, InputValueError, UnsupportedPlacementError: see `expert_ops.expert_linear`.
        """
        tokens, top_k = top_k_index.shape
        experts = top_k_index.reshape(-1)
        if tokens == 1:
            y = self._mlp(hidden_states.expand(top_k, -1), experts)
        else:
            experts, order = experts.sort(stable=True)
            y = self._mlp(hidden_states[order // top_k], experts)[order.argsort()]
        terms = y.reshape(tokens, top_k, y.shape[-1]).float() * top_k_weights.unsqueeze(-1).float()
        # torch.sum may add in another order for another number of tokens.
        return functools.reduce(torch.add, terms.unbind(1)).to(hidden_states.dtype)

    def _mlp(self, rows: Tensor, experts: Tensor) -> Tensor:
        """Rows ``[S, H]``, each through its expert -> ``[S, H]``."""
        first, last = self.projections
        y = self._linear(first, rows, experts)
        y = self._linear(last, self.source_cls._apply_gate(self, y) if self.has_gate else self.act_fn(y), experts)
        return self.post_expert_norm(y) if self.has_post_expert_norm else y

    def _linear(self, name: str, rows: Tensor, experts: Tensor) -> Tensor:
        parameters, shape = self._parameters, self.projections[name]
        weight = cast(Tensor, parameters[name])
        if not torch.compiler.is_compiling() and torch._C._get_tracing_state() is None:
            # Another reference: a thread that turns the weight back must not take its memory from under the kernel.
            panels = pack_parameter(cast(nn.Parameter, weight), *shape)
            weight = weight.detach() if panels is None else panels
        scale = cast(Tensor, parameters[f"{name}_scale"])
        return expert_linear(rows, experts, weight, scale, parameters.get(f"{name}_bias"), shape[2])

    def requires_grad_(self, requires_grad: bool = True) -> "TLEInt8Experts":
        """Raise `UnsupportedTrainingError` when asked to train: the codes have no gradient."""
        if requires_grad:
            raise UnsupportedTrainingError(NOT_TRAINABLE.format(type(self).__name__))
        return super().requires_grad_(False)

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        shapes = ", ".join(f"{name}={list(shape)}" for name, shape in self.projections.items())
        return f"{self.source_cls.__name__}, {shapes}, weights=int8 per channel, activations=int8 per token"

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, weight, shape in self._quantized():
            # Not what was saved a moment ago: another thread's call may have packed it between.
            codes = unpack_parameter(weight, *shape[1:])
            if not keep_vars:
                destination[prefix + name] = codes

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TLEInt8Experts":
        kept = [self._parameters[key] for name in self.projections for key in (name, f"{name}_scale")]

        def keep_dtype(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            if not any(tensor is own for own in kept):
                return applied
            # Kernels read them as they are, whatever memory format was asked for.
            return (applied if applied.dtype == tensor.dtype else tensor.to(applied.device)).contiguous()

        super()._apply(keep_dtype, recurse)
        for _, weight, shape in self._quantized():
            if weight.device.type != "cpu":
                unpack_parameter(weight, *shape[1:])
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Refuse what ``copy_`` would silently cast to int8 codes, and scales that are none."""
        for _, weight, shape in self._quantized():
            unpack_parameter(weight, *shape[1:])
        try:
            for name, (count, n, k) in self.projections.items():
                key, scale_key = f"{prefix}{name}", f"{prefix}{name}_scale"
                _check_stacked(state_dict, key, (count, n, k))
                _check_stacked(state_dict, scale_key, (count, n, 1))
                for expert, codes in enumerate(state_dict.get(key, ())):
                    check_int8_weight(codes, f"{key}[{expert}]")
                if (scale := state_dict.get(scale_key)) is not None:
                    each = [normalize_scale(own, n, f"{scale_key}[{e}]") for e, own in enumerate(scale)]
                    state_dict[scale_key] = torch.stack(each)
        except TLEInt8Error as error:
            error_msgs.append(str(error))
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _check_stacked(state_dict: Mapping[str, Any], key: str, shape: tuple[int, int, int]) -> None:
    """Raise where the tensor called ``key``, if there is one, cannot be looked at expert by expert."""
    if (value := state_dict.get(key)) is not None:
        check_is_tensor(value, key)
        if value.ndim == 0:
            raise InputValueError(
                f"{key} has shape (), one number: {list(shape)} is needed, for each expert its own. "
                f"Load the state dict of this model."
            )
