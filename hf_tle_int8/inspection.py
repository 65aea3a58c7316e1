"""A checkpoint folder, looked at without loading it: headers of its safetensors files and its configuration."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from hf_tle_int8 import compressed_tensors, defaults, resolution
from hf_tle_int8.checkpoint_files import Header, read_headers, safetensors_files
from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config
from hf_tle_int8.errors import CheckpointError, UnsupportedSchemeError
from hf_tle_int8.explanation import Context, describe, experts_row, linear_row
from hf_tle_int8.layer_table import LayerRow, LayerTable
from hf_tle_int8.nn.conv1d import is_linear, size_of
from hf_tle_int8.nn.expert_layout import is_experts
from hf_tle_int8.selection import modules_by_identity

_CONFIG = "config.json"
_FLOATS = ("float64", "float32", "float16", "bfloat16")


def inspect_checkpoint(folder: Path, prefill_rows: int = 512) -> LayerTable:
    """What a checkpoint holds, and what its layers would run on here; of a float one, what would become INT8.

    No weight is read: the model is built on the meta device from its configuration.

    Args:
        folder: with ``config.json`` and safetensors files.
        prefill_rows: M of the column for many rows.

    Raises:
        CheckpointError: the folder or a file of it is missing or damaged, or its model cannot be built.
        UnsupportedSchemeError: it was quantized by another method.
    """
    found = read_config(folder)
    quantized = quantization_of(found.get("quantization_config"), folder)
    headers = read_headers(safetensors_files(folder))
    model = skeleton(folder, found)
    selection, _ = resolution.of_checkpoint(quantized, model, TLEInt8Config())
    kept = {name: reason for reason, names in selection.kept.items() for name in names}
    if quantized is not None:
        # The saved list names what stays, not why.
        by_default = defaults.default_skips(model, heads=not quantized.quantize_lm_head)
        kept |= {name: reason for name, reason in by_default.items() if name in kept}
    int8 = set() if quantized is None else {*selection.convert, *selection.experts}
    rows = _rows(model, kept, headers, int8, prefill_rows)
    notes = [f"{folder} holds {_what(quantized, found)}."]
    on_disk = sum(header.dtype == "int8" for header in headers.values())
    expected = len(int8) - sum(len(group) - 1 for group in defaults.shared_linears(model) if int8.issuperset(group))
    # Experts are one tensor each in most files.
    if quantized is not None and not selection.experts and on_disk != expected:
        notes.append(f"Its files have {on_disk} int8 tensors, and its configuration expects {expected}.")
    return LayerTable(tuple(rows), prefill_rows, sum(header.bytes for header in headers.values()), tuple(notes))


def _what(quantized: TLEInt8Config | None, found: Mapping[str, Any]) -> str:
    if quantized is None:
        return "a float model"
    return f"an INT8 model ({found['quantization_config']['quant_method']})"


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is no folder: the folder of a checkpoint is needed. One from the Hub can be had with "
            f"`hf download`."
        )
    file = folder / _CONFIG
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {_CONFIG}: it is no checkpoint of transformers. Name its folder.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}. Save the checkpoint again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} holds a {type(found).__name__}, not an object. Save the checkpoint again.")
    return found


def quantization_of(found: Any, folder: Path) -> TLEInt8Config | None:
    """The options that an INT8 checkpoint was made with; None of a float one.

    Args:
        found: the ``quantization_config`` of its ``config.json``.
        folder: for the message of an error.

    Raises:
        ConfigError: its configuration is not one of ours.
        UnsupportedSchemeError: it was quantized by another method.
    """
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else found
    if method == QUANT_METHOD:
        return TLEInt8Config(**found)
    if method == compressed_tensors.QUANT_METHOD:
        return compressed_tensors.config_from_compressed_tensors(found)
    raise UnsupportedSchemeError(
        f"{folder} is quantized with quant_method={method!r}, which is none of ours: nothing here could load it in "
        f"INT8. Name the folder of the float original."
    )


def model_class(architectures: Any) -> type[PreTrainedModel] | None:
    """The class of transformers that ``architectures`` of a configuration names; None where there is no such class."""
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    cls = getattr(transformers, name, None) if isinstance(name, str) else None
    return cls if isinstance(cls, type) and issubclass(cls, PreTrainedModel) else None


def skeleton(folder: Path, found: Mapping[str, Any], dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model on the meta device, as its configuration describes it.

    Args:
        folder: of the checkpoint.
        found: its ``config.json``.
        dtype: of the model; that of its configuration where None.

    Raises:
        CheckpointError: there is no such class, or it cannot be built of this configuration.
    """
    cls = model_class(found.get("architectures"))
    if cls is None:
        raise CheckpointError(
            f"{folder / _CONFIG} says architectures={found.get('architectures')!r}, which this transformers "
            f"({transformers.__version__}) does not have: its layers are not known. Name a checkpoint of a model that "
            f"transformers has."
        )
    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            return cls._from_config(config, **({} if dtype is None else {"dtype": dtype}))
    except Exception as error:  # whatever a model's own code raises on a configuration that does not suit it
        raise CheckpointError(
            f"{folder / _CONFIG} describes no {cls.__name__} that can be built: {' '.join(str(error).split())}. Save "
            f"the checkpoint again, or install what it needs."
        ) from error


def _rows(
    model: PreTrainedModel, kept: dict[str, str], headers: Mapping[str, Header], int8: set[str], prefill_rows: int
) -> list[LayerRow]:
    rows = []
    for names, module in modules_by_identity(model):
        context = Context(names[0], prefill_rows, next((kept[name] for name in names if name in kept), None))
        if is_linear(module):
            rows.append(_linear_row(context, module, headers, names[0] in int8))
        elif is_experts(module):
            rows.append(experts_row(context, module, names[0] in int8))
        elif (row := describe(module, context)) is not None:
            rows.append(row)
    return rows


def _linear_row(context: Context, linear: nn.Module, headers: Mapping[str, Header], int8: bool) -> LayerRow:
    """What the files say of a linear; where they name it otherwise than the model does, what the model says."""
    key = f"{context.name}.weight"
    header = headers.get(key)
    if header is None:
        weight = linear.get_parameter("weight")
        dtype = "int8" if int8 else str(weight.dtype).removeprefix("torch.")
        return linear_row(context, linear, dtype, weight.numel() * (1 if int8 else weight.itemsize), int8)
    problem, shape = None, size_of(linear) if int8 else tuple(linear.get_parameter("weight").shape)
    if header.shape != shape:
        problem = f"has shape {header.shape}, and the model needs {shape}"
    elif header.dtype not in (("int8",) if int8 else _FLOATS):
        problem = f"has dtype {header.dtype}, and its configuration says that it is {'INT8' if int8 else 'float'}"
    elif int8 and f"{key}_scale" not in headers:
        problem = "is int8 without its weight_scale"
    if problem:
        raise CheckpointError(f"{key} {problem}: the checkpoint is damaged. Save it again from the float model.")
    keys = [f"{context.name}.{tensor}" for tensor in ("weight", "weight_scale", "bias")]
    saved = {key: f"{headers[key].dtype} {list(headers[key].shape)}" for key in keys if key in headers}
    return replace(linear_row(context, linear, header.dtype, header.bytes, int8), saved=saved)
