import copy
import io
import pickle

import pytest
import torch
from support import FLOATS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hf_tle_int8 import TLEInt8Linear, arithmetic
from hf_tle_int8.errors import InputTypeError, InputValueError, UnsupportedPlacementError


def make_state(n: int = 6, k: int = 10):
    return (*arithmetic.quantize_weight(torch.randn(n, k)), torch.randn(n))


def assert_same_state(actual: TLEInt8Linear, expected: TLEInt8Linear) -> None:
    assert actual.weight.dtype == torch.int8
    assert actual.weight_scale.dtype == torch.float32
    assert torch.equal(actual.weight, expected.weight)
    assert torch.equal(actual.weight_scale, expected.weight_scale)


class TestConstruction:
    @pytest.mark.parametrize("shape", [(6,), (6, 1)])
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_scale_shapes_and_dtypes(self, shape, dtype):
        weight, scale, _ = make_state()
        layer = TLEInt8Linear(weight, scale.to(dtype).reshape(shape))
        assert layer.weight_scale.shape == (6, 1)
        assert torch.equal(layer.weight_scale, scale.to(dtype).float())

    @pytest.mark.parametrize("scale", [0.5, torch.tensor(0.5)])
    def test_scalar_scale(self, scale):
        layer = TLEInt8Linear(make_state()[0], scale)
        assert torch.equal(layer.weight_scale, torch.full((6, 1), 0.5))

    @pytest.mark.parametrize("shape", [(5,), (1, 6), (6, 2), (6, 1, 1), (1,)])
    def test_scale_shape_is_refused(self, shape):
        with pytest.raises(InputValueError, match=r"w_scale has shape .*\[6\], \[6, 1\] or a scalar"):
            TLEInt8Linear(make_state()[0], torch.ones(shape))

    @pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
    def test_scale_value_is_refused(self, bad):
        scale = torch.ones(6)
        scale[4] = bad
        with pytest.raises(InputValueError, match=rf"w_scale is {bad} for output channel 4.*finite and above 0"):
            TLEInt8Linear(make_state()[0], scale)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.uint8])
    def test_weight_dtype_is_refused(self, dtype):
        with pytest.raises(InputTypeError, match=rf"{dtype}.*from_linear"):
            TLEInt8Linear(torch.ones(6, 10, dtype=dtype), torch.ones(6))

    def test_integer_scale_is_refused(self):
        with pytest.raises(InputTypeError, match=r"torch\.int64"):
            TLEInt8Linear(make_state()[0], torch.ones(6, dtype=torch.int64))

    @pytest.mark.parametrize("shape", [(6,), (6, 0), (2, 3, 4), (1, 131073)])
    def test_weight_shape_is_refused(self, shape):
        with pytest.raises(InputValueError, match="w_int8 has shape"):
            TLEInt8Linear(torch.ones(shape, dtype=torch.int8), 1.0)

    def test_bias_is_checked(self):
        weight, scale, bias = make_state()
        with pytest.raises(InputValueError, match="bias has shape"):
            TLEInt8Linear(weight, scale, bias[:-1])
        with pytest.raises(InputTypeError, match="bias has dtype"):
            TLEInt8Linear(weight, scale, bias.long())

    def test_other_devices_are_refused(self):
        with FakeTensorMode():
            weight = torch.empty(6, 10, dtype=torch.int8, device="cuda")
            with pytest.raises(UnsupportedPlacementError, match=r"cuda:0.*\.to\('cpu'\)"):
                TLEInt8Linear(weight, torch.ones(6))
            linear = nn.Linear(10, 6, device="meta")
            linear.weight = nn.Parameter(torch.empty(6, 10, device="cuda"))
            with pytest.raises(UnsupportedPlacementError, match="cuda:0"):
                TLEInt8Linear.from_linear(linear)

    def test_strided_weight(self):
        weight, scale, _ = make_state()
        assert torch.equal(TLEInt8Linear(weight.t().contiguous().t(), scale).weight, weight)

    def test_is_an_nn_linear(self):
        layer = TLEInt8Linear(*make_state())
        assert isinstance(layer, nn.Linear)
        assert (layer.in_features, layer.out_features) == (10, 6)
        assert not any(parameter.requires_grad for parameter in layer.parameters())

    def test_repr(self):
        expected = "in_features=10, out_features=6, bias=True, weights=int8 per channel, activations=int8 per token"
        assert expected in repr(TLEInt8Linear(*make_state()))


