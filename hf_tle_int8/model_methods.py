"""Methods of transformers' models that would be wrong for models with INT8 layers, corrected for these alone.

They are wrapped once, when the first INT8 model comes about; a model without INT8 layers takes the original path.
"""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_tle_int8 import model_card
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear

_MARK = "_tle_int8_wrapped"


def install(describe: Callable[[PreTrainedModel], None]) -> None:
    """Wrap the methods below of ``PreTrainedModel``; again, it changes nothing.

    Args:
        describe: called before a model is saved, to make its configuration that of its INT8 layers.
    """
    methods: dict[str, Callable[..., Any]] = {
        **_METHODS,
        "save_pretrained": functools.partial(_save_pretrained, describe),
    }
    for name, method in methods.items():
        original = getattr(PreTrainedModel, name)
        if not hasattr(original, _MARK):
            setattr(PreTrainedModel, name, _wrap(original, method))
    if not hasattr(PreTrainedModel.dtype.fget, _MARK):
        PreTrainedModel.dtype = property(_dtype_without_scales(PreTrainedModel.dtype.fget))


def _wrap(original: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        if any(map(_is_int8, self.modules())):
            return method(functools.partial(original, self), self, *args, **kwargs)
        return original(self, *args, **kwargs)

    setattr(wrapper, _MARK, True)
    return wrapper


def _dtype_without_scales(
    original: Callable[[PreTrainedModel], torch.dtype],
) -> Callable[[PreTrainedModel], torch.dtype]:
    @functools.wraps(original)
    def dtype(self: PreTrainedModel) -> torch.dtype:
        for name, parameter in self.named_parameters():
            if parameter.is_floating_point():
                module, _, key = name.rpartition(".")
                if not (key.endswith("_scale") and _is_int8(self.get_submodule(module))):
                    return parameter.dtype
        return original(self)

    setattr(dtype, _MARK, True)
    return dtype


@functools.singledispatch
def surplus(module: nn.Module) -> int:
    """How many elements the own parameters of an INT8 layer have beyond those of its float original.

    Each class of INT8 layers registers a function of its own, which also makes it known to `install`.
    """
    return 0


@surplus.register
def _(module: TLEInt8Linear) -> int:
    # As it is held: `module.weight` would unpack it.
    held = dict(module.named_parameters(recurse=False))["weight"].numel()
    return held - module.out_features * module.in_features + module.weight_scale.numel()


@surplus.register
def _(module: TLEInt8Experts) -> int:
    held = dict(module.named_parameters(recurse=False))
    scales = sum(held[f"{name}_scale"].numel() for name in module.projections)
    return scales + sum(held[name].numel() - math.prod(shape) for name, shape in module.projections.items())


def _is_int8(module: nn.Module) -> bool:
    """Whether ``module`` is of a class that `surplus` knows."""
    return surplus.dispatch(type(module)) is not surplus.dispatch(object)


def _num_parameters(original: Callable[..., int], model: PreTrainedModel, *args: Any, **kwargs: Any) -> int:
    """As many as the float model has: neither the padding of packed weights counts, nor their scales."""
    total = original(*args, **kwargs)
    if kwargs.get("only_trainable", args[0] if args else False):
        return total
    # Layers that share a weight share its parameters, which count once.
    layers = {id(next(module.parameters(recurse=False), module)): module for module in model.modules()}
    return total - sum(map(surplus, layers.values()))


def _resize_token_embeddings(
    original: Callable[..., nn.Embedding],
    model: PreTrainedModel,
    new_num_tokens: int | None = None,
    pad_to_multiple_of: int | None = None,
    *args: Any,
    **kwargs: Any,
) -> nn.Embedding:
    """Refuse what an INT8 head cannot follow, before the embedding has changed."""
    head, rows = model.get_output_embeddings(), new_num_tokens
    if isinstance(head, TLEInt8Linear):
        if pad_to_multiple_of:
            rows = head.out_features if rows is None else rows
            rows = -(-rows // pad_to_multiple_of) * pad_to_multiple_of
        if rows not in (None, head.out_features):
            raise ConfigError(
                f"resize_token_embeddings to {rows} rows: the output head is INT8 with {head.out_features} rows, and "
                f"new rows need float weights. Resize the float model and save it, then load that in INT8; or load "
                f"without quantize_lm_head, which leaves the head in float."
            )
    return original(new_num_tokens, pad_to_multiple_of, *args, **kwargs)


def _save_pretrained(
    describe: Callable[[PreTrainedModel], None],
    original: Callable[..., None],
    model: PreTrainedModel,
    save_directory: str | os.PathLike[str],
    *args: Any,
    **kwargs: Any,
) -> None:
    """Save with a configuration of what is INT8 now, and write a model card where the folder has none."""
    only_adapters = getattr(model, "_hf_peft_config_loaded", False)
    if not only_adapters:
        describe(model)
    original(save_directory, *args, **kwargs)
    is_main_process = kwargs.get("is_main_process", args[0] if args else True)
    if is_main_process and not only_adapters:
        model_card.write_missing(model, Path(save_directory))


def _upload_modified_files(
    original: Callable[..., Any],
    model: PreTrainedModel,
    working_dir: str | os.PathLike[str],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Upload our model card instead of the empty one that transformers makes for a repository without any."""
    model_card.replace_generated(model, Path(working_dir))
    return original(working_dir, *args, **kwargs)


_METHODS: dict[str, Callable[..., Any]] = {
    "num_parameters": _num_parameters,
    "resize_token_embeddings": _resize_token_embeddings,
    "_upload_modified_files": _upload_modified_files,
}
