"""Masked copies between buffers whose neighbouring pages cannot be touched; a process of its own, for it may be killed.

    python guard_pages.py excess

Masks are true for ``excess`` elements more than there are. Prints how many copies were right.
"""

import ctypes
import itertools
import mmap
import sys
from collections.abc import Callable, Iterator

import numpy as np
import triton
import triton.language as tl
from kernel_runs import on_host
from tensor_kernels import POISON, KernelCase

from hf_tle_int8.backend import target

KINDS = {
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "fp16": np.float16, "bf16": np.int16, "fp32": np.float32, "fp64": np.float64,
}  # fmt: skip
BLOCK, LONG_BLOCK = 64, 1024
PAGE = mmap.PAGESIZE
SIZE = max(PAGE, 8 * LONG_BLOCK)


@triton.jit
def copy(x, low, high, o, B: tl.constexpr):
    i = tl.arange(0, B)
    m = (i >= low) & (i < high)
    tl.store(o + i, tl.load(x + i, mask=m), mask=m)


@triton.jit
def gather(x, low, high, o, B: tl.constexpr):
    i = tl.arange(0, B) * high // high
    m = (i >= low) & (i < high)
    tl.store(o + i, tl.load(x + i, mask=m), mask=m)


@triton.jit
def transpose(x, columns, o, K: tl.constexpr, N: tl.constexpr):
    k, n = tl.arange(0, K)[None, :], tl.arange(0, N)[:, None]
    m = n < columns
    tl.store(o + n * K + k, tl.load(x + k * columns + n, mask=m), mask=m)


class Guarded:
    """``size`` bytes that can be used, whole pages, between two pages that cannot."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._map = mmap.mmap(-1, size + 2 * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + PAGE
        libc = ctypes.CDLL(None, use_errno=True)
        for place in (self.address - PAGE, self.address + size):
            if libc.mprotect(ctypes.c_void_p(place), PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def elements(self, kind: type, count: int, at_end: bool) -> np.ndarray:
        """``count`` elements that end where these bytes do, or begin there."""
        size = count * np.dtype(kind).itemsize
        start = self.address + (self._size - size if at_end else 0)
        return np.frombuffer((ctypes.c_char * size).from_address(start), kind)


def ranges(block: int) -> Iterator[tuple[int, int]]:
    """Ranges of true masks: every length at either end of a short block, some of a long one."""
    lengths = range(block + 1) if block == BLOCK else (0, 1, 3, 31, 32, 33, 65, 500, 991, 1023)
    for length in lengths:
        yield from {(0, length), (block - length, block)}


def check(call: Callable[..., None], kind: type, block: int, excess: int, source: Guarded, sink: Guarded) -> int:
    """Copy each range of `ranges` from page to page, at either end of both; gives how many."""
    done = 0
    for (low, high), at_end in itertools.product(ranges(block), (False, True)):
        count = high - low
        x, o = (page.elements(kind, count, at_end) for page in (source, sink))
        x.view(np.uint8)[...] = np.arange(x.nbytes) % 251
        o.view(np.uint8)[...] = POISON
        before = low * x.itemsize
        call(x.ctypes.data - before, low, high + excess, o.ctypes.data - before)
        assert x.tobytes() == o.tobytes(), (kind, block, low, high)
        done += 1
    return done


def check_transpose(call: Callable[..., None], kind: type, rows: int, columns: int, pages: list[Guarded]) -> int:
    """Transpose matrices of ``rows`` rows and up to ``columns`` columns from page to page; gives how many."""
    for count in range(1, columns + 1):
        x, o = (page.elements(kind, rows * count, at_end=True) for page in pages)
        x.view(np.uint8)[...] = np.arange(x.nbytes) % 251
        call(x.ctypes.data, count, o.ctypes.data)
        assert x.reshape(rows, count).T.tobytes() == o.tobytes(), (kind, rows, count)
    return columns


def main(excess: int) -> None:
    """Copy all types, blocks and ranges."""
    source, sink, done = Guarded(), Guarded(), 0
    for (name, kind), block, kernel in itertools.product(KINDS.items(), (BLOCK, LONG_BLOCK), (copy, gather)):
        kinds = {"x": f"*{name}", "low": "i32", "high": "i32", "o": f"*{name}"}
        launch = on_host(KernelCase(kernel, kinds, {"B": block}, (), np.zeros(0)), target.host())
        done += check(lambda *a, launch=launch: launch(*a, 1, 1, 1, 1), kind, block, excess, source, sink)
    for (name, kind), (rows, columns) in itertools.product(KINDS.items(), ((4, 4), (8, 16), (32, 32))):
        kinds = {"x": f"*{name}", "columns": "i32", "o": f"*{name}"}
        launch = on_host(KernelCase(transpose, kinds, {"K": rows, "N": columns}, (), np.zeros(0)), target.host())
        done += check_transpose(lambda *a, launch=launch: launch(*a, 1, 1, 1, 1), kind, rows, columns, [source, sink])
    print(done)


if __name__ == "__main__":
    main(int(sys.argv[1]))
