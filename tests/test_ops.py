import pytest
import torch
import torch._dynamo.testing
from torch._subclasses.fake_tensor import FakeTensorMode

from hf_tle_int8 import TLEInt8Linear, arithmetic, ops
from hf_tle_int8.errors import InputTypeError, InputValueError, UnsupportedPlacementError


@pytest.fixture
def state():
    return (*arithmetic.quantize_weight(torch.randn(6, 10)), torch.randn(6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
def test_opcheck(state, dtype, biased):
    weight, scale, bias = state
    x = torch.randn(2, 3, 10, dtype=dtype, requires_grad=True)
    arguments = (x, weight, scale, bias if biased else None, 10)
    outcomes = torch.library.opcheck(torch.ops.tle_int8.linear.default, arguments)
    assert set(outcomes.values()) == {"SUCCESS"}


@pytest.mark.parametrize("shape", [(10,), (1, 10), (0, 10), (2, 0, 10), (2, 3, 4, 10)])
def test_leading_dimensions(state, shape):
    x = torch.randn(shape)
    y = ops.linear(x, *state)
    assert y.shape == (*shape[:-1], 6)
    assert torch.equal(y.reshape(-1, 6), arithmetic.int8_linear(x.reshape(-1, 10), *state))


def test_strided_input(state):
    x = torch.randn(10, 4).t()
    assert torch.equal(ops.linear(x, *state), ops.linear(x.contiguous(), *state))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64])
def test_input_dtype_is_refused(state, dtype):
    with pytest.raises(InputTypeError, match=f"{dtype}.*float32, float16 or bfloat16.*Convert"):
        ops.linear(torch.ones(2, 10).to(dtype), *state)


@pytest.mark.parametrize("shape", [(2, 11), (10, 2), (1,), ()])
def test_input_shape_is_refused(state, shape):
    with pytest.raises(InputValueError, match=r"\[\.\.\., 10\] is needed, in_features last"):
        ops.linear(torch.ones(shape), *state)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_other_devices_are_refused(state, device):
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 10, device=device)
        with pytest.raises(UnsupportedPlacementError, match=rf"{device}.*\.to\('cpu'\)"):
            ops.linear(x, *state)


def test_meta_input_and_real_weight_are_refused(state):
    with pytest.raises(UnsupportedPlacementError, match="meta"):
        ops.linear(torch.empty(2, 10, device="meta"), *state)


def test_meta_gives_shapes(state):
    meta = [tensor.to("meta") for tensor in state]
    y = ops.linear(torch.empty(2, 5, 10, device="meta", dtype=torch.bfloat16), *meta)
    assert y.shape == (2, 5, 6)
    assert y.dtype == torch.bfloat16


def test_gradients(state):
    weight, scale, bias = state
    x = torch.randn(3, 10, requires_grad=True)
    bias.requires_grad_()
    grad = torch.randn(3, 6)
    ops.linear(x, weight, scale, bias).backward(grad)
    torch.testing.assert_close(x.grad, grad @ (weight.float() * scale))
    torch.testing.assert_close(bias.grad, grad.sum(0))
    assert weight.grad is None
    assert scale.grad is None


def test_compiles_to_one_graph_with_dynamic_rows():
    model = torch.nn.Sequential(TLEInt8Linear.from_linear(torch.nn.Linear(10, 6)), torch.nn.ReLU())
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for rows in (2, 3, 17, 64):
        x = torch.randn(rows, 10)
        assert torch.equal(compiled(x), model(x))
    assert counter.frame_count == 1


def test_compiled_training_step_matches_eager():
    model = TLEInt8Linear.from_linear(torch.nn.Linear(10, 6))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 10)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for run, leaf in zip((model, compiled), inputs, strict=True):
        run(leaf).square().sum().backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)
