"""torch.export and torch.jit.trace of INT8 modules: the same bits, also from a file and on another CPU's packing."""

import subprocess
import sys
import warnings

import pytest
import torch
from support import save_tiny_llama
from torch import nn
from torch.export import Dim
from transformers import AutoModelForCausalLM

from hf_tle_int8 import TLEInt8Config, TLEInt8Linear, ops
from hf_tle_int8.packing import Packing


class Logits(nn.Module):
    """What a user exports: tokens in, logits out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(ids, use_cache=False).logits


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = save_tiny_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1)
    return Logits(AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())).eval()


@pytest.mark.parametrize("strict", [False, True])
def test_export_saves_and_loads(network, tmp_path, strict):
    ids = torch.arange(24).reshape(2, 12)
    shapes = ({0: Dim.AUTO, 1: Dim.AUTO},)
    program = torch.export.export(network, (ids,), dynamic_shapes=shapes, strict=strict)
    torch.export.save(program, tmp_path / "program.pt2")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for loaded in (program, torch.export.load(tmp_path / "program.pt2")):
            run = loaded.module()
            assert torch.equal(run(ids), network(ids))
            assert torch.equal(run(ids[:, :5]), network(ids[:, :5]))
    weight = program.state_dict["model.model.layers.0.mlp.up_proj.weight"]
    assert weight.dtype == torch.int8
    assert weight.dim() == 4


def test_a_program_of_another_cpu_runs_exactly_and_says_that_it_is_slow(tmp_path):
    layer = TLEInt8Linear.from_linear(nn.Linear(50, 40))
    x = torch.randn(3, 50)
    with torch.no_grad():
        expected = layer(x)
    layer.weight.data = Packing(4, 2, 4, 2).pack(layer.weight)
    torch.export.save(torch.export.export(layer, (x,)), tmp_path / "program.pt2")
    ops._warn_of_other_weights.cache_clear()
    run = torch.export.load(tmp_path / "program.pt2").module()
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="so does one with weights packed for another CPU"):
        torch.testing.assert_close(run(x), expected, rtol=0, atol=0)


def test_a_program_needs_the_operators(tmp_path):
    layer = TLEInt8Linear.from_linear(nn.Linear(16, 8))
    torch.export.save(torch.export.export(layer, (torch.ones(3, 16),)), tmp_path / "program.pt2")
    run = "import sys, torch, hf_tle_int8.ops; y = torch.export.load(sys.argv[1]).module()(torch.ones(3, 16))"
    code = f"{run}; torch.save(y.detach(), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, tmp_path / "program.pt2", tmp_path / "y.pt"], check=True)
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "y.pt"), layer(torch.ones(3, 16)))


def test_traces_give_the_same_bits(network, tmp_path):
    ids = torch.arange(24).reshape(2, 12)
    torch.jit.trace(network, ids).save(tmp_path / "trace.pt")
    loaded = torch.jit.load(tmp_path / "trace.pt")
    with torch.no_grad():
        assert torch.equal(loaded(ids), network(ids))
