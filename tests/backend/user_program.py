"""A program as users write them: it imports torch and Triton, and its kernels run on tensors of the CPU."""

import sys

import torch
import triton
import triton.language as tl


@triton.jit
def scaled(value, factor):
    return value * factor


@triton.jit
def add_kernel(x, y, out, n, factor=1.0, BLOCK: tl.constexpr = 128):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, scaled(tl.load(x + i, mask) + tl.load(y + i, mask), factor), mask)


@triton.heuristics({"BLOCK": lambda arguments: triton.next_power_of_2(arguments["n"])})
@triton.jit
def softmax_kernel(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = tl.program_id(0) * n
    value = tl.load(x + row + i, i < n, other=-float("inf"))
    exponential = tl.exp(value - tl.max(value, 0))
    tl.store(out + row + i, exponential / tl.sum(exponential, 0), i < n)


@triton.autotune(configs=[triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 256}, num_warps=8)], key=["n"])
@triton.jit
def negate_kernel(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, -tl.load(x + i, i < n), i < n)


@triton.jit(do_not_specialize=["value"])
def fill_kernel(out, value, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, value, i < n)


def main() -> None:
    """Run each kernel and compare it with torch."""
    n = 1000
    x, y, out = torch.randn(n), torch.randn(n), torch.empty(n)
    grid = (triton.cdiv(n, 128),)
    compiled = add_kernel.warmup(x, y, out, n, grid=grid)
    assert "fadd" in compiled.asm["llir"]
    add_kernel[grid](x, y, out, n)
    assert torch.equal(out, x + y)
    add_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, y, out, n, factor=2.0, BLOCK=512)
    assert torch.equal(out, (x + y) * 2)

    rows, probabilities = torch.randn(7, n), torch.empty(7, n)
    softmax_kernel[(7,)](rows, probabilities, n)
    torch.testing.assert_close(probabilities, rows.softmax(1))

    negate_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, out, n)
    assert torch.equal(out, -x)
    assert negate_kernel.best_config in negate_kernel.configs

    counts = torch.empty(8, dtype=torch.int64)
    first, second = (fill_kernel[(1,)](counts, value, 8, BLOCK=8) for value in (1, 16))
    assert first is second
    assert counts.tolist() == [16] * 8
    assert triton.testing.do_bench(lambda: fill_kernel[(1,)](counts, 3, 8, BLOCK=8), warmup=1, rep=2) > 0

    assert not {"transformers", "hf_tle_int8.config"} & set(sys.modules)
    print("all equal")


if __name__ == "__main__":
    main()
