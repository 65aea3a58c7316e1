"""torch.compile on INT8 models: one graph whatever the length, and static caches."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing
from support import save_tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM, CompileConfig

from hf_tle_int8 import TLEInt8Config, TLEInt8Linear


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1, hidden_size=32, head_dim=8)


@pytest.fixture
def model(llama):
    torch._dynamo.reset()
    return AutoModelForCausalLM.from_pretrained(llama, quantization_config=TLEInt8Config())


def ids(*shape):
    return (torch.arange(torch.Size(shape).numel()) * 7 % 96).reshape(shape)


def test_one_graph_for_the_first_length_and_one_for_all_others(model):
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for length in (5, 9, 11, 30):
            output = compiled(ids(2, length), use_cache=False).logits
            torch.testing.assert_close(output, model(ids(2, length), use_cache=False).logits)
    assert counter.frame_count == 2


def test_generate_compiles_itself_with_a_static_cache(model, monkeypatch):
    # transformers does so on accelerators, and on other devices on request.
    config = CompileConfig(backend="aot_eager", fullgraph=True, mode=None)
    config._compile_all_devices = True
    prompt = ids(2, 5)
    expected = model.generate(prompt, max_new_tokens=6, do_sample=False)
    static = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": "static"}
    assert torch.equal(model.generate(prompt, **static), expected)
    torch._dynamo.utils.counters.clear()
    assert torch.equal(model.generate(prompt, **static, compile_config=config), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.fixture
def network():
    torch._dynamo.reset()
    return nn.Sequential(TLEInt8Linear.from_linear(nn.Linear(16, 8)), nn.GELU())


def test_a_look_at_the_weights_costs_until_the_next_call_outside(network):
    compiled, x = torch.compile(network, fullgraph=True, backend="aot_eager"), torch.randn(3, 16)

    def dimensions():
        return network[0]._parameters["weight"].dim()

    with torch.no_grad():
        expected = compiled(x)
        assert dimensions() == 4
        network.state_dict()
        assert torch.equal(compiled(x), expected)
        assert dimensions() == 2
        network(x)
        assert torch.equal(compiled(x), expected)
        assert dimensions() == 4


HAS_COMPILER = shutil.which("g++") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.mark.skipif(
    not HAS_COMPILER and os.environ.get("CI") != "true", reason="torch's inductor needs g++ and Python.h"
)
def test_inductor(network):
    compiled, x = torch.compile(network, fullgraph=True), torch.randn(3, 16)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))
