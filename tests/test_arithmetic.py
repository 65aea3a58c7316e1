import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    FLOATS,
    int64_product,
    numpy_linear,
    numpy_quantize_activation,
    numpy_quantize_weight,
)

from hf_tle_int8 import arithmetic
from hf_tle_int8.errors import InputTypeError, InputValueError


def random_int8(*shape: int) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


class TestQuantizeWeight:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 172), (300, 1000), (2, 70_000)])
    def test_equals_the_formula(self, dtype, shape):
        weight = (torch.randn(shape) * 0.05).to(dtype)
        q, scale = arithmetic.quantize_weight(weight)
        expected_q, expected_scale = numpy_quantize_weight(weight)
        assert q.dtype == torch.int8
        assert scale.shape == (shape[0], 1)
        assert np.array_equal(q.numpy(), expected_q)
        assert np.array_equal(scale.numpy(), expected_scale)

    def test_rounds_half_to_even(self):
        weight = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]])
        q, scale = arithmetic.quantize_weight(weight)
        assert scale.item() == 1.0
        assert q.tolist() == [[127, 0, 2, 2, 0, -2, -127]]

    def test_zero_channel_has_positive_scale(self):
        q, scale = arithmetic.quantize_weight(torch.zeros(2, 3))
        assert not q.any()
        assert torch.equal(scale, torch.full((2, 1), 1e-8) / 127)

    def test_float64_goes_through_float32(self):
        weight = torch.randn(4, 9, dtype=torch.float64)
        assert torch.equal(arithmetic.quantize_weight(weight)[0], arithmetic.quantize_weight(weight.float())[0])

    def test_no_channels(self):
        q, scale = arithmetic.quantize_weight(torch.empty(0, 4))
        assert q.shape == (0, 4)
        assert scale.shape == (0, 1)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
    def test_not_finite_is_refused_by_channel(self, bad):
        weight = torch.randn(600, 1000)
        weight[517, 3] = bad
        for refuse in (arithmetic.quantize_weight, arithmetic.check_weight):
            with pytest.raises(InputValueError, match=r"layer\.weight holds NaN or Inf in output channel 517"):
                refuse(weight, "layer.weight")

    @pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 0), (1, 131073)])
    def test_shape_is_refused(self, shape):
        with pytest.raises(InputValueError, match=r"a \[N, K\] matrix"):
            arithmetic.quantize_weight(torch.ones(shape))

    def test_integer_is_refused(self):
        with pytest.raises(InputTypeError, match=r"torch\.int8"):
            arithmetic.quantize_weight(random_int8(2, 2))

    def test_source_is_unchanged(self):
        weight = torch.randn(300, 400)
        before = weight.clone()
        arithmetic.quantize_weight(weight)
        assert torch.equal(weight, before)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("shape", [(4096, 1024), (2, 131072)])
    def test_peak_memory(self, dtype, shape):
        weight = torch.randn(shape).to(dtype)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            result = arithmetic.quantize_weight(weight)
        result_bytes = sum(tensor.nbytes for tensor in result)
        changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        live = np.cumsum([e.nbytes() for e in sorted(changes, key=lambda e: e.start_ns())])
        assert live.max() > result_bytes, "the profiler saw the allocations"
        assert live.max() - result_bytes <= 2**20


class TestDequantizeWeight:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_is_the_rounded_product(self, dtype):
        q, scale = random_int8(70, 3000), torch.rand(70, 1) + 0.01
        expected = (q.float() * scale).to(dtype)
        assert torch.equal(arithmetic.dequantize_weight(q, scale, dtype), expected)

    def test_error_is_half_a_step(self):
        weight = torch.randn(50, 200)
        q, scale = arithmetic.quantize_weight(weight)
        assert ((arithmetic.dequantize_weight(q, scale) - weight).abs() <= scale * 0.5001).all()

    def test_quantizing_again_changes_nothing(self):
        q, scale = arithmetic.quantize_weight(torch.randn(50, 200))
        again, _ = arithmetic.quantize_weight(arithmetic.dequantize_weight(q, scale))
        assert torch.equal(again, q)


class TestQuantizeActivation:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("shape", [(1, 1), (7, 33), (200, 1031)])
    def test_equals_the_formula(self, dtype, shape):
        x = (torch.randn(shape) * 3).to(dtype)
        q, scale = arithmetic.quantize_activation(x)
        expected_q, expected_scale = numpy_quantize_activation(x)
        assert q.dtype == torch.int8
        assert np.array_equal(q.numpy(), expected_q)
        assert np.array_equal(scale.numpy(), expected_scale)

    def test_multiplies_by_a_once_rounded_reciprocal(self):
        # The quotient 127 / absmax differs from 127 * (1 / absmax) for about one row in four.
        x = torch.rand(4096, 64) + 0.01
        absmax = x.amax(1, keepdim=True)
        once, twice = torch.div(torch.full_like(absmax, 127), absmax), absmax.reciprocal() * 127
        assert (once != twice).any()
        q, _ = arithmetic.quantize_activation(x)
        assert torch.equal(q, (x * once).round().to(torch.int8))

    def test_codes_stay_within_127(self):
        x = torch.linspace(-1, 1, 10_000).reshape(100, 100)
        assert arithmetic.quantize_activation(x)[0].abs().max() == 127

    def test_zero_row(self):
        q, scale = arithmetic.quantize_activation(torch.zeros(2, 5))
        assert not q.any()
        assert (scale > 0).all()

    def test_no_rows(self):
        q, scale = arithmetic.quantize_activation(torch.empty(0, 5))
        assert q.shape == (0, 5)
        assert scale.shape == (0, 1)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
    def test_not_finite_stays_in_its_row(self, bad):
        x = torch.randn(3, 8)
        clean, clean_scale = arithmetic.quantize_activation(x)
        x[1, 4] = bad
        q, scale = arithmetic.quantize_activation(x)
        assert scale[1].isnan().all()
        assert not q[1].any()
        for row in (0, 2):
            assert torch.equal(q[row], clean[row])
            assert torch.equal(scale[row], clean_scale[row])


