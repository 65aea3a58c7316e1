"""Every tile of every target against the reference: bits are equal, those of the epilogue too."""

import itertools

import pytest
from arm_emulation import CPU_OF_TARGET
from kernel_runs import on_arm, on_host
from linear_runs import ALL_ROWS, TYPES, Linear, activations, assert_same, biases, choices, host_targets, weights

from hf_tle_int8.arithmetic import int8_linear
from hf_tle_int8.backend.target import TARGETS, named

PAIRS = list(itertools.product(TYPES, (None, *TYPES)))


def linears(name):
    """Every tile, each with two pairs of types in turn; the targets together have all pairs."""
    target = named(name)
    start = 2 * list(TARGETS).index(name)
    pairs = itertools.islice(itertools.cycle(PAIRS), start, None)
    return [Linear(target, choice, *next(pairs)) for choice in choices(target) for _ in range(2)]


def check(linear, kernels, shapes):
    choice = linear.choice
    for n, k in shapes:
        x, bias = activations(ALL_ROWS, k, linear.dtype), biases(n, linear.bias)
        weight, scale = weights(n, k)
        expected = int8_linear(x, weight, scale, bias)
        steps = {choice.tile_m, choice.tile_m // 2 + 1, choice.tile_m + 1, ALL_ROWS}
        for rows in [slice(r, r + step) for step in steps for r in range(0, ALL_ROWS, step)]:
            assert_same(linear.run(kernels, x[rows], weight, scale, bias), expected[rows])


@pytest.mark.parametrize("name", host_targets())
def test_on_the_host(name):
    for linear in linears(name):
        n = linear.choice.tile_n
        shapes = [(n - 1, 1), (1, 15), (n + 1, 65), (3 * n, 129), (64, 64)]
        check(linear, [on_host(case, linear.target) for case in linear.cases], shapes)


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    every = linears(name)
    with on_arm([case for linear in every for case in linear.cases], name, tmp_path) as kernel:
        for linear in every:
            n = linear.choice.tile_n
            check(linear, [kernel(case) for case in linear.cases], [(n - 1, 1), (n + 1, 65), (3 * n, 33)])
