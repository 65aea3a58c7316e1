"""A safetensors file, written tensor by tensor in any order.

The format is that of https://github.com/huggingface/safetensors#format: the size of a JSON header, the header, the
tensors. Their order and the padding of the header are those of the library, so that the bytes are the same.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

# By descending alignment, as the library sorts them.
_DTYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64", torch.float32: "F32",
    torch.uint32: "U32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16",
    torch.int16: "I16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ORDER = {dtype: number for number, dtype in enumerate(_DTYPES)}


class ShardFile:
    """A file to be filled; it has its name once it is complete, and is gone if it was left by an exception.

    Args:
        file: where to.
        tensors: its tensors by name, whose shape and dtype count: those of the meta device will do.

    Raises:
        OSError: see `open`.
    """

    def __init__(self, file: Path, tensors: Mapping[str, Tensor]):
        self._final, self._unfinished = file, file.with_name(f"{file.name}.unfinished")
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        self._starts: dict[str, int] = {}
        self._tensors = dict(sorted(tensors.items(), key=lambda item: (_ORDER[item[1].dtype], item[0])))
        for name, tensor in self._tensors.items():
            self._starts[name], end = end, end + tensor.nbytes
            offsets = [self._starts[name], end]
            header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._file = open(self._unfinished, "wb")  # noqa: SIM115
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._data = 8 + len(text)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor.

        Raises:
            ValueError: it is not what was announced.
            OSError: the disk is full, for one.
        """
        announced = self._tensors[name]
        if (tensor.shape, tensor.dtype) != (announced.shape, announced.dtype):
            raise ValueError(
                f"{name} came out as {tensor.dtype} {tuple(tensor.shape)} instead of {announced.dtype} "
                f"{tuple(announced.shape)}: report this, with the output of `hf-tle-int8 env`."
            )
        self._file.seek(self._data + self._starts[name])
        self._file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> "ShardFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            # What is still buffered may not fit on the disk.
            self._file.raw.close()
        if kind is None:
            os.replace(self._unfinished, self._final)
        else:
            self._unfinished.unlink()
