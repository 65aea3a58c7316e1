"""The entries of this backend in Triton's cache: counted and removed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton  # noqa: F401 - before the compiler, which Triton looks into while it is imported itself

from hf_tle_int8.backend.cache_entry import MAGIC
from hf_tle_int8.backend.compiler import CPUBackend


@dataclass(frozen=True)
class CachedKernel:
    """A kernel in the cache.

    Attributes:
        files: what Triton stores of it: the object, what it was made of, and its metadata.
    """

    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)

    def remove(self) -> None:
        """Delete its files, and its folder if that holds nothing else.

        Raises:
            OSError: a file cannot be deleted.
        """
        for file in self.files:
            file.unlink(missing_ok=True)
        folder = self.files[0].parent
        if not any(folder.iterdir()):
            folder.rmdir()


def folder() -> Path:
    """Where Triton's cache is: ``TRITON_CACHE_DIR``, or below the home of the user."""
    from triton import knobs

    return Path(knobs.cache.dir)


def kernels() -> Iterator[CachedKernel]:
    """The kernels that this backend has stored for any target; entries of other backends are not looked into."""
    for file in sorted(folder().glob(f"*/*.{CPUBackend.binary_ext}")):
        if not file.is_symlink() and not file.parent.is_symlink() and _is_ours(file):
            names = (f"{file.stem}.*", f"__grp__{file.stem}.json")
            yield CachedKernel((file, *(found for name in names for found in file.parent.glob(name) if found != file)))


def _is_ours(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC
