"""What is known of indices, whatever code is written for it."""

from hf_tle_int8.backend import ir
from hf_tle_int8.backend.ir import I1, I32, I64, FunctionBuilder, ModuleBuilder, Operand
from hf_tle_int8.backend.tensors.affine import Affine, Term, make_range
from hf_tle_int8.backend.tensors.arithmetic import Comparison, Conjunction, Extension, Remainder, Sum
from hf_tle_int8.backend.tensors.index import Index, Lane
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Splat

WHOLE = Index((Lane(0), Lane(1), Lane(2)), 3)
N = Operand(I32, "%n")


def evaluator():
    return Evaluator(FunctionBuilder(ModuleBuilder(), "f", {"n": I32}), True, 32)


def emit(f, operands):
    return operands[0]


def below(tensor, predicate="slt"):
    return Comparison(I1, 3, [tensor, Splat(N, 3)], emit, predicate)


def test_distances_are_those_of_lanes():
    e, i = evaluator(), make_range(5, 3, I32)
    wide = Extension(I64, 3, [i], emit)
    for tensor in (i, wide, Sum(I64, 3, [wide, Splat(Operand(I64, "7"), 3)], emit)):
        assert tensor.distances(e, WHOLE).tolist() == list(range(8))


def test_distances_that_do_not_fit_or_are_not_literal_are_unknown():
    e = evaluator()
    assert Affine(N, (Term(None, (1 << 29, 1 << 30, 1 << 31)),), 3).distances(e, WHOLE) is None
    assert Affine(N, (Term(N, (1, 2, 4)),), 3).distances(e, WHOLE) is None
    assert Sum(I32, 3, [make_range(0, 3, I32), make_range(0, 3, I32)], emit).distances(e, WHOLE) is None


def test_masks_have_tests_both_ways():
    e, mask = evaluator(), below(make_range(0, 3, I32))
    assert mask.test(e, WHOLE, True) is not None
    assert mask.test(e, WHOLE, False) is not None


def test_equality_has_no_test():
    e = evaluator()
    assert below(make_range(0, 3, I32), "eq").test(e, WHOLE, True) is None
    unknown = Elementwise(I1, 3, [make_range(0, 3, I32)], emit)
    both = Conjunction(I1, 3, [below(make_range(0, 3, I32)), unknown], emit)
    assert both.test(e, WHOLE, True) is None
    assert both.test(e, WHOLE, False) is not None


def test_remainders_are_consecutive_where_that_is_assumed():
    e, i = evaluator(), make_range(0, 3, I32)
    remainder = Remainder(I32, 3, [i, Splat(N, 3)], emit)
    assert remainder.distances(e, WHOLE) is None
    assert remainder.test(e, WHOLE, True).type == ir.I1
    with e.scope({(remainder, WHOLE): True}):
        assert remainder.distances(e, WHOLE).tolist() == list(range(8))
    assert remainder.distances(e, WHOLE) is None
