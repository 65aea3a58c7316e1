import pytest
import triton
import triton.language as tl
from ttir_support import stock_module

from hf_tle_int8.backend import target
from hf_tle_int8.backend.lowering.kernel import lower_kernel
from hf_tle_int8.backend.ttir import stock


@triton.jit
def bits_of(x, o, T: tl.constexpr, B: tl.constexpr):
    i = tl.arange(0, B)
    pointers = (x + i).to(tl.pointer_type(T), bitcast=True)
    tl.store(o + i, tl.load(pointers) + tl.load(pointers + B))


@pytest.mark.parametrize(("kind", "neighbours"), [(tl.int32, True), (tl.int16, False), (tl.int64, False)])
def test_cast_pointers_are_neighbours_where_the_size_stays(kind, neighbours):
    module = stock_module(bits_of, {"x": "*fp32", "o": "*i64"}, T=kind, B=16)
    body = lower_kernel(stock.read(module), target.named("neon")).body
    assert ("masked.gather" not in body) == neighbours
