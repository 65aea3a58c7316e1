"""How linears scale from one thread to several: this project's, by both schedules, beside torch's in fp32 and bf16.

    python tests/benchmarks/thread_scaling.py [--rounds 15] [--threads 2] [--record docs/benchmarks]
    OMP_PROC_BIND=true python tests/benchmarks/thread_scaling.py --busy

Prints a Markdown table for every shape, of tasks that take turns. With --busy, another process runs without a pause on
the CPU of the last thread, and takes about half of it: cores of unlike speed, as far as one machine can imitate them.
Times are then medians, as the least ones are of rounds that the other process happened not to disturb.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import recording
import torch
from torch import Tensor

from hf_tle_int8 import arithmetic
from hf_tle_int8.backend import schedule
from hf_tle_int8.backend.prepared import prepare
from hf_tle_int8.backend.target import current
from hf_tle_int8.bench.layer import float_linear
from hf_tle_int8.bench.timing import Task, Times, interleaved
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, choose, constexprs, scheme
from hf_tle_int8.kernels.linear import gemm
from hf_tle_int8.kernels.quantize import quantize
from hf_tle_int8.report import environment

# M x N x K.
SHAPES = ("128x2048x2048", "512x4096x4096")
SCHEDULES = (schedule.EVEN, schedule.DYNAMIC)
FACTS = ("CPU", "usable CPUs", "kernels compiled for", "torch", "triton", "llvmlite")
BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def int8_task(name: str, x: Tensor, q: Tensor, scale: Tensor) -> tuple[Task, Tensor]:
    """The kernels of a linear for many rows, by one schedule, as the package calls them; and where the result is."""
    (m, k), n, target = x.shape, len(q), current()
    layout = scheme(target)
    choice = choose(m, n, k, layout, torch.get_num_threads())
    panels, padded, size = layout.packing.pack(q), layout.packing.padded(n, k)[1], -(-m // choice.tile_m)
    os.environ[schedule.VARIABLE] = name
    schedule.current.cache_clear()
    common = {"stride": "i64", "q": "*i8", **dict.fromkeys(("M", "N", "K", "K_PADDED"), "i32")}
    values = {"ROWS": choice.rows, "GROUP": layout.packing.group, "BLOCK": QUANTIZED_BLOCK, "FLIPPED": choice.flipped}
    first = prepare(quantize, {**common, "x": "*bf16", "scale": "*fp32"}, values, target)
    pointers = {"w": "*i8", "y": "*bf16", **dict.fromkeys(("scale_x", "scale_w", "bias"), "*fp32")}
    second = prepare(gemm, {**common, **pointers}, {**constexprs(layout, choice), "HAS_BIAS": False}, target)
    codes, scales = torch.empty(size * choice.tile_m * padded, dtype=torch.int8), torch.empty(size * choice.tile_m)
    y = torch.empty(m, n, dtype=torch.bfloat16)

    def task() -> None:
        threads, groups = torch.get_num_threads(), -(-m // choice.rows)
        room = codes.data_ptr(), scales.data_ptr()
        first.call(x.data_ptr(), k, *room, m, k, padded, groups, 1, 1, threads)
        operands = *room, panels.data_ptr(), scale.data_ptr(), 0, y.data_ptr()
        second.call(*operands, n, m, n, padded, size, -(-n // choice.tile_n), 1, threads)

    return task, y


def tasks(m: int, n: int, k: int) -> dict[str, Task]:
    """Linears of every kind, those of this project checked against the reference."""
    weight, x = torch.randn(n, k) * 0.02, torch.randn(m, k)
    q, scale = arithmetic.quantize_weight(weight)
    expected = arithmetic.int8_linear(x.bfloat16(), q, scale, None)
    found: dict[str, Task] = {}
    for name in SCHEDULES:
        task, y = int8_task(name, x.bfloat16(), q, scale)
        task()
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
        found[f"hf_tle_int8, {name}"] = task
    for dtype in (torch.float32, torch.bfloat16):
        layer, rows = float_linear(weight, dtype), x.to(dtype)
        found[f"torch {str(dtype).removeprefix('torch.')}"] = lambda layer=layer, rows=rows: layer(rows)
    return found


def on(threads: int, task: Task) -> Task:
    """The task on so many threads."""

    def run() -> None:
        torch.set_num_threads(threads)
        task()

    return run


@contextlib.contextmanager
def busy(cpu: int) -> Iterator[None]:
    """A process that occupies a CPU."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(cpu)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def records(shape: str, times: dict[str, Times], threads: int, busily: bool) -> list[dict[str, object]]:
    """One for each kind of linear of a shape: milliseconds on one thread and on all."""
    found = []
    for name in dict.fromkeys(key.rsplit(" on ", 1)[0] for key in times):
        one, several = times[f"{name} on 1"], times[f"{name} on {threads}"]
        before, after = (one.median, several.median) if busily else (one.minimum, several.minimum)
        found.append({
            "m x n x k": shape, "peer": name, "one_thread_ms": recording.rounded(1e3 * before),
            "all_threads_ms": recording.rounded(1e3 * after), "times_as_fast": recording.rounded(before / after),
        })  # fmt: skip
    return found


def table(found: list[dict[str, object]], threads: int) -> Iterator[str]:
    """Of one shape."""
    yield f"| | 1 thread, ms | {threads} threads, ms | times as fast |"
    yield "|---|---|---|---|"
    for record in found:
        cells = (record[key] for key in ("peer", "one_thread_ms", "all_threads_ms", "times_as_fast"))
        yield f"| {' | '.join(map(str, cells))} |"


@torch.no_grad()
def main() -> None:
    """Time every shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--busy", action="store_true")
    recording.add_options(parser)
    options = parser.parse_args()
    if options.threads < 2:
        parser.error(f"--threads {options.threads}: at least two are needed to compare with one.")
    if options.busy and os.environ.get("OMP_PROC_BIND") != "true":
        parser.error("--busy needs threads that stay on their CPUs: set OMP_PROC_BIND=true.")
    facts = environment()
    print("; ".join(f"{name}: {facts[name]}" for name in FACTS))
    print(f"load average {os.getloadavg()[0]:.1f} before, {options.rounds} rounds")
    torch.manual_seed(0)
    every_record = []
    for shape in options.shapes:
        torch.set_num_threads(options.threads)
        found = tasks(*map(int, shape.split("x")))
        every = {f"{name} on {n}": on(n, task) for name, task in found.items() for n in (1, options.threads)}
        with busy(options.threads - 1) if options.busy else contextlib.nullcontext():
            # Who has slept is seldom interrupted at once, on a machine that others use.
            times = interleaved(every, options.rounds, before=lambda _: time.sleep(0.05))
        measured = records(shape, times, options.threads, options.busy)
        every_record += measured
        print(f"\n{shape}\n", *table(measured, options.threads), sep="\n", flush=True)
    recording.write(options, "scaling-busy" if options.busy else "scaling", every_record, options.threads)


if __name__ == "__main__":
    main()
