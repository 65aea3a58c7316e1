"""How long the kernels of the INT8 linears take to compile, and to load from Triton's cache.

python tests/benchmarks/compile_time.py [processes]

Each figure is of a fresh process, beside the limits of the project: 0.5 s to compile and 20 ms to load the kernel that
takes longest. What a process pays once (Triton's digest of itself, this backend's digest, starting LLVM) is paid by
another kernel before, and shown as such.
"""

import os
import statistics
import subprocess
import sys
import tempfile

COLD_LIMIT, CACHED_LIMIT = 0.5, 0.020
# Compiles one kernel by its number, and prints its name, the seconds of the kernel before and its own.
SCRIPT = """
import sys, time
import torch
from hf_tle_int8 import dispatch, execution
from hf_tle_int8.kernels import linear, quantize
from hf_tle_int8.bench import machine
layout = execution.layout()
tiles = [("gemv", *tile) for tile in layout.gemv] + [("gemm", *layout.gemm)]
if len(sys.argv) == 1:
    sys.exit(print(len(tiles) + 1))
number = int(sys.argv[1])
start = time.perf_counter()
signature, values = {"x": "*i32", "sums": "*i32", "n": "i64"}, {"STREAMS": 1, "BLOCK": 8}
machine.prepare(machine._read, signature, values, execution.target())
once, start = time.perf_counter() - start, time.perf_counter()
if number == len(tiles):
    name = "quantize"
    execution._quantizer(torch.bfloat16, layout.gemm[0] if layout.interleaved else 1)
else:
    kernel, rows, columns = tiles[number]
    name = f"{kernel} {rows}x{columns}"
    choice = dispatch.Choice(kernel, rows, columns, rows if layout.interleaved else 1, 1, 1)
    execution._linear(kernel, torch.bfloat16, torch.bfloat16, choice)
print(name, once, time.perf_counter() - start, sep=",")
"""


def run(cache: str, *arguments: str) -> str:
    """What the script prints in a fresh process."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    environment = {**os.environ, "TRITON_CACHE_DIR": cache}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def measured(number: str, processes: int) -> tuple[str, list[float], list[float], list[float]]:
    """The name of a kernel, its seconds cold and cached, and those of the kernel before, cached."""
    name, cold, cached, before = "", [], [], []
    for _ in range(processes):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(float(run(folder, number).split(",")[2]))
            name, once, elapsed = run(folder, number).split(",")
            cached.append(float(elapsed))
            before.append(float(once))
    return name, cold, cached, before


def main() -> None:
    """Print for each kernel the least and the median, cold and cached."""
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        kernels = range(int(run(folder)))
    print(f"{f'seconds, {processes} processes':<24}{'cold: min':>10}{'median':>8}{'cached: min':>13}{'median':>8}")
    once: list[float] = []
    worst = {COLD_LIMIT: 0.0, CACHED_LIMIT: 0.0}
    for number in kernels:
        name, *times, before = measured(str(number), processes)
        once += before
        (cold, middle), (cached, middle_cached) = ((min(found), statistics.median(found)) for found in times)
        print(f"{name:<24}{cold:>10.3f}{middle:>8.3f}{cached:>13.4f}{middle_cached:>8.4f}", flush=True)
        worst = {limit: max(worst[limit], found) for limit, found in zip(worst, (cold, cached), strict=True)}
    print(f"once in a process, with the cache: {min(once):.3f} s at least, {statistics.median(once):.3f} in the median")
    for title, (limit, found) in zip(("cold", "cached"), worst.items(), strict=True):
        print(f"{title}: {found:.3f} s at most, limit {limit} s: {'kept' if found <= limit else 'NOT KEPT'}")


if __name__ == "__main__":
    main()
