"""Loaded kernels as Python callables."""

import ctypes
from typing import Any

from hf_tle_int8.backend.loader import LoadedObject
from hf_tle_int8.backend.openmp import runtime_symbols, threads
from hf_tle_int8.backend.schedule import EVEN, current
from hf_tle_int8.backend.target import Target

_METH_FASTCALL = 0x0080


class _MethodDefinition(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.restype = ctypes.py_object
_new_function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class KernelEntry:
    """A compiled kernel, ready to run.

    Args:
        object_code: made from a module with the entry points of `launch`.
        target: what it was compiled for; must be runnable here.
        name: of the kernel.
        schedule: how threads share a grid, see `schedule`; that of the process by default.

    Raises:
        ValueError: ``HF_TLE_INT8_SCHEDULE`` names no schedule.

    Attributes:
        call: ``call(*arguments, gx, gy, gz, threads)``, the fastest way in: pointers as addresses, no checks of what
            they point to. Keep the tensors and this object alive for as long as the call runs.
        address: of the same for callers in machine code: a function of C that takes pointers, integers and floats.
    """

    def __init__(self, object_code: bytes, target: Target, name: str, schedule: str | None = None):
        even = (schedule or current().name) == EVEN
        symbol, native = f"{name}_python", f"{name}_launch{'' if even else '_dynamic'}"
        self._loaded = LoadedObject(object_code, target, [symbol, native], runtime_symbols())
        self.address = self._loaded.addresses[native]
        self._definition = _MethodDefinition(name.encode(), self._loaded.addresses[symbol], _METH_FASTCALL, None)
        # What the kernel gets as ``self``: NULL for even. CPython holds a reference to anything else.
        bound = None if even else id(True)
        self.call: Any = _new_function(ctypes.addressof(self._definition), bound, None)

    def __call__(self, *arguments: int | float, grid: tuple[int, int, int]) -> None:
        """Run the grid on as many threads as torch uses."""
        self.call(*arguments, *grid, threads())
