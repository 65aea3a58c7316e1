"""The torch operator of mixtures of experts: INT8 linears, one for each run of rows that go to one expert.

``tle_int8::expert_linear`` is opaque to ``torch.compile``, so that routing may depend on data, and differentiable in
``x`` and ``bias``.
"""

import functools
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from hf_tle_int8 import arithmetic, execution, ops
from hf_tle_int8.errors import InputValueError
from hf_tle_int8.packing import is_packed, unpack, unpack_channels

_LIBRARY = torch.library.Library("tle_int8", "FRAGMENT")
_WEIGHT = "Tensor experts, Tensor weight, Tensor weight_scale"
_LIBRARY.define(f"expert_linear(Tensor x, {_WEIGHT}, Tensor? bias, int in_features) -> Tensor")
_LIBRARY.define(f"expert_linear_grad_input(Tensor grad, {_WEIGHT}, int in_features) -> Tensor")


def expert_linear(
    x: Tensor, experts: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int
) -> Tensor:
    """INT8 linear of each row by the weight of its expert: ``y[s] = x[s] @ w[experts[s]].T + bias[experts[s]]``.

    Neighbouring rows of one expert are multiplied together, so rows should be sorted by expert; experts without a row
    are not touched. A row gives the same bits in any company.

    Args:
        x: ``[S, K]``, fp32, fp16 or bf16, quantized per row.
        experts: int64 ``[S]``, each in ``0..E``. As in transformers, E stands for no expert: its rows become zeros.
        weight: int8 ``[E, N, K]``, which the plain-torch reference multiplies, or panels (see `packing.Packing`),
            which the kernels do.
        weight_scale: fp32 ``[E, N, 1]``, ``w ≈ weight * weight_scale``.
        bias: ``[E, N]``, floating point, or None.
        in_features: K.

    Returns:
        ``[S, N]`` in the dtype of ``x``. A row of ``x`` with NaN or Inf gives a row of NaN.

    Raises:
        InputTypeError: ``x`` is not fp32, fp16 or bf16.
        InputValueError: ``x`` is not ``[S, K]``, or ``experts`` not ``[S]`` or out of range.
        UnsupportedPlacementError: a tensor is not in the memory of the CPU.
        NotImplementedError: ``x`` has a forward-mode tangent.
    """
    ops.refuse_tangent(x)
    _check(x, experts, weight, weight_scale, bias, in_features)
    return torch.ops.tle_int8.expert_linear(x, experts, weight, weight_scale, bias, in_features)


def _check(
    x: Tensor, experts: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int
) -> None:
    ops.check_input(x, weight, weight_scale, bias, in_features)
    if x.ndim != 2 or experts.shape != x.shape[:1]:
        raise InputValueError(
            f"the input has shape {tuple(x.shape)} and the experts {tuple(experts.shape)}: [S, {in_features}] and [S] "
            f"are needed, an expert for each row."
        )


def _runs(experts: Tensor, count: int) -> tuple[list[int], list[int]]:
    """The expert of each run of rows of one expert, and how many rows it has."""
    values, lengths = torch.unique_consecutive(experts, return_counts=True)
    found: list[int] = values.tolist()
    if found and not 0 <= min(found) <= max(found) <= count:
        raise InputValueError(
            f"a row is routed to expert {min(found) if min(found) < 0 else max(found)}: there are {count}, numbered "
            f"from 0, and {count} stands for none. Check the router."
        )
    return found, lengths.tolist()


def _expert_linear_cpu(
    x: Tensor, experts: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int
) -> Tensor:
    # Traced code gets here without `expert_linear`.
    _check(x, experts, weight, weight_scale, bias, in_features)
    count, n = weight_scale.shape[:2]
    run_experts, lengths = _runs(experts, count)
    on_kernels = _on_kernels(weight, n, in_features)
    parts = []
    for expert, rows in zip(run_experts, x.split(lengths), strict=True):
        if expert == count:
            parts.append(x.new_zeros((rows.shape[0], n)))
            continue
        scale, own_bias = weight_scale[expert], None if bias is None else bias[expert]
        if on_kernels:
            parts.append(execution.packed_linear(rows, weight[expert], scale, own_bias))
        else:
            codes = unpack(weight[expert], n, in_features) if is_packed(weight[expert]) else weight[expert]
            parts.append(arithmetic.int8_linear(rows, codes, scale, own_bias))
    return torch.cat(parts) if parts else x.new_empty((0, n))


