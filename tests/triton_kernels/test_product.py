import ast
import functools

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from arm_emulation import CPU_OF_TARGET
from conftest import REPOSITORY
from kernel_runs import check_on_arm, on_host
from linear_runs import choices, host_targets
from support import int64_product
from tensor_kernels import KernelCase

from hf_tle_int8.arithmetic import int32_product
from hf_tle_int8.backend.target import named
from hf_tle_int8.dispatch import scheme
from hf_tle_int8.kernels.product import product
from hf_tle_int8.kernels.scheme import MAX_IN_FEATURES


@triton.jit
def sums(
    q, w, K, o, M: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
    STEPS: tl.constexpr, FLIPPED: tl.constexpr, SYMMETRIC: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(o + at, product(q, w, K, M, N, ROWS, COLUMNS, GROUP, STEPS, FLIPPED, SYMMETRIC))


def case(name, choice, rows, columns, expected):
    """The tile of a choice, of int8 ``rows [M, K]`` and ``columns [N, K]`` that fill it."""
    layout = scheme(named(name))
    packing, (m, k) = layout.packing, rows.shape
    q = rows.reshape(m // choice.rows, choice.rows, k // packing.group, packing.group).transpose(1, 2).flatten()
    panels = packing.pack(columns).flatten()[: choice.tile_n * k]
    values = {
        "M": m, "N": choice.tile_n, "ROWS": choice.rows, "COLUMNS": packing.columns, "GROUP": packing.group,
        "STEPS": choice.steps, "FLIPPED": choice.flipped, "SYMMETRIC": not (rows == -128).any(),
    }  # fmt: skip
    signature = {"q": "*i8", "w": "*i8", "K": "i32", "o": "*i32"}
    inputs = ((q ^ -128 if choice.flipped else q).numpy(), panels.numpy(), k)
    return KernelCase(sums, signature, values, inputs, expected.numpy().astype(np.int32))


@functools.cache
def cases(name):
    """Every tile: random int8 with many extremes, and nothing but extremes, with a few iterations.

    Each once as it is, and once without -128 in the rows, which is promised then.
    """
    found = []
    for choice in choices(named(name)):
        for iterations in (1, 2, 5):
            k = iterations * scheme(named(name)).packing.k_multiple
            for extreme in (-128, 127):
                rows, columns = (torch.randint(-128, 128, (size, k)) for size in (choice.tile_m, choice.tile_n))
                for operand in (rows, columns):
                    operand[torch.rand(operand.shape) < (1 if iterations == 2 else 0.2)] = extreme
                rows[:, 0] = -128
                for least in (-128, -127):
                    left, right = rows.clamp(min=least).to(torch.int8), columns.to(torch.int8)
                    expected = int64_product(left, right)
                    assert torch.equal(expected, int32_product(left, right).long())
                    found.append(case(name, choice, left, right, expected))
    return found


def longest(name):
    """Sums as great as there are, of either sign, for K = 131072."""
    for choice in choices(named(name)):
        rows = torch.full((choice.tile_m, MAX_IN_FEATURES), -127, dtype=torch.int8)
        columns = torch.full((choice.tile_n, MAX_IN_FEATURES), -128, dtype=torch.int8)
        rows[1::2], columns[1::3] = 127, 127
        signs = torch.where(rows[:, :1] < 0, -1, 1) * columns[:, 0].long()
        expected = signs * (127 * MAX_IN_FEATURES)
        assert expected.max() == 127 * 128 * MAX_IN_FEATURES < 1 << 31
        yield case(name, choice, rows, columns, expected)


@pytest.mark.parametrize("name", host_targets())
def test_on_the_host(name):
    for one in cases(name):
        one.check(on_host(one, named(name)))


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    check_on_arm(cases(name), name, tmp_path)


@pytest.mark.parametrize("name", host_targets())
def test_the_longest_sums_on_the_host(name):
    for one in longest(name):
        one.check(on_host(one, named(name)))


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_the_longest_sums_on_arm(name, tmp_path):
    check_on_arm(list(longest(name)), name, tmp_path)


def test_accumulators_are_given_with_their_type():
    """Triton 3.7 takes them for fp32 otherwise, and refuses those of int32."""
    files = (REPOSITORY / "kernels" / "tle_int8").glob("*.py")
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    dots = [call for call in calls if ast.unparse(call.func) == "tl.dot"]
    assert dots
    assert all("out_dtype" in [keyword.arg for keyword in call.keywords] for call in dots)
