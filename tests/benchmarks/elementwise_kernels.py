"""Memory-bound Triton kernels beside torch's own: vector add, softmax and layer norm on 64 MB of fp32.

python tests/benchmarks/elementwise_kernels.py [rounds]

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


Way = Callable[[], object]


def cases() -> dict[str, tuple[Way, Way, torch.Tensor, torch.Tensor]]:
    """For each name: ours, torch's, and what the two write."""
    x, y = torch.randn(ROWS, COLUMNS), torch.randn(ROWS, COLUMNS)
    w, b = torch.randn(COLUMNS), torch.randn(COLUMNS)
    ours, theirs = torch.empty_like(x), torch.empty_like(x)
    narrow = x.view(-1)[: ROWS * NARROW].view(ROWS, NARROW)
    narrow_ours, narrow_theirs = (t.view(-1)[: ROWS * NARROW].view(ROWS, NARROW) for t in (ours, theirs))
    norm = torch.empty_like(x)

    def torch_norm() -> None:
        torch.ops.aten.native_layer_norm.out(x, [COLUMNS], w, b, 1e-5, out0=norm, out1=moments[0], out2=moments[1])

    moments = [torch.empty(ROWS, 1), torch.empty(ROWS, 1)]
    found: dict[str, tuple[Way, Way, torch.Tensor, torch.Tensor]] = {}
    for block in (1024, 4096):
        grid = (x.numel() // block,)
        found[f"add, BLOCK {block}"] = (
            lambda block=block, grid=grid: add[grid](x, y, ours, x.numel(), B=block),
            lambda: torch.add(x, y, out=theirs),
            ours,
            theirs,
        )
    found[f"softmax, {ROWS} x {COLUMNS}"] = (
        lambda: softmax[(ROWS,)](x, ours, COLUMNS, B=COLUMNS),
        lambda: torch.softmax(x, 1, out=theirs),
        ours,
        theirs,
    )
    found[f"softmax, {ROWS} x {NARROW}"] = (
        lambda: softmax[(ROWS,)](narrow, narrow_ours, NARROW, B=4096),
        lambda: torch.softmax(narrow, 1, out=narrow_theirs),
        narrow_ours,
        narrow_theirs,
    )
    found[f"layer norm, {ROWS} x {COLUMNS}"] = (
        lambda: layer_norm[(ROWS,)](x, w, b, ours, COLUMNS, 1e-5, B=COLUMNS),
        torch_norm,
        ours,
        norm,
    )
    return found


def seconds(way: Way) -> float:
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
            for name, (ours, theirs, got, wanted) in everything.items():
                ours()
                theirs()
                torch.testing.assert_close(got, wanted)
                pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
                mine, other = ([1e3 * t for t in times] for times in zip(*pairs, strict=True))
                columns = f"{min(mine):>12.2f}{statistics.median(mine):>9.2f}"
                columns += f"{min(other):>12.2f}{statistics.median(other):>9.2f}{min(other) / min(mine):>7.2f}"
                print(f"{name:>24} x{threads} {columns}", flush=True)


if __name__ == "__main__":
    main()
