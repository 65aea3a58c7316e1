"""Products of matrices by Triton kernels beside torch's own, and rows by packed int8 weights.

OMP_NUM_THREADS=1 python tests/benchmarks/matmul.py [rounds]

On one thread, interleaved: the least and the median of all rounds in milliseconds; a ratio above 1 is faster.

- fp32 1024 x 1024 x 1024: the kernel of Triton's tutorial in tiles of several sizes, and torch.mm.
- int8: the whole linear of this project (quantize, multiply, rescale; bf16), torch._int_mm (of int8 operands, nothing
  else) and torch's dynamically quantized linear (fp32) on oneDNN, where this build of torch has that.
- one row by packed weights: the share of the bandwidth at which this machine reads memory, caches flushed before.
"""

import sys

import torch
import triton
import triton.language as tl

from hf_tle_int8 import arithmetic
from hf_tle_int8.backend.prepared import prepare
from hf_tle_int8.backend.target import current
from hf_tle_int8.bench.machine import streaming_bandwidth
from hf_tle_int8.bench.peers import ours
from hf_tle_int8.bench.timing import Flush, Task, Times, interleaved

SIZE = 1024
TILES = ((32, 32, 32), (64, 64, 32), (64, 64, 64), (128, 128, 32))
# M, N, K.
LINEARS = ((128, 2048, 2048), (128, 8960, 1536))
ROWS = ((1, 2048, 2048), (1, 8960, 1536))


@triton.jit
def matmul(
    a, b, c, M, N, K, stride_a, stride_b, stride_c, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):
    """``c [M, N] = a [M, K] @ b [K, N]`` in fp32."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    from_a = a + rows[:, None] * stride_a + inner[None, :]
    from_b = b + inner[:, None] * stride_b + columns[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, K, BLOCK_K):
        left = tl.load(from_a, mask=inner[None, :] < K - k, other=0.0)
        right = tl.load(from_b, mask=inner[:, None] < K - k, other=0.0)
        sums = tl.dot(left, right, sums)
        from_a += BLOCK_K
        from_b += BLOCK_K * stride_b
    mask = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(c + rows[:, None] * stride_c + columns[None, :], sums, mask=mask)


def float_tasks() -> dict[str, Task]:
    """torch.mm and the kernel in each size of tile, checked against each other."""
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    expected, found = torch.empty(SIZE, SIZE), torch.empty(SIZE, SIZE)
    tasks: dict[str, Task] = {"torch.mm": lambda: torch.mm(a, b, out=expected)}
    tasks["torch.mm"]()
    for tile in TILES:
        signature = dict.fromkeys("abc", "*fp32")
        signature |= dict.fromkeys(("M", "N", "K", "stride_a", "stride_b", "stride_c"), "i32")
        blocks = dict(zip(("BLOCK_M", "BLOCK_N", "BLOCK_K"), tile, strict=True))
        entry = prepare(matmul, signature, blocks, current())
        grid = (SIZE // tile[0], SIZE // tile[1], 1)

        def task(entry=entry, grid=grid) -> None:
            entry.call(a.data_ptr(), b.data_ptr(), found.data_ptr(), *[SIZE] * 6, *grid, torch.get_num_threads())

        found.fill_(torch.nan)
        task()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
        tasks[f"tiles of {'x'.join(map(str, tile))}"] = task
    return tasks


def int8_tasks(m: int, n: int, k: int) -> dict[str, Task]:
    """Ways to multiply ``[m, k]`` by an int8 ``[n, k]``; this project's first, checked against the reference."""
    weight, x = torch.randn(n, k) * 0.02, torch.randn(m, k)
    layer, rows, (q, scale) = ours.PEER.build(weight), x.bfloat16(), arithmetic.quantize_weight(weight)
    torch.testing.assert_close(layer.run(rows), arithmetic.int8_linear(rows, q, scale, None), rtol=0.01, atol=0.01)
    codes = arithmetic.quantize_activation(x)[0]
    tasks: dict[str, Task] = {
        "hf_tle_int8, bf16": lambda: layer.run(rows),
        "torch._int_mm": lambda: torch._int_mm(codes, q.T),
    }
    if "onednn" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "onednn"
        linear = torch.nn.Linear(k, n, bias=False)
        linear.weight.data.copy_(weight)
        dynamic = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear}, torch.qint8)
        tasks["torch dynamic, oneDNN"] = lambda: dynamic(x)
    return tasks


def show(title: str, times: dict[str, Times], base: str, operations: float) -> None:
    """Print a table; ``base`` is what ratios are to."""
    print(f"\n{title:<34}{'min ms':>9}{'median':>9}{'ratio':>8}{'GOPS':>8}")
    for name, found in times.items():
        ratio = times[base].minimum / found.minimum
        columns = f"{1e3 * found.minimum:>9.3f}{1e3 * found.median:>9.3f}{ratio:>8.2f}"
        print(f"{name:<34}{columns}{operations / found.minimum / 1e9:>8.1f}", flush=True)


def main() -> None:
    """Time everything on one thread."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"triton {triton.__version__}, torch {torch.__version__}, compiled for {current().name}, one thread")
    show(f"fp32 {SIZE} x {SIZE} x {SIZE}", interleaved(float_tasks(), rounds), "torch.mm", 2 * SIZE**3)
    for m, n, k in LINEARS:
        times = interleaved(int8_tasks(m, n, k), rounds)
        show(f"int8 {m} x {n} x {k}", times, "torch._int_mm", 2 * m * n * k)
    bandwidth = streaming_bandwidth(current(), 1)
    flush = Flush()
    print(f"\nmemory is read at {bandwidth / 1e9:.1f} GB/s")
    for m, n, k in ROWS:
        times = interleaved(int8_tasks(m, n, k), rounds, lambda _: flush())
        show(f"int8 {m} x {n} x {k}, cold", times, "torch._int_mm", 2 * m * n * k)
        share = n * k / times["hf_tle_int8, bf16"].minimum / bandwidth
        print(f"hf_tle_int8 reads the weights at {share:.0%} of the bandwidth")


if __name__ == "__main__":
    main()
