"""Object code into this process."""

import itertools
import threading
from collections.abc import Mapping
from typing import Any

from hf_tle_int8.backend.codegen import llvm, target_machine
from hf_tle_int8.backend.hwcap import may_use_tiles
from hf_tle_int8.backend.target import Target

_lock = threading.Lock()
_numbers = itertools.count()
_jits: dict[Target, Any] = {}


class LoadedObject:
    """An object that is linked into this process, for as long as this Python object lives.

    Args:
        object_code: what `codegen.compile_module` made for ``target``.
        target: must be runnable here.
        symbols: names of the functions to look up.
        imports: addresses of functions that the object calls, by name; others are looked for in this process.

    Raises:
        RuntimeError: the object cannot be linked, or lacks a symbol; LLVM's message is included. Or Linux refuses to
            let this process use the target's tile registers.
    """

    def __init__(
        self, object_code: bytes, target: Target, symbols: list[str], imports: Mapping[str, int] | None = None
    ):
        if target.tile_registers and not may_use_tiles():
            raise RuntimeError(
                f"Linux refuses the tile registers of AMX to this process, which code for the target {target.name} "
                f"needs. Compile for another one."
            )
        with _lock:
            if target not in _jits:
                # JITLink keeps the parts of an object together. LLVM's other linker aborts the process where memory is
                # such that they come to lie more than 2 GB from each other.
                _jits[target] = llvm().create_lljit_compiler(target_machine(target), use_jit_link=True)
            builder = llvm().JITLibraryBuilder().add_object_img(object_code).add_current_process()
            for name, address in (imports or {}).items():
                builder.import_symbol(name, address)
            for symbol in symbols:
                builder.export_symbol(symbol)
            self._library = builder.link(_jits[target], f"kernel{next(_numbers)}")
        self.addresses: dict[str, int] = {symbol: self._library[symbol] for symbol in symbols}
