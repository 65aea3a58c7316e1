import torch
from torch import nn

from hf_tle_int8 import TLEInt8Linear
from hf_tle_int8.matching import ModuleMatcher
from hf_tle_int8.selection import Rules, select_linears


class LinearOfAnotherKind(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def select(model: nn.Module, skip=(), **rules):
    return select_linears(model, Rules(ModuleMatcher(skip), **rules))


def reasons(model: nn.Module, skip=(), **rules) -> dict[str, str]:
    kept = select(model, skip, **rules).kept
    return {name: reason for reason, names in kept.items() for name in names}


def test_linears_are_selected_by_first_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert list(select(model).convert) == ["0", "2"]


def test_a_module_registered_twice_is_selected_once():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    selection = select(model)
    assert list(selection.convert) == ["a"]
    assert selection.aliases["a"] == ["a", "b.0"]


def test_a_skip_of_any_alias_skips_the_module():
    shared = nn.Linear(4, 4)
    assert not select(nn.ModuleDict({"a": shared, "b": shared}), skip=["b"]).convert


def test_reasons():
    replaced = nn.Linear(4, 4)
    replaced.forward = lambda x: x
    normed = torch.nn.utils.weight_norm(nn.Linear(4, 4))
    parametrized = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    embedding, head = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleDict(
        {
            "fine": nn.Linear(4, 4),
            "skipped": nn.Linear(4, 4),
            "default": nn.Linear(4, 4),
            "other": LinearOfAnotherKind(4, 4),
            "replaced": replaced,
            "normed": normed,
            "parametrized": parametrized,
            "embedding": embedding,
            "head": head,
            "int8": TLEInt8Linear.from_linear(nn.Linear(4, 4)),
            "bilinear": nn.Bilinear(4, 4, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "norm": nn.LayerNorm(4),
            "convolution": nn.Conv2d(4, 4, 3),
            "huge": nn.Linear(131073, 1, device="meta"),
        }
    )
    found = reasons(model, skip=["skipped"], defaults={"default": "kept by default"})
    assert found == {
        "skipped": "skipped by name",
        "default": "kept by default",
        "other": "of class LinearOfAnotherKind, whose forward may differ from nn.Linear's,",
        "replaced": "whose forward was replaced on the instance",
        "normed": "whose weight is computed from other parameters",
        "parametrized": "whose weight is computed from other parameters",
        "parametrized.parametrizations.weight": found["parametrized.parametrizations.weight"],
        "head": "tied to a module that is no nn.Linear",
        "bilinear": "of class Bilinear, which is no nn.Linear,",
        "attention": "of class MultiheadAttention, which is no nn.Linear,",
        "attention.out_proj": "whose weight the code of its model reads itself",
        "huge": "with in_features outside of 1..131072",
    }
    assert list(select(model, skip=["skipped"], defaults={"default": ""}).convert) == ["fine", "default"]


def test_alignment_and_bias():
    model = nn.ModuleDict({"k": nn.Linear(6, 4), "n": nn.Linear(4, 6), "biased": nn.Linear(4, 4)})
    model["plain"] = nn.Linear(8, 12, bias=False)
    selection = select(model, require_divisible_by=4, skip_with_bias=True)
    assert list(selection.convert) == ["plain"]
    assert selection.kept == {"not aligned to 4": ["k", "n"], "with a bias": ["biased"]}


def test_summary_is_one_line_with_counts():
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(6)])
    selection = select(model, skip=["re:[0-3]"])
    assert selection.summary(2) == (
        "2 linear layers in INT8; left in floating point: 4 skipped by name (0, 1, … 2 more)"
    )
    assert select(model).summary(6) == "6 linear layers in INT8, none left in floating point"
