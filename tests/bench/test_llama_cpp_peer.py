"""The product of ggml through ctypes, where llama-cpp-python is installed."""

import gc

import pytest
import torch

from hf_tle_int8.bench import linear
from hf_tle_int8.bench.peers import llama_cpp

Q4_0 = 2


@pytest.fixture(autouse=True)
def _installed():
    pytest.importorskip("llama_cpp")


@pytest.mark.parametrize(("kind", "bound"), [(llama_cpp._Q8_0, 0.01), (Q4_0, 0.1)])
def test_products_of_several_inputs(kind, bound):
    # ggml has a layout of its own for Q4_0 on x86, and for both on Arm.
    weight = torch.randn(64, 256)
    layer = llama_cpp._Linear(weight, kind)
    products = {m: (x, llama_cpp._Product(layer, x)) for m in (1, 5) for x in [torch.randn(m, 256)]}
    for x, product in products.values():
        for _ in range(2):
            assert 0 < linear.relative_error(product().float(), x.double() @ weight.double().T) < bound


def test_memory_is_given_back():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def once() -> None:
        llama_cpp._Product(llama_cpp._Linear(torch.ones(1024, 2048)), torch.ones(64, 2048))()

    found = []
    for _ in range(2):
        for _ in range(20):
            once()
        gc.collect()
        found.append(resident())
    # The weights alone are 2.2 MB each.
    assert found[1] - found[0] < 15e6


def test_a_size_that_blocks_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="K = 100"):
        llama_cpp._Linear(torch.ones(4, 100))
