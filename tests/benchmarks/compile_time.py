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
from pathlib import Path

COLD_LIMIT, CACHED_LIMIT = 0.5, 0.020
# Compiles one kernel by its number, and prints its name, the seconds of the kernel before and its own.
SCRIPT = """
import sys, time
import machine_model
import torch
from hf_tle_int8.backend.prepared import prepare
from hf_tle_int8.backend.target import current
from hf_tle_int8.bench import machine
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, constexprs, scheme
from hf_tle_int8.kernels.linear import gemm
from hf_tle_int8.kernels.quantize import quantize
target = current()
layout, kernels = scheme(target), []
for choice in machine_model.choices(target):
    multiplied = {**constexprs(layout, choice), "HAS_BIAS": True}
    kernels.append((f"gemm {choice.tile_m}x{choice.tile_n}", gemm, machine_model.SIGNATURE, multiplied))
    values = {"ROWS": choice.rows, "GROUP": layout.packing.group, "BLOCK": QUANTIZED_BLOCK, "FLIPPED": layout.flipped}
    types = {"x": "*bf16", "stride": "i64", "q": "*i8", "scale": "*fp32", "M": "i32", "K": "i32", "K_PADDED": "i32"}
    kernels.append((f"quantize {choice.rows}", quantize, types, values))
kernels = list({name: (name, *rest) for name, *rest in kernels}.values())
if len(sys.argv) == 1:
    sys.exit(print(len(kernels)))
name, kernel, signature, values = kernels[int(sys.argv[1])]
start = time.perf_counter()
prepare(machine._read, {"x": "*i32", "sums": "*i32", "n": "i64"}, {"STREAMS": 1, "BLOCK": 8}, target)
once, start = time.perf_counter() - start, time.perf_counter()
prepare(kernel, signature, values, target)
print(name, once, time.perf_counter() - start, sep=",")
"""


def run(cache: str, *arguments: str) -> str:
    """What the script prints in a fresh process."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "TRITON_CACHE_DIR": cache, "PYTHONPATH": path}
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
