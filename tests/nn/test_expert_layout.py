"""Which experts become INT8, and for each of the others the reason why not."""

import copy

import pytest
import torch
from moe_support import float_moe
from torch import nn

from hf_tle_int8 import quantize_and_replace_linears, replace_linears_with_tle_int8
from hf_tle_int8.matching import ModuleMatcher
from hf_tle_int8.nn.expert_layout import is_experts, obstacle, projection_names, row_major
from hf_tle_int8.selection import Rules, select_linears


@pytest.fixture(scope="module")
def float_layers():
    models = {kind: float_moe(kind) for kind in ("qwen", "gpt_oss", "nemotron")}
    return {kind: next(filter(is_experts, model.modules())) for kind, model in models.items()}


@pytest.fixture
def experts(float_layers):
    return copy.deepcopy(float_layers["qwen"])


def kept(model, **options):
    selection = select_linears(model, Rules(ModuleMatcher([]), **options))
    return {name: reason for reason, names in selection.kept.items() for name in names}


@pytest.mark.parametrize(
    ("kind", "names", "shapes"),
    [
        ("qwen", ("gate_up_proj", "down_proj"), [(6, 72, 48), (6, 48, 36)]),
        ("gpt_oss", ("gate_up_proj", "down_proj"), [(4, 72, 48), (4, 48, 36)]),
        ("nemotron", ("up_proj", "down_proj"), [(4, 32, 48), (4, 48, 32)]),
    ],
)
def test_layouts(float_layers, kind, names, shapes):
    layer = float_layers[kind]
    assert obstacle(layer) is None
    assert projection_names(layer) == names
    assert [row_major(layer, layer.get_parameter(name)).shape for name in names] == shapes


def test_other_modules_are_no_experts():
    assert not any(map(is_experts, (nn.Linear(4, 4), nn.Bilinear(4, 4, 4), nn.ModuleList())))


class Overridden(nn.Module):
    def forward(self, hidden_states, top_k_index, top_k_weights):
        return hidden_states


def test_obstacles(experts):
    replaced, missing, uneven, flat, own = (copy.deepcopy(experts) for _ in range(5))
    replaced.forward = lambda *arguments: None
    del missing.down_proj
    uneven.down_proj = nn.Parameter(torch.zeros(5, 48, 36))
    flat.gate_up_proj = nn.Parameter(torch.zeros(72, 48))
    own.__class__ = Overridden
    huge = copy.deepcopy(experts).to("meta")
    huge.down_proj = nn.Parameter(torch.empty(6, 48, 131073, device="meta"))
    named = {"replaced": replaced, "missing": missing, "uneven": uneven, "flat": flat, "own": own, "huge": huge}
    weights = "of class Qwen3MoeExperts, whose weights are not those of its interface,"
    assert kept(nn.ModuleDict(named)) == {
        "replaced": "whose forward was replaced on the instance",
        **dict.fromkeys(("missing", "uneven", "flat"), weights),
        "own": "of class Overridden, whose forward is its own,",
        "huge": "with in_features outside of 1..131072",
    }


def test_options(experts, float_layers):
    model = nn.ModuleDict({"plain": experts, "biased": float_layers["gpt_oss"], "even": float_layers["nemotron"]})
    assert kept(model, require_divisible_by=8) == dict.fromkeys(("plain", "biased"), "not aligned to 8")
    assert kept(model, skip_with_bias=True) == {"biased": "with a bias"}


def test_shared_weights_stay(experts):
    twin = copy.deepcopy(experts)
    twin.down_proj = experts.down_proj
    reason = "with weights that another module shares"
    assert kept(nn.ModuleDict({"one": experts, "two": twin})) == {"one": reason, "two": reason}
    assert quantize_and_replace_linears(nn.ModuleDict({"one": experts, "same": experts})) == 1


def test_an_error_leaves_the_model_as_it_was(experts):
    model = nn.Sequential(nn.Linear(4, 4), experts)
    with torch.no_grad():
        experts.down_proj[3, 2, 1] = float("inf")
    with pytest.raises(ValueError, match=r"1\.down_proj\[3\] holds NaN or Inf in output channel 2"):
        quantize_and_replace_linears(model)
    assert type(model[0]) is nn.Linear
    assert is_experts(model[1])
    assert model[1].down_proj.dtype == torch.float32


def test_state_dicts_leave_experts_in_float(experts, caplog):
    model = nn.ModuleDict({"linear": nn.Linear(4, 4, bias=False), "experts": experts})
    state = {"linear.weight": torch.ones(4, 4, dtype=torch.int8), "linear.weight_scale": torch.tensor(0.5)}
    state["experts.0.up_proj.weight"] = torch.ones(36, 48, dtype=torch.int8)
    with caplog.at_level("INFO", logger="hf_tle_int8"):
        assert replace_linears_with_tle_int8(model, state) == 1
    assert "1 with fused experts, which are not read from a state dict, (experts)" in caplog.text
    assert "belong to no linear that is converted, and stay unused: experts.0.up_proj.weight" in caplog.text
    assert experts.down_proj.dtype == torch.float32
