"""The float checkpoint to convert: its configuration, and its tensors one by one."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hf_tle_int8 import inspection
from hf_tle_int8.checkpoint_files import Header, read_headers, safetensors_files
from hf_tle_int8.errors import CheckpointError, ConfigError

_FLOATS = {"float64", "float32", "float16", "bfloat16"}
# Bytes that are read before files are opened anew: until then, what was read of a mapped file counts as memory.
_MOST_MAPPED = 1 << 26


@dataclass
class Source:
    """Use it as a context manager: its files are open, and mapped, inside where tensors of them were asked for.

    Attributes:
        folder: of the checkpoint.
        config: its ``config.json``.
        files: its safetensors files.
        headers: what they say of its tensors.
    """

    folder: Path
    config: dict[str, Any]
    files: list[Path]
    headers: dict[str, Header]

    def dtype(self) -> torch.dtype:
        """What ``dtype="auto"`` of ``from_pretrained`` means.

        Raises:
            CheckpointError: the files hold no float, or the configuration names no dtype of torch.
        """
        named = self.config.get("dtype") or self.config.get("torch_dtype")
        found = next((header.dtype for header in self.headers.values() if header.dtype in _FLOATS), None)
        if not (named or found):
            raise CheckpointError(f"{self.folder} holds no floating-point tensor: nothing could become INT8.")
        dtype = getattr(torch, str(named or found), None)
        if not isinstance(dtype, torch.dtype):
            raise CheckpointError(
                f"{self.folder / 'config.json'} says dtype={named!r}, which torch does not have. Correct it there, or "
                f"choose another with --dtype."
            )
        return dtype

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped from its file."""
        if self._mapped > _MOST_MAPPED:
            self._close()
        self._mapped += self.headers[name].bytes
        file = self.headers[name].file
        if file not in self._opened:
            self._opened[file] = self._stack.enter_context(safe_open(file, framework="pt"))
        return self._opened[file].get_tensor(name)

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors are equal, of one dtype and shape."""
        return self.headers[one] == self.headers[other] and torch.equal(self.tensor(one), self.tensor(other))

    def __enter__(self) -> "Source":
        self._stack = ExitStack()
        self._opened: dict[Path, Any] = {}
        self._mapped = 0
        return self

    def _close(self) -> None:
        self._opened.clear()
        self._stack.close()
        self._mapped = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()


def read(folder: Path) -> Source:
    """A float checkpoint.

    Raises:
        CheckpointError: the folder or a file of it is missing or damaged.
        ConfigError: it is INT8 already.
        UnsupportedSchemeError: it was quantized by another method.
    """
    config = inspection.read_config(folder)
    if inspection.quantization_of(config.get("quantization_config"), folder) is not None:
        raise ConfigError(f"{folder} is INT8 already. Name the folder of the float original.")
    # What from_pretrained takes first, whatever lies beside it: an adapter, for one.
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else safetensors_files(folder)
    return Source(folder, config, files, read_headers(files))
