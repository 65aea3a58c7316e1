"""How long the kernels of linears take to compile, and to load from Triton's cache, each in fresh processes."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from hf_tle_int8 import execution
from hf_tle_int8.backend.prepared import prepare
from hf_tle_int8.bench.timing import Times, seconds


@dataclass(frozen=True)
class Result:
    """One kernel, all in seconds.

    Attributes:
        kernel: as `execution.kernels` calls it.
        cold: to compile it, with nothing in the cache.
        cached: to load it from the cache.
        once: what a process pays before, with the cache: for Triton's digests and for starting LLVM.
    """

    kernel: str
    cold: Times
    cached: Times
    once: Times


@triton.jit
def _first(x, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    total = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, n, BLOCK):
        total += tl.load(x + start + tl.arange(0, BLOCK))
    tl.store(x + tl.arange(0, BLOCK), total)


def measure(
    kernels: Sequence[str], dtype: torch.dtype, processes: int, progress: Callable[[str], None]
) -> list[Result]:
    """Compile and load each kernel in ``processes`` pairs of processes, each pair with a new and empty cache.

    Args:
        kernels: names that `execution.kernels` gives.
        dtype: of input, result and bias.
        processes: at least 1.
        progress: told what is being measured.

    Raises:
        RuntimeError: one of the processes failed; with what it wrote.
    """
    found = []
    for kernel in kernels:
        progress(kernel)
        pairs = [_pair(kernel, dtype) for _ in range(processes)]
        cold, cached, once = ([pair[part] for pair in pairs] for part in range(3))
        found.append(Result(kernel, _times(cold), _times(cached), _times(once)))
    return found


def _times(values: Sequence[float]) -> Times:
    return Times(min(values), statistics.median(values))


def _pair(kernel: str, dtype: torch.dtype) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as cache:
        _, cold = _process(kernel, dtype, cache)
        once, cached = _process(kernel, dtype, cache)
    return cold, cached, once


def _process(kernel: str, dtype: torch.dtype, cache: str) -> tuple[float, float]:
    """Seconds before ``kernel`` and for it, in a new process."""
    command = [sys.executable, "-m", __name__, kernel, str(dtype).removeprefix("torch."), cache]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    if output.returncode:
        raise RuntimeError(f"the process that compiles {kernel} ended with {output.returncode}:\n{output.stderr}")
    once, own = output.stdout.split()
    return float(once), float(own)


def _main(kernel: str, dtype: str, cache: str) -> None:
    """What `_process` runs."""
    triton.knobs.cache.dir = cache
    compile_kernel = execution.kernels(getattr(torch, dtype), getattr(torch, dtype))[kernel]
    start = time.perf_counter()
    prepare(_first, {"x": "*i32", "n": "i32"}, {"BLOCK": 8}, execution.target())
    print(time.perf_counter() - start, seconds(compile_kernel))


if __name__ == "__main__":
    _main(*sys.argv[1:])
