"""What happens to a model of transformers between its skeleton on the meta device and the loaded INT8 model."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import ConversionOps

from hf_tle_int8.adapted import expect_conv1d, inside_adapters
from hf_tle_int8.arithmetic import quantize_weight
from hf_tle_int8.checks import was_loaded
from hf_tle_int8.errors import TLEInt8Error
from hf_tle_int8.matching import ModuleMatcher
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.conv1d import become_int8, bias_of, float_rows, is_linear
from hf_tle_int8.nn.expert_codes import quantize_experts
from hf_tle_int8.nn.expert_layout import row_major
from hf_tle_int8.nn.linear import check_placement
from hf_tle_int8.selection import modules_by_identity


class LoadingState(Protocol):
    """What the operation below needs of the quantizer."""

    expected_shapes: dict[str, torch.Size]
    mismatched: set[str]
    errors: list[str]

    def param_needs_quantization(self, model: nn.Module, param_name: str) -> bool:
        """Whether the tensor is a float weight to quantize."""
        ...


class QuantizeWeight(ConversionOps):
    """Turns each float weight, as it arrives, into int8 codes and their fp32 scale."""

    def __init__(self, state: LoadingState):
        self.state = state

    @torch.no_grad()
    def convert(self, input_dict: dict[str, Any], model: Any = None, **kwargs: Any) -> dict[str, Tensor]:
        """``{name: float [N, K]}`` -> ``{name: int8 [N, K], name + "_scale": fp32 [N, 1]}``; from `Conv1D`, ``[K, N]``.

        Experts that one tensor holds, ``[E, N, K]`` or ``[E, K, N]`` as their class has them, become ``[E, N, K]``.

        transformers would turn an exception raised here into a line of its log; errors are collected instead, and
        `check_loaded` raises them.
        """
        converted: dict[str, Tensor] = {}
        for name in list(input_dict):
            value = input_dict.pop(name)
            tensor = value[0] if isinstance(value, list) else value
            converted[name] = tensor
            if not self.state.param_needs_quantization(model, name):
                continue
            layer = model.get_submodule(name.rpartition(".")[0])
            experts = isinstance(layer, TLEInt8Experts)
            rows = row_major(layer, tensor) if experts else layer.rows(tensor)
            if rows.shape != self.state.expected_shapes[name]:
                # transformers reports it, or initializes the layer anew under ignore_mismatched_sizes.
                self.state.mismatched.add(name)
                continue
            try:
                quantize = quantize_experts if experts else quantize_weight
                converted[name], converted[f"{name}_scale"] = quantize(rows, name)
            except TLEInt8Error as error:
                self.state.errors.append(str(error))
        return converted


def make_skeleton(layer: nn.Module) -> None:
    """Turn a linear or experts, on the meta device, into an INT8 layer that waits for its tensors.

    The weight ``[N, K]`` keeps its float dtype until int8 codes replace it. Up to transformers 5.22, a tensor of the
    checkpoint is cast to the dtype found here before it can be quantized; and what turns out to be new to the
    checkpoint is initialized by the model's own code, as it would be in float, and goes back to its float class
    (`settle`). Experts are never new: they belong to the body of a model.
    """
    if is_linear(layer):
        weight = float_rows(layer)
        scale = torch.empty((weight.shape[0], 1), dtype=torch.float32, device="meta")
        become_int8(layer, weight, scale, bias_of(layer))._is_hf_initialized = False
    else:
        TLEInt8Experts.become(layer)


def settle(model: PreTrainedModel, is_new: Callable[[str], bool]) -> list[str]:
    """Make the layers of which the checkpoint has nothing float linears again, and close the others.

    Args:
        model: after loading.
        is_new: whether a layer of which the checkpoint has nothing is new to it. If not, `check_loaded` reports it.

    Returns:
        The names of the layers that are new: heads of another task, already initialized by the model's own code.
    """
    new = []
    for names, layer in modules_by_identity(model):
        if isinstance(layer, TLEInt8Experts):
            layer.close()
        if not isinstance(layer, TLEInt8Linear):
            continue
        del layer._is_hf_initialized
        if layer.weight.is_meta:
            # Offloaded: the codes are on the disk.
            layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
        if not any(map(was_loaded, layer.parameters())) and is_new(names[0]):
            layer.revert(layer.weight, layer.bias)
            new += names
    return new


def tie_scales(model: PreTrainedModel) -> None:
    """Tell transformers that INT8 layers which are to share a weight share its scale as well."""
    ties = model.all_tied_weights_keys
    weights = {
        f"{name}.weight"
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, TLEInt8Linear)
    }
    ties.update({f"{t}_scale": f"{source}_scale" for t, source in ties.items() if {t, source} <= weights})


def sub_configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """The configurations inside of the configuration of a composite model, such as text and vision, at any depth."""
    for key in config.sub_configs:
        inner = getattr(config, key, None)
        if isinstance(inner, PreTrainedConfig):
            yield inner
            yield from sub_configs(inner)


def dequantize(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Turn each INT8 layer of ``model`` back into what it was and cast its floating parameters to ``dtype``.

    Buffers keep their dtype, as do parameters of adapters, and those that the model's class keeps in fp32.

    Raises:
        UnsupportedPlacementError: weights are offloaded to the disk; nothing is changed.
        AdapterError: see `adapters.expect_conv1d`; nothing is changed.
    """
    layers = [module for module in model.modules() if isinstance(module, TLEInt8Linear)]
    every_experts = [module for module in model.modules() if isinstance(module, TLEInt8Experts)]
    for module in [*layers, *every_experts]:
        for key, tensor in module.named_parameters(recurse=False):
            check_placement(tensor, f"the {key} of an INT8 layer to dequantize", allowed=("cpu",))
    expect_conv1d(model)
    by_weight: dict[int, list[TLEInt8Linear]] = {}
    for layer in layers:
        by_weight.setdefault(id(layer._weight()), []).append(layer)
    for first, *twins in by_weight.values():
        weight = first.dequantize(dtype)
        linear = first.revert(weight, first.bias)
        for twin in twins:
            twin.revert(weight, twin.bias).weight = linear.weight
    ties = model.all_tied_weights_keys
    for scale in [name for name in ties if name.endswith(".weight_scale") and name.removesuffix("_scale") in ties]:
        del ties[scale]
    for experts in every_experts:
        experts.revert(dtype)
    in_fp32, of_adapters = ModuleMatcher(model._get_dtype_plan(dtype)), inside_adapters(model)
    for name, parameter in model.named_parameters():
        kept = in_fp32.matches([name]) or name.rpartition(".")[0] in of_adapters
        if parameter.is_floating_point() and not kept:
            parameter.data = parameter.data.to(dtype)
