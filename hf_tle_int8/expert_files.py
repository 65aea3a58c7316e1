"""Experts between files, which have tensors of each expert, and the model, which stacks them.

A checkpoint has ``…experts.3.gate_proj.weight`` ``[I, H]`` and ``…experts.3.up_proj.weight``; the model has one
``…experts.gate_up_proj`` ``[E, 2I, H]``. The converters of transformers read and stack all of that in float before a
quantizer sees it, and copy it once more to save it. These read, quantize and place one tensor after another, and save
views.
"""

import re
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    ConversionOps,
    MergeModulelist,
    PrefixChange,
    WeightConverter,
)

from hf_tle_int8.arithmetic import quantize_weight
from hf_tle_int8.errors import CheckpointError, TLEInt8Error
from hf_tle_int8.nn import TLEInt8Experts

_CHAINS = [[(MergeModulelist, 0)], [(MergeModulelist, 0), (Concatenate, 1)]]


def convert_by_expert(conversions: list[Any], model: nn.Module) -> list[Any]:
    """``conversions``, in which those that stack the INT8 experts of ``model`` do so expert by expert."""
    experts = {name: module for name, module in model.named_modules() if isinstance(module, TLEInt8Experts)}
    names = "\n".join(f"{name}.{projection}" for name, module in experts.items() for projection in module.projections)

    def stacks_experts(conversion: Any) -> bool:
        if isinstance(conversion, ExpertsConverter) or not is_stacking(conversion):
            return False
        return bool(re.search(f"{conversion._original_target_patterns[0]}$", names, re.MULTILINE))

    return [_by_expert(conversion) if stacks_experts(conversion) else conversion for conversion in conversions]


def is_stacking(conversion: Any) -> bool:
    """Whether ``conversion`` does nothing but stack tensors of each expert to one of all."""
    if isinstance(conversion, ExpertsConverter):
        return True
    if not isinstance(conversion, WeightConverter) or len(conversion._original_target_patterns) != 1:
        return False
    return [(type(operation), getattr(operation, "dim", None)) for operation in conversion.operations] in _CHAINS


def fused_in_files(model: PreTrainedModel) -> list[str]:
    """The INT8 experts of ``model`` that its files have in one tensor, not in one for each expert."""
    targets = [c._original_target_patterns[0] for c in conversions_of(model) if isinstance(c, ExpertsConverter)]
    names = (name for name, module in model.named_modules() if isinstance(module, TLEInt8Experts))
    return [name for name in names if not any(re.search(f"{target}$", f"{name}.down_proj") for target in targets)]


def conversions_of(model: PreTrainedModel) -> list[Any]:
    """The conversions that ``model`` saves by: those it was loaded with, or else those of its architecture.

    ``revert_weight_conversion`` of transformers chooses them so.
    """
    used = getattr(model, "_weight_conversions", None)
    if used is not None:
        return used
    return [c for c in get_model_conversion_mapping(model, add_legacy=False) if not isinstance(c, PrefixChange)]


def _by_expert(converter: WeightConverter) -> "ExpertsConverter":
    sources, targets = list(converter._original_source_patterns), list(converter._original_target_patterns)
    own = ExpertsConverter(sources, targets, operations=[StackExperts()])
    own.scope_prefix, own.base_model_prefix = converter.scope_prefix, converter.base_model_prefix
    own._was_used = converter._was_used
    return own


class StackExperts(ConversionOps):
    """Tensors of each expert to one of all."""

    def convert(
        self, input_dict: dict[str, Any], full_layer_name: str, model: nn.Module, **kwargs: Any
    ) -> dict[str, Tensor]:
        """``{pattern: [tensor of each expert]}``, each ``[N / patterns, K]`` -> ``{full_layer_name: [E, N, K]}``."""
        return {full_layer_name: _stack(input_dict, full_layer_name, model)[0]}

    @property
    def reverse_op(self) -> ConversionOps:
        """For saving."""
        return SplitExperts()


