"""What to convert and how, and what came of it."""

from dataclasses import dataclass

import torch

from hf_tle_int8 import compressed_tensors
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.errors import ConfigError

FORMATS = ("tle_int8", compressed_tensors.QUANT_METHOD)


@dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        config: what becomes INT8.
        dtype: of the rest; None for that of the checkpoint.
        max_shard_size: of the files to write, such as ``5GB``.
        format: one of `FORMATS`.
        overwrite: whether to replace a checkpoint that is there.

    Raises:
        ConfigError: ``format`` is not one of these.
    """

    config: TLEInt8Config
    dtype: torch.dtype | None = None
    max_shard_size: str = "5GB"
    format: str = FORMATS[0]
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"format={self.format!r} is not one of {', '.join(FORMATS)}. Choose one of these.")


@dataclass(frozen=True)
class Outcome:
    """What was written.

    Attributes:
        folder: the INT8 checkpoint.
        int8_modules: the names of its INT8 layers, numbers as ``*``.
        files: its safetensors files.
        bytes: of these.
        resumed: how many of them an earlier run had written.
        left_out: tensors of the float checkpoint that its model does not have.
        loaded_whole_because: why it was not converted tensor by tensor; None where it was.
    """

    folder: str
    int8_modules: list[str]
    files: list[str]
    bytes: int
    resumed: int
    left_out: list[str]
    loaded_whole_because: str | None