class TestInt32Product:
    @pytest.mark.parametrize("m", [0, 1, 2, 7, 33])
    @pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 1023), (513, 1025), (40, 5000)])
    def test_equals_int64(self, m, n, k):
        q_x, q_w = random_int8(m, k), random_int8(n, k)
        product = arithmetic.int32_product(q_x, q_w)
        assert product.dtype == torch.int32
        assert torch.equal(product.long(), int64_product(q_x, q_w))

    @pytest.mark.parametrize(("x_value", "w_value"), [(127, 127), (-127, -128), (127, -128), (-128, -128)])
    @pytest.mark.parametrize("k", [1024, 2048, 131071])
    def test_saturated(self, x_value, w_value, k):
        q_x = torch.full((3, k), x_value, dtype=torch.int8)
        q_w = torch.full((2, k), w_value, dtype=torch.int8)
        assert (arithmetic.int32_product(q_x, q_w) == x_value * w_value * k).all()

    def test_largest_k(self):
        q_x = torch.full((1, 131072), -127, dtype=torch.int8)
        q_w = torch.full((1, 131072), -128, dtype=torch.int8)
        assert arithmetic.int32_product(q_x, q_w).item() == 127 * 128 * 131072

    @pytest.mark.parametrize("precision", ["highest", "high", "medium"])
    def test_matmul_precision_and_autocast_do_not_matter(self, precision):
        q_x, q_w = random_int8(5, 4096), random_int8(64, 4096)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                product = arithmetic.int32_product(q_x, q_w)
        finally:
            torch.set_float32_matmul_precision(before)
        assert torch.equal(product.long(), int64_product(q_x, q_w))


class TestInt8Linear:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("bias_dtype", [None, *FLOATS])
    def test_equals_the_formula(self, dtype, bias_dtype):
        x = torch.randn(9, 300).to(dtype)
        q_w, scale_w = arithmetic.quantize_weight(torch.randn(70, 300))
        bias = None if bias_dtype is None else torch.randn(70).to(bias_dtype)
        y = arithmetic.int8_linear(x, q_w, scale_w, bias)
        expected = torch.from_numpy(numpy_linear(x, q_w, scale_w, bias)).to(dtype)
        assert y.dtype == dtype
        assert torch.equal(y, expected)

    @settings(max_examples=40, deadline=None)
    @given(
        rows=st.integers(1, 40),
        k=st.integers(1, 300),
        n=st.integers(1, 60),
        dtype=st.sampled_from(FLOATS),
        seed=st.integers(0, 2**31),
    )
    def test_a_row_gives_the_same_bits_in_any_batch(self, rows, k, n, dtype, seed):
        torch.manual_seed(seed)
        x = torch.randn(rows, k).to(dtype)
        state = (*arithmetic.quantize_weight(torch.randn(n, k)), torch.randn(n))
        together = arithmetic.int8_linear(x, *state)
        for row in range(rows):
            assert torch.equal(arithmetic.int8_linear(x[row : row + 1], *state)[0], together[row])

    def test_threads_do_not_matter(self):
        x, weight = torch.randn(65, 2100), torch.randn(700, 2100)
        threads = torch.get_num_threads()
        results = []
        try:
            for count in (1, 2, 3, 4):
                torch.set_num_threads(count)
                state = arithmetic.quantize_weight(weight)
                results.append((*state, arithmetic.int8_linear(x, *state, None)))
        finally:
            torch.set_num_threads(threads)
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_not_finite_rows_are_nan_and_alone(self, bad):
        x = torch.randn(4, 16)
        state = (*arithmetic.quantize_weight(torch.randn(5, 16)), torch.randn(5))
        clean = arithmetic.int8_linear(x, *state)
        x[2, 7] = bad
        y = arithmetic.int8_linear(x, *state)
        assert y[2].isnan().all()
        assert torch.equal(y[[0, 1, 3]], clean[[0, 1, 3]])


class TestGradient:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_is_that_of_the_dequantized_layer(self, dtype):
        q, scale = arithmetic.quantize_weight(torch.randn(1100, 40))
        grad = torch.randn(6, 1100).to(dtype)
        expected = (grad.double() @ (q.double() * scale.double())).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = arithmetic.int8_linear_grad_input(grad, lambda a, b, q=q: q[a:b], scale, q.shape[1])
        assert actual.dtype == dtype
        scale_of_terms = (grad.double().abs() @ (q.double() * scale.double()).abs()).to(dtype)
        assert ((actual - expected).abs() <= 2 * torch.finfo(dtype).eps * scale_of_terms).all()