class SplitExperts(ConversionOps):
    """One tensor of all experts to views of each: nothing is copied."""

    def convert(self, input_dict: dict[str, Any], target_patterns: list[str], **kwargs: Any) -> dict[str, Tensor]:
        """``{pattern: [E, N, K]}`` -> ``{target with the number of an expert: [N / targets, K]}``."""
        (value,) = input_dict.values()
        stacked = value[0] if isinstance(value, list) else value
        rows = stacked.shape[1] // len(target_patterns)
        return {
            target.replace("*", str(expert)): own[i * rows : (i + 1) * rows]
            for expert, own in enumerate(stacked)
            for i, target in enumerate(target_patterns)
        }

    @property
    def reverse_op(self) -> ConversionOps:
        """For loading."""
        return StackExperts()


class ExpertsConverter(WeightConverter):
    """Reads, quantizes where that is asked for, and places the tensors of experts one after another."""

    __slots__ = ()

    def convert(
        self, layer_name: str, model: Any = None, config: Any = None, hf_quantizer: Any = None, loading_info: Any = None
    ) -> dict[str, Any]:
        """While loading, the stacked weight ``layer_name`` and, where it was quantized, its scale.

        Errors are collected for `checks.check_loaded`, which raises them.
        """
        if hf_quantizer is None:
            return super().convert(layer_name, model, config, hf_quantizer, loading_info)
        collected = {pattern: self.collected_tensors.pop(pattern, []) for pattern in self.source_patterns}
        try:
            stacked, scale = _stack(collected, layer_name, model, quantized=self.quantization_operation is not None)
        except TLEInt8Error as error:
            hf_quantizer.errors.append(str(error))
            return {}
        return {layer_name: stacked} if scale is None else {layer_name: stacked, f"{layer_name}_scale": scale}


def incomplete(name: str, pattern: str, found: int, count: int) -> CheckpointError:
    """The error of the experts ``name``, of which the files have ``found`` tensors ``pattern`` instead of ``count``."""
    return CheckpointError(
        f"{name} is incomplete: the checkpoint has {found} tensors {pattern}, and the model {count} experts. The "
        f"checkpoint is damaged or of another model. Download or save it again, whole."
    )


def _stack(
    collected: Mapping[str, list[Any]], name: str, model: nn.Module, quantized: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The tensors of each expert, which are given up one by one, as ``[E, N, K]``, and the scale of what was float."""
    count, n, k = model.get_parameter(name).shape
    rows = n // len(collected)
    stacked = torch.empty(0)
    scale = torch.empty((count, n, 1), dtype=torch.float32) if quantized else None
    for part, (pattern, sources) in enumerate(collected.items()):
        if len(sources) != count:
            raise incomplete(name, pattern, len(sources), count)
        place = slice(part * rows, (part + 1) * rows)
        for expert in range(count):
            tensor, sources[expert] = _materialized(sources[expert]), None
            called = f"{pattern.replace('*', str(expert))}, for {name},"
            if tensor.shape != (rows, k) and not (k == 1 and tensor.shape == (rows,)):
                raise CheckpointError(
                    f"{called} has shape {tuple(tensor.shape)}, the model needs {(rows, k)}. "
                    f"The checkpoint is of another model."
                )
            if scale is not None:
                tensor, scale[expert, place] = quantize_weight(tensor, called)
            if not stacked.numel():
                stacked = torch.empty((count, n, k), dtype=tensor.dtype)
            if tensor.dtype != stacked.dtype:
                raise CheckpointError(
                    f"{called} has dtype {tensor.dtype}, others have {stacked.dtype}. "
                    f"Save the checkpoint again from the float model."
                )
            stacked[expert, place] = tensor.reshape(rows, k)
    return stacked, scale


def _materialized(source: Any) -> Tensor:
    """A tensor that is being read by a thread, is still to be read, or is there already."""
    if isinstance(source, Future):
        source = source.result()
    return source() if callable(source) else source
