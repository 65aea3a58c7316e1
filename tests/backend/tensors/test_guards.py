import pytest
from machine_code import busiest, count, pieces
from memory_kernels import CASES as MEMORY_CASES
from tensor_kernels import CASES

VECTOR_LOAD = {"avx2": r"vmov\w+ .*\(.*, %ymm", "avx512": r"vmov\w+ .*\(.*, %zmm", "neon": r"ld[rp] q"}
VECTOR_STORE = {"avx2": r"vmov\w+ %ymm.*\)$", "avx512": r"vmov\w+ %zmm.*\)$", "neon": r"st[rp] q"}
ADDITION = {"avx2": "vaddps", "avx512": "vaddps", "neon": r"fadd v.*\.4s"}
STACK = {"avx2": r".*%rsp|.*%rbp", "avx512": r".*%rsp|.*%rbp", "neon": r".*\[sp|.*x29"}
MASKED = {"avx2": "vp?maskmov|vp?gather", "avx512": ".*{%k", "neon": r"ld[rp] [sbhd]\d|ld1 .*\]"}
TARGETS = list(VECTOR_LOAD)


def named(cases, kernel, **constexprs):
    return next(c for c in cases if c.kernel.__name__ == kernel and constexprs.items() <= c.constexprs.items())


@pytest.mark.parametrize("name", TARGETS)
def test_full_vectors_are_added_without_masks_branches_and_stack(name):
    loop = busiest(named(CASES, "add", B=1024), name, ADDITION[name])
    assert count(loop, ADDITION[name]) == 4
    assert count(loop, VECTOR_STORE[name]) == 4
    assert not count(loop, MASKED[name])
    assert not count(loop, STACK[name])


def test_tails_are_masked_where_the_cpu_has_masks():
    assert any(count(piece, "vmaskmovps") for piece in pieces(named(CASES, "add", B=1024), "avx2"))


def test_tails_are_a_loop_over_lanes_where_it_has_none():
    parts = pieces(named(CASES, "add", B=1024), "neon")
    scalars = [piece for piece in parts if count(piece, r"ldr s\d+, \[x\d+, x\d+, lsl #2\]")]
    # Two loads and a store, each in the version for tensors that may overlap too.
    assert 3 <= len(scalars) <= 6


@pytest.mark.parametrize("name", ["avx2", "neon"])
def test_wrapped_offsets_are_vectors_where_they_are_consecutive(name):
    parts = pieces(named(MEMORY_CASES, "wrapped_around", C=1024), name)
    assert any(
        count(piece, VECTOR_LOAD[name]) >= 2 and count(piece, VECTOR_STORE[name]) and not count(piece, MASKED[name])
        for piece in parts
    )


@pytest.mark.parametrize("name", ["avx2", "neon"])
def test_truth_values_are_loaded_as_vectors_of_bytes(name):
    parts = pieces(named(MEMORY_CASES, "flipped", B=1024), name)
    assert any(count(piece, VECTOR_STORE[name]) == 4 for piece in parts)
