import copy
import logging
import weakref
from functools import partial

import pytest
import torch
from support import int8_layers
from torch import nn

from hf_tle_int8 import TLEInt8Linear, arithmetic, quantize_and_replace_linears, replace_linears_with_tle_int8
from hf_tle_int8.errors import CheckpointError, ConfigError, InputTypeError, InputValueError, UnsupportedPlacementError


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8, bias=False)
        self.odd = nn.Linear(8, 6)

    def forward(self, x):
        return self.odd(self.down(torch.relu(self.up(x))))


def pre_quantized(model: nn.Module) -> dict[str, torch.Tensor]:
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            q, scale = arithmetic.quantize_weight(module.weight)
            state |= {f"{name}.weight": q, f"{name}.weight_scale": scale}
            if module.bias is not None:
                state[f"{name}.bias"] = module.bias.detach().clone()
    return state


class TestQuantizeAndReplace:
    def test_replaces_all(self, caplog):
        model = Block()
        expected = {name: TLEInt8Linear.from_linear(getattr(model, name)) for name in ("up", "down", "odd")}
        x = torch.randn(3, 8)
        before = model(x)
        with caplog.at_level(logging.INFO, logger="hf_tle_int8"):
            assert quantize_and_replace_linears(model) == 3
        assert "3 linear layers in INT8, none left in floating point" in caplog.text
        for name, layer in int8_layers(model).items():
            assert torch.equal(layer.weight, expected[name].weight)
            assert torch.equal(layer.weight_scale, expected[name].weight_scale)
        assert (model(x) - before).norm() / before.norm() < 0.05

    def test_options_and_summary(self, caplog):
        model = Block()
        with caplog.at_level(logging.INFO, logger="hf_tle_int8"):
            count = quantize_and_replace_linears(model, skip=["down"], require_divisible_by=4, skip_with_bias=True)
        assert count == 0
        summary = caplog.records[-1].getMessage()
        assert "1 with a bias (up)" in summary
        assert "1 skipped by name (down)" in summary
        assert "1 not aligned to 4 (odd)" in summary

    def test_aligned_only(self):
        model = Block()
        assert quantize_and_replace_linears(model, require_divisible_by=4) == 2
        assert set(int8_layers(model)) == {"up", "down"}

    @pytest.mark.parametrize("skip", [("up",), {"up"}, iter(["up"]), ["re:u"]])
    def test_skip_takes_any_iterable(self, skip):
        model = Block()
        assert quantize_and_replace_linears(model, skip=skip) == 2
        assert set(int8_layers(model)) == {"down", "odd"}

    def test_unmatched_skip_warns(self, caplog):
        quantize_and_replace_linears(Block(), skip=["upp"])
        assert "skip: 'upp' matched no linear layer" in caplog.text

    def test_root_linear(self):
        root = nn.Linear(4, 3)
        x = torch.randn(2, 4)
        expected = TLEInt8Linear.from_linear(root)(x)
        assert quantize_and_replace_linears(root) == 1
        assert isinstance(root, TLEInt8Linear)
        assert torch.equal(root(x), expected)

    def test_module_registered_twice_stays_one(self):
        shared = nn.Linear(4, 4)
        model = nn.Sequential(shared, nn.ReLU(), shared)
        assert quantize_and_replace_linears(model) == 1
        assert model[0] is model[2]
        assert isinstance(model[2], TLEInt8Linear)

    def test_shared_weight_is_quantized_once(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        assert quantize_and_replace_linears(model) == 2
        assert model[0].weight is model[1].weight
        assert model[0].weight_scale is model[1].weight_scale
        assert not torch.equal(model[0].bias, model[1].bias)

    def test_tied_embedding_stays(self):
        model = nn.ModuleDict({"embed": nn.Embedding(8, 4), "head": nn.Linear(4, 8, bias=False)})
        model["head"].weight = model["embed"].weight
        assert quantize_and_replace_linears(model) == 0
        assert model["head"].weight is model["embed"].weight

    def test_twice_is_once(self):
        model = Block()
        assert quantize_and_replace_linears(model) == 3
        state = copy.deepcopy(model.state_dict())
        assert quantize_and_replace_linears(model) == 0
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    def test_hooks_and_training_mode_survive(self):
        model = Block().eval()
        calls = []
        model.up.register_forward_hook(lambda *_: calls.append(1))
        quantize_and_replace_linears(model)
        model(torch.randn(1, 8))
        assert calls == [1]
        assert not model.up.training

    def test_weights_are_freed_layer_by_layer(self, monkeypatch):
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)])
        weights = [weakref.ref(layer.weight) for layer in model]
        alive = []
        quantize = arithmetic.quantize_weight

        def spy(weight, *arguments):
            alive.append(sum(reference() is not None for reference in weights))
            return quantize(weight, *arguments)

        monkeypatch.setattr(arithmetic, "quantize_weight", spy)
        quantize_and_replace_linears(model)
        assert alive == [4, 3, 2, 1]
        assert all(reference() is None for reference in weights)

    def test_an_error_changes_nothing(self):
        model = Block()
        with torch.no_grad():
            model.odd.weight[3, 2] = float("nan")
        with pytest.raises(InputValueError, match=r"odd\.weight holds NaN or Inf in output channel 3"):
            quantize_and_replace_linears(model)
        assert not int8_layers(model)
        assert quantize_and_replace_linears(model, skip=["odd"]) == 2

    def test_meta_model_is_refused(self):
        model = Block().to("meta")
        with pytest.raises(UnsupportedPlacementError, match=r"up\.weight is on meta"):
            quantize_and_replace_linears(model)

    @pytest.mark.parametrize("value", [0, -4, 1.5, "4"])
    def test_bad_alignment_is_refused(self, value):
        with pytest.raises(ConfigError, match="require_divisible_by"):
            quantize_and_replace_linears(Block(), require_divisible_by=value)

    def test_string_skip_is_refused(self):
        with pytest.raises(ConfigError, match="skip='up' is not a list"):
            quantize_and_replace_linears(Block(), skip="up")


