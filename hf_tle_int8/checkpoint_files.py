"""What the headers of a checkpoint's safetensors files say of its tensors."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from hf_tle_int8.errors import CheckpointError

_INDEX = "model.safetensors.index.json"

# safetensors' names of dtypes -> torch's name and bits of an element.
_DTYPES = {
    "F64": ("float64", 64), "F32": ("float32", 32), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "I64": ("int64", 64), "I32": ("int32", 32), "I16": ("int16", 16), "I8": ("int8", 8), "U8": ("uint8", 8),
    "BOOL": ("bool", 8), "F8_E4M3": ("float8_e4m3fn", 8), "F8_E5M2": ("float8_e5m2", 8),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of one tensor.

    Attributes:
        dtype: torch's name for it.
        shape: its shape.
        bytes: that it takes.
        file: that it is in; headers are equal without that.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: Path = field(compare=False)


def read_headers(files: Iterable[Path]) -> dict[str, Header]:
    """The tensors of safetensors files, by name; none is loaded.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    headers: dict[str, Header] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    part = tensors.get_slice(name)
                    dtype, bits = _DTYPES.get(part.get_dtype(), (part.get_dtype(), 8))
                    shape = tuple(part.get_shape())
                    headers[name] = Header(dtype, shape, prod(shape) * bits // 8, file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is missing or damaged: {error}. Download or save it again.") from error
    return headers


def safetensors_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint; where there is an index, those that it names.

    Raises:
        CheckpointError: there is none, maybe only files of another format, or the index is damaged.
    """
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
