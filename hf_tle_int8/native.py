"""Installs the implementation of ``tle_int8::packed_linear`` in machine code, once for a process."""

import _thread
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
_PREPARE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_lock = threading.Lock()
# What machine code points into.
_kept: list[Any] = []
_messages: dict[bytes, Any] = {}
# Whether `install` has been tried, and why it failed.
_tried, _failure = False, ""


def unavailable() -> str | None:
    """Why each call of a layer passes through Python on its way to the kernels; None where it need not."""
    return execution.unavailable() or _missing() or _failure or None


@functools.cache
def _missing() -> str:
    """What this torch lacks, if anything."""
    try:
        torch_abi.symbols()
    except RuntimeError as error:
        return str(error)
    return ""


def install() -> str | None:
    """Let torch's dispatcher call machine code for ``tle_int8::packed_linear``, whose schema must be defined.

    Returns:
        None, or why that is `unavailable`.
    """
    global _tried, _failure
    with _lock:
        if not _tried and unavailable() is None:
            _tried = True
            try:
                implement("tle_int8")
            except RuntimeError as error:
                _failure = f"the operator cannot be made: {error}"
    return unavailable()


def implement(namespace: str) -> None:
    """Register ``packed_linear`` and ``packed_linear.bias`` of ``namespace`` for the CPU; calls compile kernels.

    Raises:
        RuntimeError: see `unavailable`, or torch refuses.
    """
    from hf_tle_int8.backend.codegen import compile_module
    from hf_tle_int8.backend.loader import LoadedObject

    layout, target = execution.layout(), execution.target()
    slots = (ctypes.c_void_p * native_code.slot_count(len(layout.tiles)))()

    def prepare(dtype: int, bias: int, tile: int, failure: int) -> None:
        try:
            kernels = execution.addresses(layout.tiles[tile], _DTYPES[dtype], _DTYPES.get(bias))
        except BaseException as error:  # noqa: BLE001 - the caller is machine code, which has torch raise it again
            words = f"{type(error).__name__}: {error}".encode(errors="replace")
            message = _messages.setdefault(words, ctypes.create_string_buffer(words))
            ctypes.c_void_p.from_address(failure).value = ctypes.addressof(message)
            if isinstance(error, KeyboardInterrupt):
                _thread.interrupt_main()
            return
        first = native_code.slot(dtype, bias, tile, len(layout.tiles))
        slots[first], slots[first + 1] = kernels
        ctypes.c_void_p.from_address(failure).value = None

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