class TestFromLinear:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("bias", [True, False])
    def test_quantizes_and_leaves_the_source(self, dtype, bias):
        linear = nn.Linear(33, 7, bias=bias, dtype=dtype).eval()
        before = copy.deepcopy(linear.state_dict())
        layer = TLEInt8Linear.from_linear(linear)
        q, scale = arithmetic.quantize_weight(linear.weight)
        assert torch.equal(layer.weight, q)
        assert torch.equal(layer.weight_scale, scale)
        assert (layer.bias is not None) == bias
        assert not layer.training
        assert type(linear) is nn.Linear
        assert all(torch.equal(tensor, before[name]) for name, tensor in linear.state_dict().items())
        if bias:
            assert layer.bias.dtype == dtype
            assert layer.bias.data_ptr() != linear.bias.data_ptr()

    def test_close_to_the_float_layer(self):
        linear = nn.Linear(512, 64)
        x = torch.randn(20, 512)
        error = (TLEInt8Linear.from_linear(linear)(x) - linear(x)).norm() / linear(x).norm()
        assert error < 0.02

    def test_meta_weight_is_refused(self):
        with pytest.raises(UnsupportedPlacementError, match="meta"):
            TLEInt8Linear.from_linear(nn.Linear(4, 4, device="meta"))

    def test_int8_layer_is_refused(self):
        with pytest.raises(InputTypeError, match=r"torch\.int8"):
            TLEInt8Linear.from_linear(TLEInt8Linear(*make_state()))


class TestForward:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("shape", [(10,), (0, 10), (2, 0, 10), (1, 10), (3, 4, 10)])
    def test_dtype_and_shape(self, dtype, shape):
        weight, scale, bias = make_state()
        y = TLEInt8Linear(weight, scale, bias.to(dtype))(torch.randn(shape).to(dtype))
        assert y.dtype == dtype
        assert y.shape == (*shape[:-1], 6)
        assert not y.isnan().any()

    @pytest.mark.parametrize("n", [1, 2, 3, 31])
    @pytest.mark.parametrize("k", [1, 2, 3, 63])
    def test_any_n_and_k(self, n, k):
        linear = nn.Linear(k, n)
        x = torch.randn(5, k)
        y = TLEInt8Linear.from_linear(linear)(x)
        step = (x.abs().amax(1, keepdim=True) * linear.weight.abs().amax(1)) * k / 127
        assert ((y - linear(x)).abs() <= 1.01 * step + 1e-6).all()

    def test_gradient_reaches_an_adapter_and_not_the_weight(self):
        layer = TLEInt8Linear(*make_state())
        down, up = nn.Linear(10, 2, bias=False), nn.Linear(2, 10, bias=False)
        x = torch.randn(4, 10, requires_grad=True)
        layer(x + up(down(x))).square().sum().backward()
        assert all(p.grad is None for p in layer.parameters())
        assert all(tensor.grad.abs().sum() > 0 for tensor in (x, down.weight, up.weight))


