"""Installs the implementation of ``tle_int8::packed_linear`` in machine code, once for a process."""

import ctypes
import functools
import threading
from typing import Any

import torch

from hf_tle_int8 import execution, native_code
from hf_tle_int8.backend import torch_abi
from hf_tle_int8.native_code import DTYPES

_CODES = {torch_abi.FLOAT32: torch.float32, torch_abi.FLOAT16: torch.float16, torch_abi.BFLOAT16: torch.bfloat16}
_DTYPES = {number: _CODES[code] for code, number in DTYPES.items()}

# The signature of `native_code.PREPARE`.
_PREPARE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_lock = threading.Lock()
# What machine code points into.
_kept: list[Any] = []


@functools.cache
def unavailable() -> str | None:
    """Why each call of a layer passes through Python on its way to the kernels; None where it need not."""
    reason = execution.unavailable()
    if reason is not None:
        return reason
    try:
        torch_abi.symbols()
    except RuntimeError as error:
        return str(error)
    return None


def install() -> str | None:
    """Let torch's dispatcher call machine code for ``tle_int8::packed_linear``, whose schema must be defined.

    Returns:
        None, or why that is `unavailable`.
    """
    reason = unavailable()
    if reason is None:
        with _lock:
            _installed()
    return reason


@functools.cache
def _installed() -> None:
    implement("tle_int8")


def implement(namespace: str) -> None:
    """Register ``packed_linear`` and ``packed_linear.bias`` of ``namespace`` for the CPU; calls compile kernels.

    Raises:
        RuntimeError: see `unavailable`, or torch refuses.
    """
    from hf_tle_int8.backend.codegen import compile_module
    from hf_tle_int8.backend.loader import LoadedObject

    layout, target = execution.layout(), execution.target()
    slots = (ctypes.c_void_p * native_code.slot_count(len(layout.tiles)))()

    def prepare(dtype: int, bias: int, tile: int) -> int | None:
        try:
            kernels = execution.addresses(layout.tiles[tile], _DTYPES[dtype], _DTYPES.get(bias))
        except Exception as error:  # noqa: BLE001 - the caller is machine code, which has torch raise it again
            message = ctypes.create_string_buffer(f"{type(error).__name__}: {error}".encode())
            _kept.append(message)
            return ctypes.addressof(message)
        first = native_code.slot(dtype, bias, tile, len(layout.tiles))
        slots[first], slots[first + 1] = kernels
        return None

    callback = _PREPARE(prepare)
    own = {
        native_code.SLOTS: ctypes.addressof(slots),
        native_code.PREPARE: ctypes.cast(callback, ctypes.c_void_p).value or 0,
    }
    code = compile_module(target, native_code.module(layout)).object_code
    loaded = LoadedObject(code, target, ["linear", "linear_bias"], {**torch_abi.symbols(), **own})
    _kept.extend((slots, callback, loaded))
    torch_abi.implement(namespace, "packed_linear", loaded.addresses["linear"])
    torch_abi.implement(namespace, "packed_linear.bias", loaded.addresses["linear_bias"])