class TestReplaceFromStateDict:
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    @pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
    def test_replaces_all(self, device, shape):
        source = Block()
        state = pre_quantized(source)
        for name in list(state):
            if name.endswith("weight_scale"):
                state[name] = state[name].reshape(shape)
        quantize_and_replace_linears(source)
        with torch.device(device):
            model = Block()
        assert replace_linears_with_tle_int8(model, state) == 3
        x = torch.randn(5, 8)
        assert torch.equal(model(x), source(x))

    def test_scalar_scale(self):
        model = nn.Sequential(nn.Linear(4, 4, bias=False))
        state = {"0.weight": torch.ones(4, 4, dtype=torch.int8), "0.weight_scale": torch.tensor(0.5)}
        assert replace_linears_with_tle_int8(model, state) == 1
        assert torch.equal(model[0].weight_scale, torch.full((4, 1), 0.5))

    def test_skip_and_alignment(self):
        model = Block()
        assert replace_linears_with_tle_int8(model, pre_quantized(model), skip=["up"], require_divisible_by=4) == 1
        assert set(int8_layers(model)) == {"down"}

    def test_root_linear(self):
        root = nn.Linear(4, 3)
        q, scale = arithmetic.quantize_weight(root.weight)
        assert replace_linears_with_tle_int8(root, {"weight": q, "weight_scale": scale, "bias": root.bias}) == 1
        assert isinstance(root, TLEInt8Linear)

    def test_alias_in_the_state_dict(self):
        shared = nn.Linear(4, 4, bias=False)
        q, scale = arithmetic.quantize_weight(shared.weight)
        model = nn.ModuleDict({"a": shared, "b": shared})
        assert replace_linears_with_tle_int8(model, {"b.weight": q, "b.weight_scale": scale}) == 1
        assert model["a"] is model["b"]

    def test_absent_and_float_linears_stay(self, caplog):
        model = Block()
        state = pre_quantized(model)
        del state["odd.weight"], state["odd.weight_scale"], state["down.weight_scale"]
        state["down.weight"] = model.down.weight.detach().clone()
        with caplog.at_level(logging.INFO, logger="hf_tle_int8"):
            assert replace_linears_with_tle_int8(model, state) == 1
        assert "2 without an int8 weight in the state dict (down, odd)" in caplog.text

    def test_nothing_found_warns(self, caplog):
        assert replace_linears_with_tle_int8(Block(), {}) == 0
        assert caplog.records[-1].levelno == logging.WARNING

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("down.weight", None, r"lacks down\.weight"),
            ("down.weight_scale", None, r"lacks down\.weight_scale"),
            ("up.bias", None, r"lacks up\.bias"),
            ("down.bias", torch.ones(8), r"has down\.bias"),
            ("down.weight", torch.ones(8, 12), r"down\.weight has dtype torch\.float32"),
            ("down.weight", torch.ones(8, 11, dtype=torch.int8), r"down\.weight has shape \(8, 11\)"),
            ("up.bias", torch.ones(11), r"up\.bias has shape \(11,\)"),
            ("down.weight_scale", torch.ones(7), r"down\.weight_scale has shape"),
            ("down.weight_scale", torch.ones(8, dtype=torch.int32), r"down\.weight_scale has dtype torch\.int32"),
            ("down.weight_scale", torch.full((8,), -1.0), r"down\.weight_scale is -1\.0"),
        ],
    )
    def test_damage_is_named_and_nothing_changes(self, key, value, message):
        model = Block()
        state = {**pre_quantized(model), key: value}
        state = {name: tensor for name, tensor in state.items() if tensor is not None}
        with pytest.raises(CheckpointError, match=message):
            replace_linears_with_tle_int8(model, state)
        assert not int8_layers(model)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"up.bias": torch.zeros(12, dtype=torch.int64)}, r"up\.bias has dtype torch\.int64"),
            ({"up.weight_scale": torch.ones(12, 1, device="meta")}, "has tensors on cpu and meta"),
            ({"up.weight": [1, 2]}, r"up\.weight is a list"),
        ],
    )
    def test_wrong_kinds_of_tensors_are_refused(self, changes, message):
        model = Block()
        with pytest.raises(CheckpointError, match=message):
            replace_linears_with_tle_int8(model, {**pre_quantized(model), **changes})
        assert not int8_layers(model)

    def test_unused_int8_weights_are_named(self, caplog):
        model = Block()
        state = pre_quantized(model)
        extra = {"elsewhere.weight": state["up.weight"], "elsewhere.weight_scale": state["up.weight_scale"]}
        assert replace_linears_with_tle_int8(model, {**state, **extra}, skip=["odd"]) == 2
        assert "2 INT8 weights of the state dict belong to no linear" in caplog.text
        assert "elsewhere.weight, odd.weight" in caplog.text


@pytest.mark.parametrize("model", [None, "a/folder", [nn.Linear(2, 2)]])
def test_what_is_no_module_is_refused(model):
    for convert in (quantize_and_replace_linears, partial(replace_linears_with_tle_int8, state_dict={})):
        with pytest.raises(InputTypeError, match=f"the model is a {type(model).__name__}: a torch.nn.Module is needed"):
            convert(model)


def test_a_state_dict_is_a_mapping():
    with pytest.raises(InputTypeError, match="state_dict is a list"):
        replace_linears_with_tle_int8(nn.Linear(2, 2), [1])
