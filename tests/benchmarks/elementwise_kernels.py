"""Memory-bound Triton kernels beside torch's own: vector add, softmax and layer norm on 64 MB of fp32.

python tests/benchmarks/elementwise_kernels.py [rounds]

Layer norm allocates its output, ours and torch's. To leave out the page faults of that, let memory be used again:

MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 python tests/benchmarks/elementwise_kernels.py

Prints for one thread and two the best and the median of interleaved runs in milliseconds, and the speed relative to
torch's, by the best: above 1 is faster than torch.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import triton
import triton.language as tl

sys.path.insert(0, str(Path(__file__).parents[1] / "backend"))
from plugin_support import registered

ROWS, COLUMNS = 4096, 4096
NARROW = 3000


@triton.jit
def add(x, y, o, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(o + i, tl.load(x + i, mask=m) + tl.load(y + i, mask=m), mask=m)


@triton.jit
def softmax(x, o, n, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + i, mask=i < n, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(o + row * n + i, e / tl.sum(e, 0), mask=i < n)


@triton.jit
def layer_norm(x, w, b, o, n, eps, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    m = i < n
    v = tl.load(x + row * n + i, mask=m, other=0.0)
    centred = tl.where(m, v - tl.sum(v, 0) / n, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 0) / n + eps)
    tl.store(o + row * n + i, centred * scale * tl.load(w + i, mask=m) + tl.load(b + i, mask=m), mask=m)


Way = Callable[[], torch.Tensor]


def launcher(kernel: triton.JITFunction, programs: int, *arguments: object, block: int) -> Way:
    """Runs a kernel whose parameter ``o`` is its output."""
    output = arguments[kernel.arg_names.index("o")]
    assert isinstance(output, torch.Tensor)

    def run() -> torch.Tensor:
        kernel[(programs,)](*arguments, B=block)
        return output

    return run


def cases() -> dict[str, tuple[Way, Way]]:
    """For each name ours and torch's."""
    x, y, ours, theirs = (torch.randn(ROWS, COLUMNS) for _ in range(4))
    w, b = torch.randn(COLUMNS), torch.randn(COLUMNS)
    narrow, narrow_ours, narrow_theirs = (t.view(-1)[: ROWS * NARROW].view(ROWS, NARROW) for t in (x, ours, theirs))

    def norm() -> torch.Tensor:
        out = torch.empty_like(x)
        layer_norm[(ROWS,)](x, w, b, out, COLUMNS, 1e-5, B=COLUMNS)
        return out

    found: dict[str, tuple[Way, Way]] = {}
    for block in (1024, 4096):
        way = launcher(add, x.numel() // block, x, y, ours, x.numel(), block=block)
        found[f"add, BLOCK {block}"] = way, lambda: torch.add(x, y, out=theirs)
    found[f"softmax, {ROWS} x {COLUMNS}"] = (
        launcher(softmax, ROWS, x, ours, COLUMNS, block=COLUMNS),
        lambda: torch.softmax(x, 1, out=theirs),
    )
    found[f"softmax, {ROWS} x {NARROW}"] = (
        launcher(softmax, ROWS, narrow, narrow_ours, NARROW, block=triton.next_power_of_2(NARROW)),
        lambda: torch.softmax(narrow, 1, out=narrow_theirs),
    )
    found[f"layer norm, {ROWS} x {COLUMNS}"] = norm, lambda: torch.nn.functional.layer_norm(x, [COLUMNS], w, b)
    return found


def seconds(way: Way) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def main() -> None:
    """Check each kernel against torch, then time the two in turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"triton {triton.__version__}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print(f"{'(ms)':>28}{'ours: min':>12}{'median':>9}{'torch: min':>12}{'median':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as cache, registered():
        triton.knobs.cache.dir = cache
        everything = cases()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for name, (ours, theirs) in everything.items():
                torch.testing.assert_close(ours(), theirs())
                pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
                mine, other = ([1e3 * t for t in times] for times in zip(*pairs, strict=True))
                columns = f"{min(mine):>12.2f}{statistics.median(mine):>9.2f}"
                columns += f"{min(other):>12.2f}{statistics.median(other):>9.2f}{min(other) / min(mine):>7.2f}"
                print(f"{name:>24} x{threads} {columns}", flush=True)


if __name__ == "__main__":
    main()
