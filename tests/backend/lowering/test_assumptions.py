"""``tl.assume``: what is promised of the rows of a product changes its instructions, never its result."""

import platform

import numpy as np
import pytest
import triton
import triton.language as tl
from kernel_runs import on_host
from machine_code import busiest, count
from tensor_kernels import KernelCase

from hf_tle_int8.backend.target import host, named

# What is promised of the left operand, by number; the first two exclude -128.
PROMISES = {
    1: "min > -128",
    2: "min >= -127",
    0: "nothing",
    3: "min > -129",
    4: "min < 5",
    5: "max > -128",
    6: "of b",
    7: "perhaps",
}
EXCLUDE, BRANCHING = (1, 2), 7


@triton.jit
def promised(a, b, flag, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PROMISE: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(a + m[:, None] * K + k[None, :])
    y = tl.load(b + n[:, None] * K + k[None, :]).trans()
    if PROMISE == 1:
        tl.assume(tl.min(x) > -128)
    elif PROMISE == 2:
        tl.assume(tl.min(x) >= -127)
    elif PROMISE == 3:
        tl.assume(tl.min(x) > -129)
    elif PROMISE == 4:
        tl.assume(tl.min(x) < 5)
    elif PROMISE == 5:
        tl.assume(tl.max(x) > -128)
    elif PROMISE == 6:
        tl.assume(tl.min(y) > -128)
    elif PROMISE == 7:  # noqa: SIM102 - known when it is compiled, unlike the flag
        if flag > 0:
            tl.assume(tl.min(x) > -128)
    tl.store(o + m[:, None] * N + n[None, :], tl.dot(x, y))


def case(promise, m=4, n=16, k=32):
    """Rows and columns of extremes: -128 wherever the promise allows it."""
    drawn = np.random.default_rng(0)
    a, b = (drawn.choice([-128, -127, -1, 0, 1, 127], size=(size, k)).astype(np.int8) for size in (m, n))
    a[0], b[0], b[1] = -128, -128, 127
    if promise in EXCLUDE:
        a = np.maximum(a, -127)
    if promise == 6:
        b = np.maximum(b, -127)
    signature = {"a": "*i8", "b": "*i8", "flag": "i32", "o": "*i32"}
    values = {"M": m, "N": n, "K": k, "PROMISE": promise}
    return KernelCase(promised, signature, values, (a, b, 0), a.astype(np.int32) @ b.T.astype(np.int32))


@pytest.mark.parametrize("promise", PROMISES, ids=PROMISES.values())
@pytest.mark.parametrize("shape", [(4, 16), (1, 32), (16, 4), (16, 16)], ids=str)
def test_results_are_exact_whatever_is_promised(promise, shape):
    one = case(promise, *shape)
    one.check(on_host(one, host()))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions are of x86-64")
@pytest.mark.parametrize("promise", PROMISES, ids=PROMISES.values())
def test_rows_without_the_least_take_bytes_for_words(promise):
    body = busiest(case(promise), "avx2", "vpmadd")
    bytes_at_a_time = count(body, r"vpmaddubsw\b")
    assert bytes_at_a_time == (16 if promise in EXCLUDE else 0) * 4
    assert count(body, r"vpmaddwd\b") == (64 if promise in EXCLUDE else 128)


def test_a_promise_of_the_right_operand_does_not_hold_for_rows_that_change_sides():
    """With fewer columns than lanes, the transposed product is computed, whose rows are the right operand."""
    body = busiest(case(1, 16, 4), "avx2", "vpmadd")
    assert count(body, r"vpmaddwd\b")
    assert not count(body, r"vpmaddubsw\b")


@pytest.mark.parametrize("name", ["avx2", "neon-i8mm", "avx512vnni"])
def test_what_a_promise_alone_needs_is_not_computed(name):
    """The code is that without the promise, except for what `without_least` changes."""
    bodies = {promise: case(promise).lowered(named(name)).body for promise in PROMISES}
    without = [bodies[promise] for promise in PROMISES if promise not in (*EXCLUDE, BRANCHING)]
    assert len(set(without)) == 1
    assert (bodies[1] == without[0]) == (name != "avx2")
    assert bodies[1] == bodies[2]
