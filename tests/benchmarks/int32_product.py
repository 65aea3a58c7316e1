"""The exact int32 product of plain torch, beside other exact ways that torch has.

    OMP_NUM_THREADS=1 python tests/benchmarks/int32_product.py

Prints the best of several interleaved runs in milliseconds for each shape, and fp32 ``nn.Linear`` for scale.
"""

import time

import torch

from hf_tle_int8.arithmetic import int32_product

SHAPES = [(1, 2048, 2048), (1, 8192, 2048), (16, 2048, 2048), (128, 2048, 2048), (512, 2048, 2048)]
ROUNDS = 7


def main() -> None:
    """Time each way on each shape, interleaved, and check that all give the same integers."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print(f"{'M x N x K':>16}{'int32_product':>16}{'fp64 matmul':>14}{'_int_mm':>12}{'fp32 linear':>14}   (ms)")
    for m, n, k in SHAPES:
        x, w = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((m, k), (n, k)))
        float_x, float_w = x.float(), w.float()
        ways = [
            lambda x=x, w=w: int32_product(x, w),
            lambda x=x, w=w: (x.double() @ w.double().T).to(torch.int32),
            lambda x=x, w=w: torch._int_mm(x, w.T),
            lambda x=float_x, w=float_w: torch.nn.functional.linear(x, w),
        ]
        assert all(torch.equal(way(), ways[0]()) for way in ways[:3])
        best = [float("inf")] * len(ways)
        for _ in range(ROUNDS):
            for index, way in enumerate(ways):
                start = time.perf_counter()
                way()
                best[index] = min(best[index], time.perf_counter() - start)
        columns = "".join(f"{1e3 * seconds:>{width}.2f}" for seconds, width in zip(best, (16, 14, 12, 14), strict=True))
        print(f"{f'{m}x{n}x{k}':>16}{columns}", flush=True)


if __name__ == "__main__":
    main()
