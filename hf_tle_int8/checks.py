"""Checks of a checkpoint: before it is quantized, and of what was loaded from it."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from hf_tle_int8.config import method_of
from hf_tle_int8.errors import CheckpointError, TLEInt8Error, UnsupportedSchemeError
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.conv1d import is_linear
from hf_tle_int8.nn.expert_layout import is_experts
from hf_tle_int8.nn.linear import check_scale_values

_FLOATS_ON_DISK = ("F64", "F32", "F16", "BF16", "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16")
_SAVE_AGAIN = "Save the checkpoint again from the float model."


def check_float_checkpoint(files: Iterable[str]) -> None:
    """Raise where files to quantize hold weights that another method has quantized already.

    transformers casts what it finds to the dtype of the model, so that codes would pass for weights, and initializes at
    random what has other names. Headers are read, not tensors.

    Raises:
        UnsupportedSchemeError: ``config.json`` beside the files names a method, one that transformers does not know.
        CheckpointError: a weight is not floating point.
    """
    for file in files:
        _check_method(Path(file).with_name("config.json"))
        for name, dtype in _dtypes_on_disk(str(file)):
            if name.endswith("weight") and dtype not in _FLOATS_ON_DISK:
                raise CheckpointError(
                    f"{name} has dtype {dtype} in the checkpoint: it is already quantized, by a method that its "
                    f"configuration does not name. Load the float original of this model instead."
                )


def _check_method(config: Path) -> None:
    found = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if (method := method_of(found.get("quantization_config"))) is not None:
        raise UnsupportedSchemeError(
            f"{config} says quant_method={method!r}, which transformers does not know here: its weights are no longer "
            f"floating point. Load the float original of this model; or, if these weights are, delete "
            f"quantization_config there."
        )


def _dtypes_on_disk(file: str) -> Iterator[tuple[str, str]]:
    if file.endswith(".safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_slice(name).get_dtype()
    elif file.endswith((".bin", ".pt", ".pth")):
        for name, tensor in torch.load(file, map_location="meta", weights_only=True).items():
            if isinstance(tensor, Tensor):
                yield name, str(tensor.dtype)


def check_complete(checkpoint: object, missing: Iterable[str]) -> None:
    """Raise `CheckpointError` where a checkpoint lacks tensors of its own model: transformers would make them up.

    Args:
        checkpoint: its folder or name.
        missing: the names in the model of what the files lack, as ``output_loading_info`` has them.
    """
    # The scale of an INT8 layer is made of its weight.
    names = sorted(name for name in missing if not name.endswith("weight_scale"))
    if names:
        shown = ", ".join(names[:3]) + (f", … {len(names) - 3} more" if len(names) > 3 else "")
        raise CheckpointError(
            f"{checkpoint} lacks {shown}: transformers would initialize that at random. Download or save the "
            f"checkpoint again, whole. If it is meant, let from_pretrained and save_pretrained make a whole one first."
        )


def was_loaded(tensor: Tensor) -> bool:
    """Whether the loader of transformers has set ``tensor`` from the checkpoint."""
    # The loader of transformers marks what it has loaded; what is offloaded stays on the meta device.
    return getattr(tensor, "_is_hf_initialized", False) or tensor.device.type == "meta"


def check_loaded(model: nn.Module, expected_shapes: Mapping[str, torch.Size], errors: list[str]) -> None:
    """Raise `CheckpointError` naming the tensors that are missing, misshapen, mistyped or out of range.

    Args:
        model: after loading.
        expected_shapes: the shape of each tensor of its skeleton.
        errors: what was found while loading.
    """
    # What could not be quantized is no further looked at: its layers are incomplete because of that.
    found = list(errors) or list(_model_errors(model, expected_shapes))
    if found:
        shown = "\n".join(f"- {error}" for error in found[:8])
        more = f"\n- … {len(found) - 8} more" if len(found) > 8 else ""
        raise CheckpointError(f"the checkpoint cannot be loaded in INT8, problems found: {len(found)}\n{shown}{more}")


def _model_errors(model: nn.Module, expected_shapes: Mapping[str, torch.Size]) -> Iterator[str]:
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.shape != expected_shapes[name]:
            shapes = f"{tuple(tensor.shape)}, the model needs {tuple(expected_shapes[name])}"
            yield f"{name} has shape {shapes}. The checkpoint is of another model."
    for name, linear in model.named_modules():
        if isinstance(linear, TLEInt8Linear):
            yield from _layer_errors(name, linear, ("weight",))
        elif isinstance(linear, TLEInt8Experts):
            yield from _layer_errors(name, linear, linear.projections)
        elif is_linear(linear) or is_experts(linear):
            yield from _codes_of_float_layer(name, linear)


def _codes_of_float_layer(name: str, layer: nn.Module) -> Iterator[str]:
    for key, tensor in layer.named_parameters(recurse=False):
        if not tensor.is_floating_point():
            yield (
                f"{name}.{key} has dtype {tensor.dtype}, but {name} is configured to stay in float. "
                f"Restore the configuration that was saved with the checkpoint."
            )


def _layer_errors(name: str, layer: nn.Module, codes: Container[str]) -> Iterator[str]:
    for key, tensor in layer.named_parameters(recurse=False):
        if not was_loaded(tensor):
            yield f"{name}.{key} is missing from the checkpoint. {_SAVE_AGAIN}"
        elif key in codes and tensor.dtype != torch.int8:
            yield f"{name}.{key} has dtype {tensor.dtype}, int8 codes are needed. {_SAVE_AGAIN}"
        elif key not in codes and not tensor.is_floating_point():
            yield f"{name}.{key} has dtype {tensor.dtype}, floating point is needed. {_SAVE_AGAIN}"
        elif key.removesuffix("_scale") in codes and key not in codes and tensor.device.type != "meta":
            # Of a linear, or of each expert.
            each = {f"{name}.{key}[{i}]": own for i, own in enumerate(tensor)} if tensor.dim() == 3 else None
            yield from _scale_errors(each or {f"{name}.{key}": tensor})


def _scale_errors(scales: Mapping[str, Tensor]) -> Iterator[str]:
    for name, scale in scales.items():
        try:
            check_scale_values(scale, name)
        except TLEInt8Error as error:
            yield str(error)
