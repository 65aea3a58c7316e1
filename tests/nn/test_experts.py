"""Experts in INT8: the oracle computes each token alone, with int64 products."""

import copy
import pickle

import pytest
import torch
from moe_support import expected_experts, float_moe, routing
from support import FLOATS, numpy_quantize_weight

from hf_tle_int8 import execution, quantize_and_replace_linears
from hf_tle_int8.errors import InputTypeError, InputValueError, UnsupportedTrainingError
from hf_tle_int8.nn import TLEInt8Experts, expert_ops, packed
from hf_tle_int8.nn.expert_codes import quantize_experts
from hf_tle_int8.nn.expert_layout import is_experts, row_major
from hf_tle_int8.packing import Packing, is_packed

KINDS = ("qwen", "gpt_oss", "nemotron")
CASES = [*(("qwen", dtype) for dtype in FLOATS), ("gpt_oss", torch.bfloat16), ("nemotron", torch.float32)]


@pytest.fixture(scope="module")
def float_layers():
    """The float experts of one layer of each kind."""
    models = {kind: float_moe(kind) for kind in KINDS}
    return {kind: next(filter(is_experts, model.modules())) for kind, model in models.items()}


def quantized(experts):
    experts = copy.deepcopy(experts)
    assert quantize_and_replace_linears(experts) == 1
    return experts


@pytest.fixture
def layer(float_layers):
    return quantized(float_layers["qwen"])


@pytest.fixture
def call():
    x = torch.randn(23, 48)
    return x, *routing(23, 4, 2)


def held(layer):
    return [layer._parameters[name] for name in layer.projections]


class TestForward:
    @pytest.mark.parametrize(("kind", "dtype"), CASES)
    def test_against_the_oracle(self, float_layers, call, kind, dtype):
        layer, (x, index, weights) = quantized(float_layers[kind]).to(dtype), call
        x = x.to(dtype)
        expected = expected_experts(layer, x, index, weights)
        with torch.no_grad():
            actual = layer(x, index, weights)
        assert actual.dtype == dtype
        torch.testing.assert_close(actual, expected.to(dtype))

    @pytest.mark.parametrize("kind", KINDS)
    def test_close_to_float(self, float_layers, call, kind):
        float_layers[kind].config._experts_implementation = "grouped_mm"
        with torch.no_grad():
            expected, actual = float_layers[kind](*call), quantized(float_layers[kind])(*call)
        assert (actual - expected).norm() / expected.norm() < 0.03

    @pytest.mark.parametrize(("kind", "dtype"), CASES)
    def test_a_token_gives_the_same_bits_alone_and_in_any_batch(self, float_layers, call, kind, dtype):
        layer, (x, index, weights) = quantized(float_layers[kind]).to(dtype), call
        x = x.to(dtype)
        with torch.no_grad():
            whole = layer(x, index, weights)
            alone = [layer(x[t : t + 1], index[t : t + 1], weights[t : t + 1]) for t in range(len(x))]
            order = torch.randperm(len(x))[:9]
            some = layer(x[order], index[order], weights[order])
        assert torch.equal(torch.cat(alone), whole)
        assert torch.equal(some, whole[order])

    @pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
    def test_the_implementation_of_transformers_does_not_matter(self, layer, call, implementation):
        with torch.no_grad():
            expected = layer(*call)
            layer.config._experts_implementation = implementation
            assert torch.equal(layer(*call), expected)

    def test_the_reference_gives_the_same_bits(self, layer, call, monkeypatch):
        with torch.no_grad():
            expected = layer(*call)
            for name in layer.projections:
                assert not is_packed(getattr(layer, name))
            monkeypatch.setattr(execution, "unavailable", lambda: "no kernels")
            packed._warn_of_missing_kernels.cache_clear()
            with pytest.warns(RuntimeWarning, match="plain-torch reference"):
                assert torch.equal(layer(*call), expected)

    def test_only_the_experts_that_are_routed_to_are_read(self, layer, monkeypatch):
        seen = []
        run = execution.packed_linear

        def spy(x, panels, scale, bias):
            seen.append((len(x), panels.data_ptr()))
            return run(x, panels, scale, bias)

        monkeypatch.setattr(execution, "packed_linear", spy)
        with torch.no_grad():
            layer(torch.randn(1, 48), torch.tensor([[4, 1]]), torch.rand(1, 2))
        panels = [weight.data[expert].data_ptr() for weight in held(layer) for expert in (4, 1)]
        assert seen == [(1, address) for address in panels]

    def test_no_expert_is_zero(self, layer, call):
        x, index, weights = call
        without = index.clone()
        without[:, 1], without[3] = 6, 6
        with torch.no_grad():
            y = layer(x, without, weights)
            assert torch.equal(y[:3], layer(x[:3], index[:3, :1], weights[:3, :1]))
        assert not y[3].any()

    def test_no_token(self, layer):
        y = layer(torch.randn(0, 48), torch.empty(0, 2, dtype=torch.int64), torch.rand(0, 2))
        assert y.shape == (0, 48)

    def test_nan_stays_with_its_token(self, layer, call):
        x, index, weights = call
        with torch.no_grad():
            expected = layer(x, index, weights)
            x[5, 7] = float("nan")
            y = layer(x, index, weights)
        assert y[5].isnan().all()
        others = [t for t in range(len(x)) if t != 5]
        assert torch.equal(y[others], expected[others])

    @pytest.mark.parametrize("expert", [-1, 7])
    def test_experts_that_do_not_exist(self, layer, call, expert):
        x, index, weights = call
        index[2, 0] = expert
        with pytest.raises(InputValueError, match=rf"routed to expert {expert}: there are 6"):
            layer(x, index, weights)

    def test_wrong_inputs(self, layer, call):
        _, index, weights = call
        with pytest.raises(InputTypeError, match=r"dtype torch\.float64"):
            layer(torch.randn(23, 48, dtype=torch.float64), index, weights)
        with pytest.raises(InputValueError, match=r"\[\.\.\., 48\] is needed"):
            layer(torch.randn(23, 47), index, weights)
        scale = layer.down_proj_scale
        with pytest.raises(InputValueError, match="an expert for each row"):
            expert_ops.expert_linear(torch.randn(3, 36), torch.zeros(2).long(), layer.down_proj, scale, None, 36)