class TestState:
    @pytest.mark.parametrize(
        "cast",
        [
            lambda m: m.half(),
            lambda m: m.bfloat16(),
            lambda m: m.float(),
            lambda m: m.double(),
            lambda m: m.to(torch.float16),
            lambda m: m.to("cpu", torch.bfloat16),
            lambda m: m.type(torch.float16),
        ],
    )
    def test_casts_touch_the_bias_alone(self, cast):
        layer = TLEInt8Linear(*make_state())
        cast_layer = cast(copy.deepcopy(layer))
        assert_same_state(cast_layer, layer)
        assert torch.equal(cast_layer.bias, cast(nn.ParameterList([layer.bias.clone()]))[0])

    def test_casts_of_a_parent(self):
        layer = TLEInt8Linear(*make_state())
        parent = nn.Sequential(copy.deepcopy(layer), nn.LayerNorm(6)).to(torch.bfloat16)
        assert_same_state(parent[0], layer)
        assert parent[1].weight.dtype == torch.bfloat16
        assert parent(torch.randn(2, 10, dtype=torch.bfloat16)).dtype == torch.bfloat16

    def test_meta_keeps_shapes_and_dtypes(self):
        layer = TLEInt8Linear(*make_state()).to("meta")
        assert all(parameter.is_meta for parameter in layer.parameters())
        assert layer.weight.dtype == torch.int8
        assert layer.weight_scale.dtype == torch.float32
        assert layer(torch.empty(2, 10, device="meta")).shape == (2, 6)
        restored = layer.to_empty(device="cpu")
        assert restored.weight.dtype == torch.int8
        assert restored.weight_scale.dtype == torch.float32

    def test_deepcopy_and_pickle(self):
        layer = TLEInt8Linear(*make_state())
        buffer = io.BytesIO()
        torch.save(layer, buffer)
        buffer.seek(0)
        x = torch.randn(3, 10)
        for twin in (
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            torch.load(buffer, weights_only=False),
        ):
            assert_same_state(twin, layer)
            assert twin.weight.data_ptr() != layer.weight.data_ptr()
            assert torch.equal(twin(x), layer(x))

    @pytest.mark.parametrize("assign", [True, False])
    def test_state_dict_round_trip(self, assign):
        layer, other = TLEInt8Linear(*make_state()), TLEInt8Linear(*make_state())
        state = layer.state_dict()
        assert set(state) == {"weight", "weight_scale", "bias"}
        other.load_state_dict(state, assign=assign)
        assert_same_state(other, layer)

    @pytest.mark.parametrize("assign", [True, False])
    def test_load_accepts_each_scale_shape(self, assign):
        layer = TLEInt8Linear(*make_state())
        for scale in (torch.full((6,), 0.25), torch.full((6, 1), 0.25), torch.tensor(0.25).bfloat16()):
            layer.load_state_dict({**layer.state_dict(), "weight_scale": scale}, assign=assign)
            assert torch.equal(layer.weight_scale, torch.full((6, 1), 0.25))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"weight": torch.randn(6, 10)}, r"0\.weight has dtype torch\.float32"),
            ({"weight_scale": torch.zeros(6)}, r"0\.weight_scale is 0\.0 for output channel 0"),
            ({"weight_scale": torch.ones(6, dtype=torch.int8)}, r"0\.weight_scale has dtype torch\.int8"),
            ({"weight_scale": torch.ones(5)}, r"0\.weight_scale has shape"),
            ({"weight": torch.ones(5, 10, dtype=torch.int8)}, r"size mismatch for 0\.weight"),
        ],
    )
    def test_load_refuses_and_changes_nothing(self, changes, message):
        model = nn.Sequential(TLEInt8Linear(*make_state()))
        before = copy.deepcopy(model)
        state = {**model.state_dict(), **{f"0.{name}": tensor for name, tensor in changes.items()}}
        with pytest.raises(RuntimeError, match=message):
            model.load_state_dict(state)
        assert torch.equal(model[0].weight, before[0].weight)

    def test_float_state_dict_is_refused(self):
        model = nn.Sequential(TLEInt8Linear(*make_state()))
        with pytest.raises(RuntimeError, match=r"0\.weight has dtype torch\.float32"):
            model.load_state_dict(nn.Sequential(nn.Linear(10, 6)).state_dict(), strict=False)


class TestDequantize:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_weight(self, dtype):
        layer = TLEInt8Linear(*make_state())
        assert torch.equal(layer.dequantize(dtype), (layer.weight.float() * layer.weight_scale).to(dtype))

    def test_to_linear(self):
        layer = TLEInt8Linear(*make_state()).eval()
        linear = layer.to_linear()
        assert type(linear) is nn.Linear
        assert torch.equal(linear.weight, layer.dequantize())
        assert torch.equal(linear.bias, layer.bias)
        assert linear.weight.requires_grad
        assert not linear.training
        assert layer.to_linear(torch.float16).bias.dtype == torch.float16

    def test_become_and_revert_keep_the_object(self):
        linear = nn.Linear(10, 6)
        weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
        parent = nn.Sequential(linear)
        layer = TLEInt8Linear.become(linear, *arithmetic.quantize_weight(weight), linear.bias)
        assert parent[0] is layer
        assert type(layer) is TLEInt8Linear
        reverted = layer.revert(weight, bias)
        assert parent[0] is reverted
        assert type(reverted) is nn.Linear
        assert set(reverted.state_dict()) == {"weight", "bias"}
        assert all(parameter.requires_grad for parameter in reverted.parameters())
