"""What the inner loops of products are made of: a product can be right and twenty times too slow."""

import re

import numpy as np
import pytest
import triton
import triton.language as tl
from machine_code import count, innermost_loop, pieces
from tensor_kernels import KernelCase

from hf_tle_int8 import dispatch
from hf_tle_int8.backend import target
from hf_tle_int8.kernels.linear import gemm

STACK = r".*%rsp|.*%rbp|.*\[sp|.*x29"
INT8 = {"smmla": "smmla", "sdot": "sdot", "vpdpbusd": "({vex} )?vpdpbusd", "vpmaddubsw": "vpmaddubsw"}
WIDENING = {"aarch64": "smull", "x86_64": "vpmaddwd"}
# Target and type: the instruction, and the rows and the k that it takes.
FLOATS = {("neon-i8mm", "bf16"): ("bfmmla", 2, 4), ("avx512bf16", "bf16"): ("vdpbf16ps", 1, 2)}
FLOATS["amx", "bf16"] = FLOATS["avx512bf16", "bf16"]
for _name, _target in target.TARGETS.items():
    for _kind in ("fp64", "fp32", "fp16", "bf16"):
        FLOATS.setdefault((_name, _kind), ("fmla" if _target.arch == "aarch64" else "vfmadd", 1, 1))
NEON = [name for name, found in target.TARGETS.items() if found.arch == "aarch64"]


@triton.jit
def packed(a, b, steps, K, o, M: tl.constexpr, N: tl.constexpr, R: tl.constexpr, G: tl.constexpr, S: tl.constexpr):
    """Rows lie in ``[M / R][K / G][R][G]``, columns in ``[K / G][N][G]``; S groups of k an iteration."""
    rows = a + tl.arange(0, M // R)[:, None] * (R * K) + tl.arange(0, S * R * G)[None, :]
    columns = b + tl.arange(0, S * N * G)
    sums = tl.zeros((M, N), o.dtype.element_ty)
    for _ in range(steps):
        x = tl.load(rows).reshape(M // R, S, R, G).permute(0, 2, 1, 3).reshape(M, S * G)
        y = tl.load(columns).reshape(S, N, G).permute(0, 2, 1).reshape(S * G, N)
        sums = tl.dot(x, y, sums, out_dtype=sums.dtype)
        rows += S * R * G
        columns += S * N * G
    tl.store(o + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :], sums)


def packed_case(name, kind):
    """Four rows by two vectors of columns: they and the operands are in registers on all targets."""
    _, rows, group = FLOATS[name, kind]
    out = "fp64" if kind == "fp64" else "fp32"
    signature = {"a": f"*{kind}", "b": f"*{kind}", "steps": "i32", "K": "i32", "o": f"*{out}"}
    columns = 2 * target.named(name).lanes(int(out[2:]))
    return KernelCase(packed, signature, {"M": 4, "N": columns, "R": rows, "G": group, "S": 4}, (), np.zeros(0))


def linear_case(name):
    """The kernel of an INT8 linear, with the tile for many rows."""
    chosen = target.named(name)
    layout = dispatch.scheme(chosen)
    constexprs = {**dispatch.constexprs(layout, dispatch.choose(1024, 1024, 1024, layout, 1)), "HAS_BIAS": False}
    integers = dict.fromkeys(("stride", "M", "N", "K"), "i32")
    kinds = {"q": "*i8", "scale_x": "*fp32", "w": "*i8", "scale_w": "*fp32", "bias": "*fp32", "y": "*fp32", **integers}
    return KernelCase(gemm, kinds, constexprs, (), np.zeros(0))


def loads(loop):
    """How many vectors and scalars are read; ldp reads two, and ldr of a general register fails. Constants are not."""
    assert not count(loop, r"ldr[bhsw ]* [wxbhs]\d|ld1")
    return count(loop, r"(ldu?r|ldp) [qd]") + count(loop, r"ldp [qd]") + count(loop, r".*\(%r(?!ip)")


def vector_loads(loop):
    return count(loop, r"(?!vp?broadcast)v\w+ [^$]*\(%r.*\), %[yz]mm\d+$")


@pytest.mark.parametrize(("name", "kind"), FLOATS)
def test_products_of_floats(name, kind):
    instruction, _, group = FLOATS[name, kind]
    case, chosen = packed_case(name, kind), target.named(name)
    loop = innermost_loop(case, name, instruction)
    assert not count(loop, STACK)
    m, n, steps = (case.constexprs[dimension] for dimension in "MNS")
    sums = m * n // chosen.lanes(64 if kind == "fp64" else 32)
    # One instruction for a group of k and a vector of sums.
    assert count(loop, instruction) == sums * steps
    # 16 bits that are converted to 32 are read by half vectors.
    element = int(kind.lstrip("bfp"))
    lanes = chosen.lanes(element if group > 1 else max(element, 32))
    columns = n * steps * group // lanes
    rows = m * steps * group // lanes if chosen.arch == "aarch64" else m * steps
    assert loads(loop) == rows + columns
    if chosen.arch == "x86_64":
        assert vector_loads(loop) == columns


def test_linears_in_tile_registers():
    loop = innermost_loop(linear_case("amx"), "amx", "tdpbssd")
    assert (count(loop, "tdpbssd"), count(loop, "tileloadd"), count(loop, "tilestored")) == (4, 4, 0)
    # A scalar that the function has no register for.
    assert count(loop, STACK) <= 1


@pytest.mark.parametrize("name", [name for name, found in target.TARGETS.items() if not found.tile_registers])
def test_linears(name):
    chosen, case = target.named(name), linear_case(name)
    instruction = INT8.get(chosen.int8_dot, WIDENING[chosen.arch])
    loop = innermost_loop(case, name, instruction)
    assert not count(loop, STACK)
    m, n, group, steps = (case.constexprs[name] for name in ("TILE_M", "TILE_N", "GROUP", "STEPS"))
    columns = n * group * steps // chosen.vector_bytes
    rows = m * group * steps // chosen.vector_bytes if chosen.arch == "aarch64" else m * steps
    assert loads(loop) == rows + columns
    sums = m * n * group * steps // chosen.vector_bytes
    # smmla takes two rows; vpdpbusd also sums the columns; others multiply even and odd k, or half vectors.
    times = {"smmla": sums // 2, "sdot": sums, "vpdpbusd": sums + columns, "vpmaddubsw": sums, "widening": 2 * sums}
    assert count(loop, instruction) == times[chosen.int8_dot]


@pytest.mark.parametrize("name", NEON)
def test_neon_code_is_neon_only(name):
    kinds = [kind for other, kind in FLOATS if other == name]
    for case in [linear_case(name), *(packed_case(name, kind) for kind in kinds)]:
        code = [instruction for piece in pieces(case, name) for instruction in piece]
        assert count(code, r".*\bv\d+\.")
        assert not count(code, r".*\b[zp]\d+[./]")
        called = {instruction.split()[1] for instruction in code if re.match(r"blr? ", instruction)}
        own = {f"{case.kernel.__name__}_{part}" for part in ("range", "grid")}
        assert called <= {"omp_get_thread_num", "omp_get_num_threads", "GOMP_parallel", *own}
