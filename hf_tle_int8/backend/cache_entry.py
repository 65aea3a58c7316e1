"""Objects in Triton's cache: framed when they are stored, checked before they run.

The frame holds a digest of what the object was made for (target, this backend's sources, llvmlite, Python and Triton's
own key of the kernel) and a digest of the object. Digests prove that an entry is whole and meant, not who wrote it: a
file must also belong to this user and be writable by nobody else, except where this very process made its content.
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"hf_tle_int8 obj\x01"
_DIGEST = hashlib.sha256().digest_size
_HEADER = len(MAGIC) + 2 * _DIGEST + 4
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_made_here: set[bytes] = set()


class BadEntryError(Exception):
    """An entry of the cache must not be run; the message is the reason."""


@dataclass(frozen=True)
class Entry:
    """An object and how to call it.

    Attributes:
        name: of the kernel.
        parameters: LLVM types of its arguments, before the grid.
        object_code: ELF.
    """

    name: str
    parameters: tuple[str, ...]
    object_code: bytes


def entry_key(backend: str, kernel: str) -> str:
    """What an entry is made for, from the backend's key and Triton's key of the kernel."""
    return f"{backend}\n{kernel}"


def frame(entry: Entry, key: str) -> bytes:
    """The bytes to store; this process trusts them from now on, wherever they lie."""
    header = json.dumps([entry.name, entry.parameters]).encode()
    payload = len(header).to_bytes(4, "little") + header + entry.object_code
    data = MAGIC + hashlib.sha256(key.encode()).digest() + hashlib.sha256(payload).digest() + payload
    _made_here.add(hashlib.sha256(data).digest())
    return data


def unframe(data: bytes, key: str) -> Entry:
    """The entry in ``data``.

    Raises:
        BadEntryError: it is not whole, or was made for something else than ``key``.
    """
    if len(data) < _HEADER or not data.startswith(MAGIC):
        raise BadEntryError("it is truncated or no object of this backend")
    made_for, digest = (data[len(MAGIC) + i * _DIGEST : len(MAGIC) + (i + 1) * _DIGEST] for i in range(2))
    payload = data[len(MAGIC) + 2 * _DIGEST :]
    if hashlib.sha256(payload).digest() != digest:
        raise BadEntryError("its content does not match its digest: it is truncated or corrupt")
    if made_for != hashlib.sha256(key.encode()).digest():
        raise BadEntryError("it was made for another kernel or target, or by another version")
    size = int.from_bytes(payload[:4], "little")
    name, parameters = json.loads(payload[4 : 4 + size])
    return Entry(name, tuple(parameters), payload[4 + size :])


def made_here(data: bytes) -> bool:
    """Whether this process has made these very bytes."""
    return hashlib.sha256(data).digest() in _made_here


def read(path: Path) -> bytes:
    """The content of a file that nobody else can have written.

    Raises:
        BadEntryError: somebody else owns the file or may write to it, or it cannot be read.
    """
    try:
        # What is checked must be what is read, hence one descriptor and no symbolic link; a pipe must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadEntryError(f"it cannot be read ({error.strerror})") from error
    try:
        _check(os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadEntryError("it is no regular file")
    if status.st_uid != os.geteuid():
        raise BadEntryError(f"it belongs to user {status.st_uid}, not to user {os.geteuid()} who runs this process")
    if status.st_mode & _OTHERS_WRITE:
        raise BadEntryError(f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})")


def seal(path: Path) -> None:
    """Take the permission to write from others, on a file that this process has written.

    Triton leaves that to the umask, and with a common one the group may write.

    Raises:
        OSError: the file is gone, or its mode cannot be changed.
    """
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & _OTHERS_WRITE:
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
