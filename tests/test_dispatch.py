import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_tle_int8.backend.dot.integers import INT8_DOTS
from hf_tle_int8.backend.dot.plan import plan
from hf_tle_int8.backend.ir import I8
from hf_tle_int8.backend.target import TARGETS, VARIABLE, named
from hf_tle_int8.dispatch import MOST_ROWS, QUANTIZED_BLOCK, SCHEMES, Choice, choose, constexprs, scheme, with_tiles
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.kernels import linear

EVERY_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
SHAPES = st.tuples(st.integers(1, 5000), st.integers(1, 200_000), st.integers(1, 131_072))


def tiles(target) -> list[tuple[int, int]]:
    return list(scheme(target).tiles)


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
    assert (layout.matrix_rows is not None) == (target.tile_registers > 0)


@EVERY_TARGET
def test_a_tile_is_as_its_own_instruction_wants_it(target):
    layout = scheme(target)
    for rows, columns in layout.tiles:
        choice = layout.choice(rows, columns)
        k = choice.steps * layout.packing.group
        instruction = plan(target, I8, (rows, k), (k, columns), without_least=True).instruction
        assert instruction.tiles == (target.tile_registers > 0 and rows >= 1 << instruction.row_bits > 1)
        assert choice.flipped == instruction.unsigned_rows
        assert layout.packing.k_multiple % k == 0 == k % (1 << instruction.k_bits)


@EVERY_TARGET
def test_tiles_divide_what_is_padded(target):
    layout = scheme(target)
    packing = layout.packing
    assert packing.n_multiple % packing.columns == packing.k_multiple % packing.group == 0
    assert QUANTIZED_BLOCK % packing.group == 0
    for rows, columns in tiles(target):
        assert packing.n_multiple % columns == columns % packing.columns == 0
        assert rows & (rows - 1) == columns & (columns - 1) == 0, "tensors of Triton have powers of two"


@EVERY_TARGET
def test_the_first_tile_with_enough_rows_serves(target):
    layout = scheme(target)
    rows = [rows for rows, _ in layout.tiles]
    assert rows == sorted(set(rows))
    assert rows[-1] <= MOST_ROWS
    for m in range(1, 2 * rows[-1] + 1):
        assert choose(m, 64, 64, layout, 1).tile_m == min((most for most in rows if most >= m), default=rows[-1])


def test_other_tiles_for_experiments():
    layout = scheme(named("neon-i8mm"))
    assert with_tiles(layout, "4x16, 8 x 8").tiles == ((4, 16), (8, 8))
    assert choose(1, 64, 64, with_tiles(layout, "4x16"), 1) == Choice(4, 16, 4, 4, False, 1)
    for text in ("", "4", "4x", "4x16,", "1x8", "3x8", "64x8", "4x12", "4x64", "8x8,4x16", "4x8,4x16", "-4x8", "4x8x2"):
        with pytest.raises(ConfigError, match=r"list of tiles .* one of \[8, 16, 32\]") as error:
            with_tiles(layout, text)
        assert repr(text) in str(error.value)


@EVERY_TARGET
@given(SHAPES, st.integers(2, 256))
def test_what_is_computed_does_not_depend_on_threads(target, shape, threads):
    alone, together = (choose(*shape, scheme(target), count) for count in (1, threads))
    assert alone == dataclasses.replace(together, threads=alone.threads)
    assert 1 <= together.threads <= threads


@EVERY_TARGET
def test_little_work_is_for_one_thread(target):
    for m, n, k in ((1, 1, 1), (1, 512, 512), (1, 1, 131_072), (8, 64, 64), (33, 64, 64)):
        assert choose(m, n, k, scheme(target), 64).threads == 1
    for m, n, k in ((1, 4096, 4096), (8, 4096, 4096), (64, 4096, 4096)):
        assert choose(m, n, k, scheme(target), 8).threads == 8


@EVERY_TARGET
@given(SHAPES, st.integers(1, 64))
def test_more_work_is_for_no_fewer_threads(target, shape, threads):
    m, n, k = shape
    assert choose(m, n, k, scheme(target), threads).threads <= choose(m, 2 * n, k, scheme(target), threads).threads


@EVERY_TARGET
def test_rows_lie_together_where_the_instruction_takes_several(target):
    for m in range(1, 34):
        choice = choose(m, 64, 64, scheme(target), 1)
        assert choice.rows == (choice.tile_m if scheme(target).interleaved else 1)


def test_constexprs_are_those_of_the_kernels():
    values = constexprs(scheme(named("avxvnni")), Choice(2, 16, 1, 4, True, 3))
    for kernel, own in ((linear.gemm, {"HAS_BIAS"}), (linear.gemm_int32, set())):
        assert values.keys() | own == {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    assert values == {"TILE_M": 2, "TILE_N": 16, "ROWS": 1, "COLUMNS": 8, "GROUP": 4, "STEPS": 4, "FLIPPED": True}


def test_the_choice_is_a_pure_function(monkeypatch):
    layout, shapes = scheme(named("neon")), [(m, n, 1000) for m in range(1, 20) for n in (1, 100, 10_000)]
    first = [choose(*shape, layout, 4) for shape in shapes]
    choose.cache_clear()
    monkeypatch.setenv(VARIABLE, "avx2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert [choose(*shape, layout, 4) for shape in reversed(shapes)] == first[::-1]