class TestCompile:
    def test_data_dependent_routing_in_one_graph(self, layer, call):
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            for _ in range(3):
                index, weights = routing(23, 4, 2)
                assert torch.equal(compiled(call[0], index, weights), layer(call[0], index, weights))
            one = (call[0][:1], index[:1], weights[:1])
            assert torch.equal(compiled(*one), layer(*one))

    def test_operators_keep_their_contract(self, layer):
        layer.pack_()
        x, experts = torch.randn(5, 36, requires_grad=True), torch.tensor([0, 0, 3, 5, 6])
        bias = torch.randn(6, 48, requires_grad=True)
        arguments = (x, experts, held(layer)[1].detach(), layer.down_proj_scale, bias, 36)
        outcomes = torch.library.opcheck(torch.ops.tle_int8.expert_linear.default, arguments)
        assert set(outcomes.values()) == {"SUCCESS"}

    def test_row_major_weights_are_reported(self, layer):
        expert_ops._warn_of_row_major_weights.cache_clear()
        with pytest.warns(RuntimeWarning, match="experts with row-major weights run on the plain-torch reference"):
            expert_ops.expert_linear(
                torch.randn(1, 36), torch.tensor([0]), layer.down_proj, layer.down_proj_scale, None, 36
            )


class TestGradients:
    @pytest.mark.parametrize("packed", [True, False])
    def test_of_the_operator(self, float_layers, packed):
        layer = quantized(float_layers["gpt_oss"])
        weight = held(layer)[1].detach() if packed else layer.down_proj.detach()
        assert is_packed(weight) == packed
        x, bias = torch.randn(7, 36, requires_grad=True), torch.randn(4, 48, requires_grad=True)
        experts, grad = torch.tensor([0, 0, 2, 2, 2, 3, 4]), torch.randn(7, 48)
        expert_ops.expert_linear(x, experts, weight, layer.down_proj_scale, bias, 36).backward(grad)
        floats = torch.cat([layer.dequantize("down_proj"), torch.zeros(1, 48, 36)])
        torch.testing.assert_close(x.grad, torch.einsum("sn,snk->sk", grad, floats[experts]))
        expected = torch.stack([grad[experts == expert].sum(0) for expert in range(4)])
        torch.testing.assert_close(bias.grad, expected)

    def test_flow_to_the_input_and_the_router(self, layer, float_layers, call):
        x, index, weights = call
        reference = copy.deepcopy(float_layers["qwen"])
        reference.config._experts_implementation = "eager"
        grads = []
        for module in (layer, reference):
            leaves = x.clone().requires_grad_(), weights.clone().requires_grad_()
            module(leaves[0], index, leaves[1]).square().sum().backward()
            grads.append([leaf.grad for leaf in leaves])
        for actual, expected in zip(*grads, strict=True):
            assert (actual - expected).norm() / expected.norm() < 0.05

    def test_weights_are_frozen(self, layer):
        assert not any(parameter.requires_grad for parameter in layer.parameters())


