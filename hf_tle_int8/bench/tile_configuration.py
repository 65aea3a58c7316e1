"""The configuration of AMX's tile registers, which ggml makes once for each thread and takes to be there ever after.

In a process of its own that holds. Beside libraries that release the registers behind each use, as torch does and as
the calling convention has it, ggml's next product would be an illegal instruction.
"""

import contextlib
import ctypes
from collections.abc import Iterator

from hf_tle_int8.backend import codegen
from hf_tle_int8.backend.loader import LoadedObject
from hf_tle_int8.backend.target import Target

_BODY = """
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.sttilecfg(ptr)
declare void @llvm.x86.tilerelease()
define void @tiles_load(ptr %from) #0 { call void @llvm.x86.ldtilecfg(ptr %from) ret void }
define void @tiles_store(ptr %to) #0 { call void @llvm.x86.sttilecfg(ptr %to) ret void }
define void @tiles_release() #0 { call void @llvm.x86.tilerelease() ret void }
"""
_NAMES = ["tiles_load", "tiles_store", "tiles_release"]
_BYTES = 64


class TileConfiguration:
    """What one library has configured on this thread; nothing where there are no tile registers.

    Args:
        target: must be runnable here.
    """

    def __init__(self, target: Target) -> None:
        self._configuration: ctypes.Array[ctypes.c_char] | None = None
        self._exists = target.tile_registers > 0
        if self._exists:
            self._code = LoadedObject(codegen.compile_module(target, _BODY).object_code, target, _NAMES)
            take = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
            self._load, self._store = (take(self._code.addresses[name]) for name in _NAMES[:2])
            self._release = ctypes.CFUNCTYPE(None)(self._code.addresses[_NAMES[2]])

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Around calls of the library: they find what they have configured in an earlier one."""
        if not self._exists:
            yield
        elif self._configuration is not None:
            self._load(self._configuration)
            yield
        else:
            # What is there afterwards is the library's own.
            self._release()
            yield
            found = ctypes.create_string_buffer(_BYTES)
            self._store(found)
            self._configuration = found if any(found.raw) else None
