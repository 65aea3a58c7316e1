"""Linears as they are run, on the host: the tile that is chosen gives the bits of the reference."""

import itertools

import pytest
import torch
from conftest import NEEDS_KERNELS
from linear_runs import ALL_ROWS, TYPES, activations, assert_same, biases, weights

from hf_tle_int8 import execution
from hf_tle_int8.arithmetic import int8_linear
from hf_tle_int8.dispatch import choose
from hf_tle_int8.kernels.scheme import MAX_IN_FEATURES

pytestmark = NEEDS_KERNELS

BIASES = (None, *TYPES)
N_TAILS = (1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97)
K_TAILS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193)


def run(x, weight, scale, bias):
    return execution.packed_linear(x, execution.layout().packing.pack(weight), scale, bias)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("bias", BIASES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_number_of_rows(dtype, bias):
    for n, k in ((7, 5), (33, 130)):
        weight, scale = weights(n, k)
        b = biases(n, bias)
        x = activations(33, k, dtype)
        expected = int8_linear(x, weight, scale, b)
        for m in range(1, 34):
            assert_same(run(x[:m], weight, scale, b), expected[:m])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_tail(dtype):
    kinds = itertools.cycle(BIASES)
    for n, k in itertools.product(N_TAILS, K_TAILS):
        weight, scale = weights(n, k)
        x, bias = activations(ALL_ROWS, k, dtype), biases(n, next(kinds))
        expected = int8_linear(x, weight, scale, bias)
        panels = execution.layout().packing.pack(weight)
        for m in (1, 2, 3, 5, ALL_ROWS):
            assert_same(execution.packed_linear(x[:m], panels, scale, bias), expected[:m])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_row_gives_the_same_bits_wherever_it_is_and_however_it_is_run(dtype, threads):
    n, k = 1100, 1000
    weight, scale = weights(n, k)
    panels, bias = execution.layout().packing.pack(weight), biases(n, dtype)
    x = activations(33, k, dtype)
    expected = int8_linear(x, weight, scale, bias)
    chosen = set()
    for count in (1, 2, 3, 4):
        threads(count)
        for rows in [*([row] for row in range(ALL_ROWS)), range(5), range(4, -1, -1), range(33), range(32, -1, -1)]:
            choice = choose(len(rows), n, k, execution.layout(), count)
            chosen.add((choice.tile_m, choice.threads))
            assert_same(execution.packed_linear(x[list(rows)], panels, scale, bias), expected[list(rows)])
    tiles = {choose(rows, n, k, execution.layout(), 1).tile_m for rows in (1, 5, 33)}
    assert len(tiles) > 1
    assert chosen == set(itertools.product(tiles, (1, 2, 3, 4)))


@pytest.mark.parametrize("m", [1, 3, 33])
def test_rows_may_lie_apart_or_be_the_same_one(m):
    weight, scale = weights(40, 70)
    room = torch.full((m, 100), torch.nan)
    room[:, 9:79] = torch.randn(m, 70)
    same = torch.randn(70).expand(m, 70)
    for x in (room[:, 9:79], same, room.flip(0)[:, 9:79]):
        assert_same(run(x, weight, scale, None), int8_linear(x, weight, scale, None))


def test_no_rows():
    assert run(torch.empty(0, 70), *weights(40, 70), None).shape == (0, 40)


def test_the_longest_rows():
    weight = torch.full((9, MAX_IN_FEATURES), -128, dtype=torch.int8)
    weight[1::2] = 127
    x = torch.full((9, MAX_IN_FEATURES), -1.0)
    x[::3] = 1.0
    scale = torch.ones(9)
    expected = int8_linear(x, weight, scale, None)
    assert expected.max() == 128 * MAX_IN_FEATURES
    for m in (1, 2, 4, 9):
        assert_same(run(x[:m], weight, scale, None), expected[:m])