class TestState:
    @pytest.mark.parametrize("kind", KINDS)
    def test_codes_and_scales_are_those_of_each_matrix(self, float_layers, kind):
        layer = quantized(float_layers[kind])
        for name in layer.projections:
            for expert, matrix in enumerate(row_major(float_layers[kind], getattr(float_layers[kind], name))):
                codes, scale = numpy_quantize_weight(matrix)
                assert torch.equal(getattr(layer, name)[expert], torch.from_numpy(codes))
                assert torch.equal(getattr(layer, f"{name}_scale")[expert], torch.from_numpy(scale))

    @pytest.mark.parametrize(
        "look",
        [
            lambda layer: layer.state_dict(),
            lambda layer: copy.deepcopy(layer).state_dict(),
            lambda layer: pickle.loads(pickle.dumps(layer)).state_dict(),
            lambda layer: layer.to(torch.float16).state_dict(),
            lambda layer: {name: getattr(layer, name) for name, _ in layer.named_parameters()},
        ],
    )
    def test_all_who_look_see_row_major_codes(self, layer, look):
        expected = {key: value.clone() for key, value in layer.state_dict().items()}
        layer.pack_()
        actual = look(layer)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert actual[key].dtype == value.dtype
            assert torch.equal(actual[key], value)

    def test_only_one_copy_is_held(self, layer):
        layer.pack_()
        assert all(map(is_packed, held(layer)))
        tensors = [*layer.parameters(), *layer.buffers(), *(v for v in vars(layer).values() if torch.is_tensor(v))]
        assert sum(t.numel() for t in tensors if t.dtype == torch.int8) == sum(w.numel() for w in held(layer))

    def test_panels_of_another_machine(self, layer, call):
        with torch.no_grad():
            expected = layer(*call)
            for weight, name in zip(held(layer), layer.projections, strict=True):
                weight.data = Packing(4, 2, 4, 2).pack(getattr(layer, name).data)
            moved = pickle.loads(pickle.dumps(layer))
            assert torch.equal(moved(*call), expected)

    def test_dtypes_and_devices(self, layer):
        layer.pack_().to(torch.bfloat16)
        assert {p.dtype for p in layer.parameters()} == {torch.int8, torch.float32}
        assert held(layer.to("meta"))[0].shape == (6, 72, 48)

    def test_loading_replaces_the_codes(self, layer, float_layers, call):
        other = quantized(float_layers["qwen"])
        for weight in held(other):
            weight.data.neg_()
        state = {key: value.clone() for key, value in other.state_dict().items()}
        state["down_proj_scale"] = state["down_proj_scale"][..., 0].double()
        layer.load_state_dict(state)
        with torch.no_grad():
            assert torch.equal(layer(*call), other(*call))

    @pytest.mark.parametrize(
        ("key", "damage", "message"),
        [
            ("down_proj", lambda t: t.float(), r"down_proj\[0\] has dtype torch.float32"),
            ("down_proj", lambda t: t[:2], r"size mismatch for down_proj"),
            ("down_proj", lambda t: t[0, 0, 0], r"down_proj has shape \(\), one number: \[\d+, 48, \d+\] is needed"),
            ("down_proj_scale", lambda t: t[0, 0, 0], r"down_proj_scale has shape \(\), .* Load the state dict"),
            ("down_proj_scale", lambda t: 1.0, r"down_proj_scale is a float: a torch.Tensor is needed"),
            ("up_proj_scale", lambda t: t * 0, r"gate_up_proj_scale\[0\] is 0\.0 for output channel 0"),
            ("up_proj_scale", lambda t: t[:, :3], r"gate_up_proj_scale\[0\] has shape \(3, 1\)"),
        ],
    )
    def test_damaged_states_are_refused(self, layer, key, damage, message):
        state = {name: damage(value) if name.endswith(key) else value for name, value in layer.state_dict().items()}
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        with pytest.raises(RuntimeError, match=message):
            layer.load_state_dict(state)
        assert torch.equal(layer.gate_up_proj_scale, before["gate_up_proj_scale"])

    @pytest.mark.parametrize("kind", KINDS)
    def test_revert(self, float_layers, call, kind):
        layer, reference = quantized(float_layers[kind]), float_layers[kind]
        expected = {name: row_major(reference, layer.dequantize(name, torch.bfloat16)) for name in layer.projections}
        layer.revert(torch.bfloat16)
        assert type(layer) is type(reference)
        assert vars(layer).keys() == vars(reference).keys()
        assert [n for n, _ in layer.named_parameters()] == [n for n, _ in reference.named_parameters()]
        for name, weight in expected.items():
            assert torch.equal(getattr(layer, name), weight)
            assert getattr(layer, name).requires_grad
            assert getattr(layer, name).shape == getattr(reference, name).shape

    def test_references_and_hooks_stay(self, float_layers, call):
        experts, seen = copy.deepcopy(float_layers["qwen"]), []
        experts.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
        quantize_and_replace_linears(torch.nn.Sequential(experts))
        experts(*call)
        assert seen == [TLEInt8Experts]

    def test_a_weight_with_nan_is_named(self, float_layers):
        weight = float_layers["qwen"].down_proj.detach().clone()
        weight[4, 3, 2] = float("nan")
        with pytest.raises(InputValueError, match=r"down_proj\[4\] holds NaN or Inf in output channel 3"):
            quantize_experts(weight, "down_proj")

    def test_training_is_refused(self, layer):
        with pytest.raises(UnsupportedTrainingError, match=r"TLEInt8Experts: INT8 weights have no gradient.*PEFT"):
            layer.requires_grad_(True)
        assert not any(parameter.requires_grad for parameter in layer.parameters())

    def test_print(self, layer):
        assert "Qwen3MoeExperts, gate_up_proj=[6, 72, 48]" in repr(layer)
