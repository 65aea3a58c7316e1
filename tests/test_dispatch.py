import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_tle_int8.backend.dot.integers import INT8_DOTS
from hf_tle_int8.backend.target import TARGETS, VARIABLE, named
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, SCHEMES, Choice, choose, constexprs, scheme
from hf_tle_int8.kernels import linear

EVERY_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
SHAPES = st.tuples(st.integers(1, 5000), st.integers(1, 200_000), st.integers(1, 131_072))


def tiles(target) -> list[tuple[int, int]]:
    return [*scheme(target).gemv, scheme(target).gemm]


def test_each_target_has_a_scheme():
    assert set(SCHEMES) == set(TARGETS)


@EVERY_TARGET
def test_the_packing_is_that_of_the_target(target):
    packing = scheme(target).packing
    assert (packing.columns, packing.group) == (target.packing.columns, target.packing.k)


@EVERY_TARGET
def test_the_layout_is_that_of_the_instruction(target):
    layout, instruction = scheme(target), INT8_DOTS[target.arch, target.int8_dot](target)
    assert layout.packing.group == 1 << instruction.k_bits
    assert layout.packing.columns % (1 << instruction.column_bits) == 0
    assert layout.interleaved == (instruction.row_bits > 0)
    assert layout.flipped == instruction.unsigned_rows


@EVERY_TARGET
def test_tiles_divide_what_is_padded(target):
    layout = scheme(target)
    packing = layout.packing
    assert packing.n_multiple % packing.columns == packing.k_multiple % packing.group == 0
    assert packing.k_multiple % (layout.steps * packing.group) == 0
    assert QUANTIZED_BLOCK % packing.group == 0
    for rows, columns in tiles(target):
        assert packing.n_multiple % columns == columns % packing.columns == 0
        assert rows & (rows - 1) == columns & (columns - 1) == 0, "tensors of Triton have powers of two"


@EVERY_TARGET
def test_gemv_tiles_ascend_up_to_where_gemm_begins(target):
    rows = [rows for rows, _ in scheme(target).gemv]
    assert rows == sorted(set(rows))
    for m in range(1, rows[-1] + 1):
        choice = choose(m, 64, 64, target, 1)
        assert choice.kernel == "gemv"
        assert choice.tile_m == min(most for most in rows if most >= m)
    assert choose(rows[-1] + 1, 64, 64, target, 1).kernel == "gemm"


@EVERY_TARGET
@given(SHAPES, st.integers(1, 256), st.booleans())
def test_every_column_is_in_one_tile_and_one_program(target, shape, threads, unlike):
    m, n, k = shape
    choice = choose(m, n, k, target, threads, unlike)
    whole = -(-n // choice.tile_n)
    assert (choice.tile_m, choice.tile_n) in tiles(target)
    assert 1 <= choice.threads <= threads
    if choice.kernel == "gemm":
        assert choice.tiles == 1
        return
    assert m <= choice.tile_m
    programs = -(-n // (choice.tiles * choice.tile_n))
    assert programs <= min(whole, 4 * threads if unlike else threads)
    # As `gemv` divides them.
    shares = [range(program * choice.tiles, min((program + 1) * choice.tiles, whole)) for program in range(programs)]
    assert [tile for share in shares for tile in share] == list(range(whole))
    assert all(shares), "a program without work quantizes for nothing"


@EVERY_TARGET
@given(SHAPES, st.integers(2, 256))
def test_what_is_computed_does_not_depend_on_threads(target, shape, threads):
    alone, together = (choose(*shape, target, count) for count in (1, threads))
    assert alone == dataclasses.replace(together, threads=alone.threads, tiles=alone.tiles)


@EVERY_TARGET
@given(SHAPES, st.integers(1, 64))
def test_unlike_cores_take_more_programs_where_these_are_worth_it(target, shape, threads):
    alike, unlike = (choose(*shape, target, threads, each) for each in (False, True))
    assert alike == dataclasses.replace(unlike, tiles=alike.tiles)
    if unlike.tiles < alike.tiles:
        assert unlike.threads > 1
        assert unlike.tiles >= 4 * unlike.tile_m


@EVERY_TARGET
def test_few_rows_of_a_large_linear_are_four_programs_for_each_unlike_core(target):
    choice = choose(1, 32768, 4096, target, 8, True)
    assert -(-32768 // (choice.tiles * choice.tile_n)) == 32


@EVERY_TARGET
def test_little_work_is_for_one_thread(target):
    for m, n, k in ((1, 1, 1), (1, 512, 512), (1, 1, 131_072), (8, 64, 64), (33, 64, 64)):
        assert choose(m, n, k, target, 64).threads == 1
    for m, n, k in ((1, 4096, 4096), (8, 4096, 4096), (64, 4096, 4096)):
        assert choose(m, n, k, target, 8).threads == 8


@EVERY_TARGET
@given(SHAPES, st.integers(1, 64))
def test_more_work_is_for_no_fewer_threads(target, shape, threads):
    m, n, k = shape
    assert choose(m, n, k, target, threads).threads <= choose(m, 2 * n, k, target, threads).threads


@EVERY_TARGET
def test_rows_lie_together_where_the_instruction_takes_several(target):
    for m in range(1, 34):
        choice = choose(m, 64, 64, target, 1)
        assert choice.rows == (choice.tile_m if scheme(target).interleaved else 1)


def test_constexprs_are_those_of_the_kernels():
    target = named("avxvnni")
    for m in (1, 100):
        choice = choose(m, 64, 64, target, 1)
        parameters = getattr(linear, choice.kernel).params
        assert set(constexprs(scheme(target), choice, True)) == {p.name for p in parameters if p.is_constexpr}
    values = constexprs(scheme(target), Choice("gemv", 2, 16, 1, 3, 7), False)
    assert values == {
        "TILE_M": 2, "TILE_N": 16, "ROWS": 1, "COLUMNS": 8, "GROUP": 4, "STEPS": 4, "FLIPPED": True, "HAS_BIAS": False,
        "BLOCK": QUANTIZED_BLOCK,
    }  # fmt: skip


def test_the_choice_is_a_pure_function(monkeypatch):
    target, shapes = named("neon"), [(m, n, 1000) for m in range(1, 20) for n in (1, 100, 10_000)]
    first = [choose(*shape, target, 4) for shape in shapes]
    choose.cache_clear()
    monkeypatch.setenv(VARIABLE, "avx2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert [choose(*shape, target, 4) for shape in reversed(shapes)] == first[::-1]