def _on_kernels(weight: Tensor, n: int, k: int) -> bool:
    if execution.unavailable() is not None:
        return False
    if weight.dim() == 3:
        _warn_of_row_major_weights()
        return False
    return execution.layout().packing.fits(weight, weight.shape[0], n, k)


@functools.cache
def _warn_of_row_major_weights() -> None:
    warnings.warn(
        "INT8 experts with row-major weights run on the plain-torch reference, which is slow. They are packed for the "
        "kernels when they are loaded or called, but not inside of torch.compile: after state_dict() or another look "
        "at their weights, call the model once outside of it.",
        RuntimeWarning,
        stacklevel=4,
    )


def _expert_linear_fake(
    x: Tensor, experts: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, in_features: int
) -> Tensor:
    return x.new_empty((x.shape[0], weight_scale.shape[1]))


def _grad_input_cpu(grad: Tensor, experts: Tensor, weight: Tensor, weight_scale: Tensor, in_features: int) -> Tensor:
    count = weight_scale.shape[0]
    run_experts, lengths = _runs(experts, count)
    parts = list(_grad_parts(grad.split(lengths), run_experts, weight, weight_scale, in_features))
    return torch.cat(parts) if parts else grad.new_empty((0, in_features))


def _grad_parts(
    grads: tuple[Tensor, ...], experts: list[int], weight: Tensor, weight_scale: Tensor, k: int
) -> Iterator[Tensor]:
    for rows, expert in zip(grads, experts, strict=True):
        if expert == weight_scale.shape[0]:
            yield rows.new_zeros((rows.shape[0], k))
            continue
        own = weight[expert]

        def channels(start: int, stop: int, own: Tensor = own) -> Tensor:
            return unpack_channels(own, start, stop, k) if is_packed(own) else own[start:stop]

        yield arithmetic.int8_linear_grad_input(rows, channels, weight_scale[expert], k)


def _grad_input_fake(grad: Tensor, experts: Tensor, weight: Tensor, weight_scale: Tensor, in_features: int) -> Tensor:
    return grad.new_empty((grad.shape[0], in_features))


def _save_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, experts, weight, weight_scale, bias, in_features = inputs
    ctx.save_for_backward(experts, weight, weight_scale)
    ctx.in_features = in_features
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    experts, weight, weight_scale = ctx.saved_tensors
    needs_x, *_, needs_bias, _ = ctx.needs_input_grad
    grad_x = grad_bias = None
    if needs_x:
        grad_x = torch.ops.tle_int8.expert_linear_grad_input(grad, experts, weight, weight_scale, ctx.in_features)
    if needs_bias:
        count, n = weight_scale.shape[:2]
        # The last row is that of no expert.
        sums = grad.new_zeros((count + 1, n), dtype=torch.float32).index_add(0, experts, grad.float())
        grad_bias = sums[:count].to(ctx.bias_dtype)
    return grad_x, None, None, None, grad_bias, None


_LIBRARY.impl("expert_linear", _expert_linear_cpu, "CPU")
_LIBRARY.impl("expert_linear_grad_input", _grad_input_cpu, "CPU")
torch.library.register_fake("tle_int8::expert_linear", _expert_linear_fake, lib=_LIBRARY)
torch.library.register_fake("tle_int8::expert_linear_grad_input", _grad_input_fake, lib=_LIBRARY)
torch.library.register_autograd("tle_int8::expert_linear", _backward, setup_context=_save_for_backward, lib=_LIBRARY)
