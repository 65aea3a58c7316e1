"""What machine code depends on beside the kernel: all of it is part of the cache's key."""

import functools
import hashlib
import sys
from pathlib import Path

from hf_tle_int8.backend.codegen import llvm
from hf_tle_int8.backend.target import Target


@functools.cache
def sources_digest() -> str:
    """A digest of this package's own sources."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


@functools.cache
def llvmlite_version() -> str:
    """The version of llvmlite.

    Raises:
        ImportError: llvmlite is not installed; the message says how to get it.
    """
    llvm()
    import llvmlite

    return llvmlite.__version__


@functools.cache
def backend_key(target: Target) -> str:
    """What identifies code for ``target`` made by this version of the backend, for this Python.

    Raises:
        ImportError: llvmlite is not installed.
    """
    python = f"{sys.implementation.cache_tag}{sys.abiflags}-{sys.hexversion:x}"
    machine = f"{target.name}-{target.arch}-{target.cpu}-{target.feature_string}-{target.tune}"
    return f"hf_tle_int8-{machine}-{sources_digest()}-llvmlite-{llvmlite_version()}-{python}"
