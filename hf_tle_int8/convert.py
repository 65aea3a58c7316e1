"""In-memory conversion of any nn.Module.

The linears are converted in place, one after another: each float weight is freed before the next layer is quantized,
and every reference to a layer (a second registration, a hook, an alias that the caller holds) stays valid.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from hf_tle_int8 import arithmetic
from hf_tle_int8.adapted import inside_adapters, read_by_adapters
from hf_tle_int8.adoption import adopt, check_adoptable
from hf_tle_int8.errors import CheckpointError, ConfigError, InputTypeError, TLEInt8Error
from hf_tle_int8.matching import ModuleMatcher, warn_unmatched
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.conv1d import become_int8, bias_of, float_rows
from hf_tle_int8.nn.expert_codes import quantize_experts
from hf_tle_int8.nn.expert_layout import projection_names, row_major
from hf_tle_int8.nn.linear import (
    check_bias,
    check_int8_weight,
    check_placement,
    check_same_device,
    normalize_scale,
)
from hf_tle_int8.selection import Rules, Selection, select_linears
from hf_tle_int8.shared_inputs import share_inputs

logger = logging.getLogger(__name__)

# int8 weight [N, K], fp32 scale [N, 1], bias [N]
_State = tuple[Tensor, Tensor, Tensor | None]


def quantize_and_replace_linears(
    model: nn.Module,
    skip: Iterable[str] | None = None,
    require_divisible_by: int = 1,
    skip_with_bias: bool = False,
) -> int:
    """Quantize the linears of ``model``, and the fused experts of transformers, in place.

    Every weight is checked before the first one is converted, so an error leaves the model as it was. A model of
    transformers is better loaded with ``quantization_config=TLEInt8Config()``, which never holds the float weights; but
    one that is converted here saves and loads as INT8 too. Only ``skip`` decides here: an output head is converted
    unless its weight is tied to an embedding. Adapters of PEFT in ``model`` stay in float, on layers in INT8.

    Args:
        model: any module; may be an ``nn.Linear`` itself.
        skip: names or ``re:`` patterns of modules to leave as they are (see `matching`).
        require_divisible_by: leave linears whose in_features or out_features is no multiple of this.
        skip_with_bias: leave linears that have a bias.

    Returns:
        How many linears, and layers of experts, were replaced; a module that is registered twice counts once.

    Raises:
        ConfigError: a malformed option, or a model of transformers that is quantized by another method.
        InputTypeError, InputValueError: no module, or a weight that cannot be quantized, named.
        UnsupportedPlacementError: a weight that is not in the memory of the CPU, named.
    """
    check_adoptable(model)
    selection = _select(model, skip, require_divisible_by, skip_with_bias)
    for name, linear in selection.convert.items():
        rows = float_rows(linear)
        check_placement(rows, f"{name}.weight", allowed=("cpu",))
        arithmetic.check_weight(rows, f"{name}.weight")
    for name, experts in selection.experts.items():
        _check_experts(experts, name)
    for twins in _by_weight(selection):
        first, *others = twins.values()
        codes, scale = arithmetic.quantize_weight(float_rows(first))
        layer = become_int8(first, codes, scale, bias_of(first))
        for other in others:
            _share(layer, become_int8(other, codes, scale, bias_of(other)))
        del codes
        layer.pack_()
    for experts in selection.experts.values():
        weights = {key: row_major(experts, experts.get_parameter(key)) for key in projection_names(experts)}
        TLEInt8Experts.become(experts, {key: quantize_experts(w, key) for key, w in weights.items()}).pack_()
    converted = len(selection.convert) + len(selection.experts)
    if converted:
        adopt(model)
        share_inputs(model)
    summary = selection.summary(len(selection.convert), len(selection.experts))
    logger.log(logging.INFO if converted else logging.WARNING, summary)
    return converted


def _check_experts(experts: nn.Module, name: str) -> None:
    for key in projection_names(experts):
        weight = experts.get_parameter(key)
        check_placement(weight, f"{name}.{key}", allowed=("cpu",))
        for expert, own in enumerate(row_major(experts, weight)):
            arithmetic.check_weight(own, f"{name}.{key}[{expert}]")


def replace_linears_with_tle_int8(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    skip: Iterable[str] | None = None,
    require_divisible_by: int = 1,
) -> int:
    """Replace the linears whose INT8 weights are in a pre-quantized state dict, in place.

    A linear called ``name`` takes ``name.weight`` (int8 ``[N, K]``, of a ``Conv1D`` too), ``name.weight_scale``
    (``[N]``, ``[N, 1]`` or a scalar) and, where the linear has one, ``name.bias``; the tensors are used as they are,
    not copied. Fused experts stay, as do linears that the state dict has no int8 weight for, unless they share the
    weight of one that has: load the rest with ``model.load_state_dict(rest, strict=False)``. Every tensor is checked
    before the first linear is replaced, so an error leaves the model as it was.

    Args:
        model: any module, also one on the meta device.
        state_dict: the pre-quantized tensors.
        skip: names or ``re:`` patterns of modules to leave as they are (see `matching`).
        require_divisible_by: leave linears whose in_features or out_features is no multiple of this.

    Returns:
        How many linears were replaced.

    Raises:
        ConfigError: a malformed ``skip`` or ``require_divisible_by``, or a model that is INT8 already.
        CheckpointError: a tensor that is missing, misshapen, mistyped or out of range, named.
        InputTypeError: no module, or a state dict that is no mapping.
    """
    check_adoptable(model)
    if not isinstance(state_dict, Mapping):
        raise InputTypeError(f"state_dict is a {type(state_dict).__name__}: a mapping of names to tensors is needed.")
    selection = _select(model, skip, require_divisible_by, of_state_dict=True)
    states: dict[str, _State] = {}
    for twins in _by_weight(selection):
        states |= _read_states(twins, selection, state_dict)
    for name in [name for name in selection.convert if name not in states]:
        selection.keep(name, "without an int8 weight in the state dict")
    if not states and (found := [name for name in selection.int8 if f"{name}.weight_scale" in state_dict]):
        raise ConfigError(
            f"{found[0]} is INT8 already, as are all linears that the state dict has int8 weights for: nothing is left "
            f"to replace. Load other INT8 weights into these layers with model.load_state_dict."
        )
    _warn_unused(state_dict, [alias for name in states for alias in selection.aliases[name]])
    layers: dict[int, TLEInt8Linear] = {}
    for name, (weight, scale, bias) in states.items():
        layer = become_int8(selection.convert[name], weight, scale, bias)
        if (twin := layers.setdefault(id(weight), layer)) is not layer:
            _share(twin, layer)
        layer.pack_()
    if states:
        adopt(model)
        share_inputs(model)
    logger.log(logging.INFO if states else logging.WARNING, selection.summary(len(states)))
    return len(states)


def _warn_unused(state_dict: Mapping[str, Tensor], used: list[str]) -> None:
    """Log a warning that names INT8 weights of the state dict that no linear takes."""
    int8 = {key for key, tensor in state_dict.items() if isinstance(tensor, Tensor) and tensor.dtype == torch.int8}
    unused = sorted(
        key for key in int8 if key.endswith("weight") and key.removesuffix("weight").rstrip(".") not in used
    )
    if unused:
        logger.warning(
            "%d INT8 weights of the state dict belong to no linear that is converted, and stay unused: %s. Names must "
            "be those of model.named_modules(); skipped and unaligned linears do not count.",
            len(unused),
            ", ".join(unused[:4]) + (", …" if len(unused) > 4 else ""),
        )


def _select(
    model: nn.Module,
    skip: Iterable[str] | None,
    require_divisible_by: int,
    skip_with_bias: bool = False,
    of_state_dict: bool = False,
) -> Selection:
    if type(require_divisible_by) is not int or require_divisible_by < 1:
        raise ConfigError(f"require_divisible_by={require_divisible_by!r}: a whole number of 1 or more is needed.")
    if not isinstance(skip_with_bias, bool):
        raise ConfigError(f"skip_with_bias={skip_with_bias!r}: True or False is needed.")
    matcher = ModuleMatcher([] if skip is None else skip)
    rules = Rules(
        matcher,
        require_divisible_by=require_divisible_by,
        skip_with_bias=skip_with_bias,
        keep_tied=not of_state_dict,
        keep_experts="with fused experts, which are not read from a state dict," if of_state_dict else None,
    )
    selection = select_linears(model, rules)
    _keep(selection, inside_adapters(model), "of an adapter")
    _keep(selection, read_by_adapters(model), "whose weight an adapter computes with")
    matcher.check_parts()
    warn_unmatched(matcher)
    return selection


def _keep(selection: Selection, names: set[str], reason: str) -> None:
    for chosen in (selection.convert, selection.experts):
        for name in sorted(chosen.keys() & names):
            del chosen[name]
            selection.keep(name, reason)


def _by_weight(selection: Selection) -> list[dict[str, nn.Module]]:
    """The linears to convert, grouped by the weight that they share."""
    groups: dict[int, dict[str, nn.Module]] = {}
    for name, linear in selection.convert.items():
        groups.setdefault(id(linear.weight), {})[name] = linear
    return list(groups.values())


def _share(layer: TLEInt8Linear, twin: TLEInt8Linear) -> None:
    twin.weight, twin.weight_scale = layer.weight, layer.weight_scale


def _read_states(
    twins: dict[str, nn.Module], selection: Selection, state_dict: Mapping[str, Tensor]
) -> dict[str, _State]:
    """The states of linears that share one weight, by name: what the state dict has of one holds for all."""
    found = {name: _read_state(linear, selection.aliases[name], state_dict) for name, linear in twins.items()}
    given = next((state for state in found.values() if state is not None), None)
    if given is None:
        return {}
    weight, scale, _ = given
    return {name: found[name] or (weight, scale, bias_of(linear)) for name, linear in twins.items()}


def _read_state(linear: nn.Module, names: list[str], state_dict: Mapping[str, Tensor]) -> _State | None:
    rows = float_rows(linear)
    prefixes = [f"{name}." if name else "" for name in names]
    prefix = next((p for p in prefixes if f"{p}weight" in state_dict or f"{p}weight_scale" in state_dict), None)
    if prefix is None:
        return None
    weight, scale, bias = (state_dict.get(f"{prefix}{key}") for key in ("weight", "weight_scale", "bias"))
    if isinstance(weight, Tensor) and scale is None and weight.is_floating_point():
        return None
    for key, tensor, needed in (
        ("weight", weight, True),
        ("weight_scale", scale, True),
        ("bias", bias, bias_of(linear) is not None),
    ):
        if needed != (tensor is not None):
            raise CheckpointError(
                f"the state dict {'lacks' if needed else 'has'} {prefix}{key}, but the INT8 layer {prefix[:-1]!r} of "
                f"this model {'needs' if needed else 'has no'} {key}: it is incomplete or of another model. "
                f"Provide the state dict of this model, or skip the layer by name."
            )
    try:
        check_int8_weight(cast(Tensor, weight), f"{prefix}weight")
        scale = normalize_scale(cast(Tensor, scale), rows.shape[0], f"{prefix}weight_scale")
        weight = cast(Tensor, weight)
        if bias is not None:
            check_bias(bias, rows.shape[0], f"{prefix}bias")
        check_same_device(weight, scale, bias, f"the INT8 layer {prefix[:-1]!r}")
    except TLEInt8Error as error:
        raise CheckpointError(str(error)) from error
    if weight.shape != rows.shape:
        raise CheckpointError(
            f"{prefix}weight has shape {tuple(weight.shape)} and the layer needs {tuple(rows.shape)}: "
            f"the state dict is of another model. Provide the one of this model, or skip the layer by name."
        )
    return weight.contiguous(), scale, bias
