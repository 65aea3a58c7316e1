"""A checkpoint folder, looked at without loading it: headers of its safetensors files and its configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from hf_tle_int8 import compressed_tensors, resolution
from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config
from hf_tle_int8.errors import CheckpointError, UnsupportedSchemeError
from hf_tle_int8.explanation import Context, describe, linear_row
from hf_tle_int8.layer_table import LayerRow, LayerTable
from hf_tle_int8.matching import name_aliases
from hf_tle_int8.selection import Selection, modules_by_identity

_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"

# safetensors' names of dtypes -> torch's name and bits of an element.
_DTYPES = {
    "F64": ("float64", 64), "F32": ("float32", 32), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "I64": ("int64", 64), "I32": ("int32", 32), "I16": ("int16", 16), "I8": ("int8", 8), "U8": ("uint8", 8),
    "BOOL": ("bool", 8), "F8_E4M3": ("float8_e4m3fn", 8), "F8_E5M2": ("float8_e5m2", 8),
}  # fmt: skip
_FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Header:
    """What a file says of one tensor.

    Attributes:
        dtype: torch's name for it.
        shape: its shape.
        bytes: that it takes.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int


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
    found = _read_config(folder)
    quantized = _quantization(found.get("quantization_config"), folder)
    headers = read_headers(folder)
    model = _skeleton(folder, found)

    def names_of(name: str) -> list[str]:
        return name_aliases(name, model.base_model_prefix)

    if quantized is None:
        selection, _ = resolution.resolve(TLEInt8Config(), model, names_of)
    else:
        selection = resolution.recorded(quantized, model, names_of)
    rows = _rows(model, selection, headers, quantized is not None, prefill_rows)
    notes = [f"{folder} holds {_what(quantized, found)}."]
    int8 = sum(header.dtype == "int8" for header in headers.values())
    expected = sum(row.state == "int8" for row in rows)
    if quantized is not None and int8 != expected:
        notes.append(f"Its files have {int8} int8 tensors, and its configuration expects {expected} INT8 linears.")
    return LayerTable(tuple(rows), prefill_rows, sum(header.bytes for header in headers.values()), tuple(notes))


def _what(quantized: TLEInt8Config | None, found: Mapping[str, Any]) -> str:
    if quantized is None:
        return "a float model"
    return f"an INT8 model ({found['quantization_config']['quant_method']})"


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is no folder: inspect takes the folder of a checkpoint. One from the Hub can be had with "
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


def _quantization(found: Any, folder: Path) -> TLEInt8Config | None:
    if found is None:
        return None
    method = found.get("quant_method")
    if method == QUANT_METHOD:
        return TLEInt8Config(**found)
    if method == compressed_tensors.QUANT_METHOD:
        return compressed_tensors.config_from_compressed_tensors(found)
    raise UnsupportedSchemeError(
        f"{folder} is quantized with quant_method={method!r}, which is none of ours: nothing here could load it in "
        f"INT8. Name the folder of the float original."
    )


def read_headers(folder: Path) -> dict[str, Header]:
    """The tensors of all safetensors files of a checkpoint, by name; none is loaded.

    Raises:
        CheckpointError: a file is missing or damaged, or there are only files of another format.
    """
    headers: dict[str, Header] = {}
    for file in _files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    part = tensors.get_slice(name)
                    dtype, bits = _DTYPES.get(part.get_dtype(), (part.get_dtype(), 8))
                    shape = tuple(part.get_shape())
                    headers[name] = Header(dtype, shape, prod(shape) * bits // 8)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is missing or damaged: {error}. Download or save it again.") from error
    return headers


def _files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        try:
            return sorted(
                {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index} is damaged: {error!r}. Download or save it again.") from error
    if files := sorted(folder.glob("*.safetensors")):
        return files
    others = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    raise CheckpointError(
        f"{folder} has no safetensors file"
        + (f", only {others[0]}, whose weights cannot be told without loading it" if others else "")
        + ". Save it with save_pretrained of transformers 5, which writes safetensors."
    )


def _skeleton(folder: Path, found: Mapping[str, Any]) -> PreTrainedModel:
    """The model on the meta device, as its configuration describes it."""
    name = next(iter(found.get("architectures") or []), None)
    cls = getattr(transformers, name, None) if name else None
    if cls is None:
        raise CheckpointError(
            f"{folder / _CONFIG} says architectures={found.get('architectures')!r}, which this transformers "
            f"({transformers.__version__}) does not have: its layers are not known. Name a checkpoint of a model that "
            f"transformers has."
        )
    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            return cls(config)
    except Exception as error:  # whatever a model's own code raises on a configuration that does not suit it
        raise CheckpointError(
            f"{folder / _CONFIG} describes no {name} that can be built: {' '.join(str(error).split())}. Save the "
            f"checkpoint again, or install what it needs."
        ) from error


def _rows(
    model: PreTrainedModel, selection: Selection, headers: Mapping[str, Header], quantized: bool, prefill_rows: int
) -> list[LayerRow]:
    kept = {name: reason for reason, names in selection.kept.items() for name in names}
    rows = []
    for names, module in modules_by_identity(model):
        context = Context(names[0], prefill_rows, next((kept[name] for name in names if name in kept), None))
        if isinstance(module, nn.Linear):
            int8 = quantized and names[0] in selection.convert
            rows.append(_linear_row(context, module, headers, int8))
        elif (row := describe(module, context)) is not None:
            rows.append(row)
    return rows


def _linear_row(context: Context, linear: nn.Linear, headers: Mapping[str, Header], int8: bool) -> LayerRow:
    """What the files say of a linear; where they name it otherwise than the model does, what the model says."""
    key = f"{context.name}.weight"
    header = headers.get(key)
    if header is None:
        dtype = "int8" if int8 else str(linear.weight.dtype).removeprefix("torch.")
        return linear_row(context, linear, dtype, linear.weight.numel() * (1 if int8 else linear.weight.itemsize), int8)
    problem = None
    if header.shape != (linear.out_features, linear.in_features):
        problem = f"has shape {header.shape}, and the model needs {(linear.out_features, linear.in_features)}"
    elif header.dtype not in (("int8",) if int8 else _FLOATS):
        problem = f"has dtype {header.dtype}, and its configuration says that it is {'INT8' if int8 else 'float'}"
    elif int8 and f"{key}_scale" not in headers:
        problem = "is int8 without its weight_scale"
    if problem:
        raise CheckpointError(f"{key} {problem}: the checkpoint is damaged. Save it again from the float model.")
    keys = [f"{context.name}.{tensor}" for tensor in ("weight", "weight_scale", "bias")]
    saved = {key: f"{headers[key].dtype} {list(headers[key].shape)}" for key in keys if key in headers}
    return replace(linear_row(context, linear, header.dtype, header.bytes, int8), saved=saved)
