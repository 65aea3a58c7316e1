"""Kernels of scalars, and functions that they call."""

import triton
import triton.language as tl


@triton.jit
def square(x):
    return x * x


@triton.jit
def copy_kernel(x, y):
    i = tl.program_id(0)
    tl.store(y + i, tl.load(x + i))


@triton.jit
def affine_kernel(x, y, factor, offset=7, SQUARE: tl.constexpr = False):
    i = tl.program_id(0)
    value = tl.load(x + i)
    if SQUARE:
        value = square(value)
    tl.store(y + i, value * factor + offset)


@triton.jit(do_not_specialize=["n"])
def count_kernel(y, n):
    tl.store(y + tl.program_id(0), n)


@triton.jit
def scalar_kernel(y, value):
    tl.store(y, value.to(tl.float64))


@triton.jit
def integer_kernel(y, value):
    tl.store(y, value.to(tl.int64, bitcast=False))


@triton.jit
def annotated_kernel(y, half: tl.float16, brain: tl.bfloat16, wide: tl.float64, flag: tl.int1):
    tl.store(y, half.to(tl.float64))
    tl.store(y + 1, brain.to(tl.float64))
    tl.store(y + 2, wide)
    tl.store(y + 3, flag.to(tl.float64))


@triton.jit
def tuple_kernel(pair, value):
    tl.store(pair[0], pair[1] + value)


@triton.jit
def optional_kernel(x, y):
    if x is None:
        tl.store(y, 1)
    else:
        tl.store(y, tl.load(x))


@triton.jit
def place_kernel(y):
    x, z = tl.program_id(0), tl.program_id(2)
    row = (z * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + x
    tl.store(y + row, 100 * x + 10 * tl.program_id(1) + z)


@triton.jit
def unsupported_kernel(y):
    tl.store(y, 0)
    tl.atomic_add(y, 1)


@triton.autotune(configs=[triton.Config({"OFFSET": 1}, num_warps=1), triton.Config({"OFFSET": 2}, num_warps=8)], key=[])
@triton.jit
def tuned_kernel(y, OFFSET: tl.constexpr):
    tl.store(y + tl.program_id(0), OFFSET)


@triton.heuristics({"DOUBLE": lambda arguments: 2 * arguments["n"]})
@triton.jit
def heuristic_kernel(y, n, DOUBLE: tl.constexpr):
    tl.store(y, DOUBLE + n)


KERNELS = [
    copy_kernel, affine_kernel, count_kernel, scalar_kernel, integer_kernel, annotated_kernel, tuple_kernel,
    optional_kernel, place_kernel, unsupported_kernel, tuned_kernel.fn, heuristic_kernel.fn,
]  # fmt: skip
