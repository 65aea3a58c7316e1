"""From what Triton loaded from its cache to code that may run: checked, and recompiled where it must not be trusted."""

import warnings
from pathlib import Path
from typing import Any

from hf_tle_int8.backend import cache_entry
from hf_tle_int8.backend.cache_entry import BadEntryError, Entry, entry_key
from hf_tle_int8.backend.target import Target, runnable_here


def target_of(metadata: Any) -> Target:
    """What a kernel was compiled for.

    Raises:
        RuntimeError: this machine does not run that.
    """
    try:
        return runnable_here(metadata.target.arch)
    except RuntimeError as error:
        raise RuntimeError(f"kernel {metadata.name} cannot be launched: {error}") from error


def runnable_entry(source: Any, metadata: Any, data: bytes) -> Entry:
    """The code of a kernel: ``data`` where this process made it, else the checked file of the cache, else made anew.

    Args:
        source: Triton's source of the kernel.
        metadata: Triton's metadata of the kernel.
        data: what Triton loaded.

    Raises:
        RuntimeError: this machine does not run the kernel's target.
        Exception: whatever a compilation raised.
    """
    from triton.compiler.compiler import make_backend
    from triton.runtime.cache import get_cache_manager

    target_of(metadata)
    backend = make_backend(metadata.target)
    key = entry_key(backend.hash(), metadata.hash)
    cache = get_cache_manager(metadata.hash)
    # As Triton abbreviates it.
    file_name = f"{source.name[:150]}.{backend.binary_ext}"
    found = cache.get_file(file_name)
    try:
        if cache_entry.made_here(data):
            if found is not None:
                _seal(Path(found))
            return cache_entry.unframe(data, key)
        if found is None:
            raise BadEntryError("it is gone")
        return cache_entry.unframe(cache_entry.read(Path(found)), key)
    except BadEntryError as error:
        return _made_anew(source, metadata, backend, cache, file_name, f"{found or file_name}: {error}")


def _made_anew(source: Any, metadata: Any, backend: Any, cache: Any, file_name: str, reason: str) -> Entry:
    from hf_tle_int8.backend.pipeline import recompile

    data = recompile(source, metadata, backend)
    try:
        _seal(Path(cache.put(data, file_name)))
        outcome = "and replaced"
    except OSError as error:
        outcome = f"but could not be replaced ({error}); remove it, or set TRITON_CACHE_DIR to a folder of your own"
    warnings.warn(
        f"cache entry {reason}. It was not run; the kernel was compiled again {outcome}.", RuntimeWarning, stacklevel=5
    )
    return cache_entry.unframe(data, entry_key(backend.hash(), metadata.hash))


def _seal(path: Path) -> None:
    """`cache_entry.seal`, told where it fails: the next process will then compile again."""
    try:
        cache_entry.seal(path)
    except OSError as error:
        warnings.warn(
            f"{path} cannot be protected from others ({error}), so that it will be compiled again. "
            "Set TRITON_CACHE_DIR to a folder of your own.",
            RuntimeWarning,
            stacklevel=5,
        )
