import numpy as np
import pytest
import torch
from arm_emulation import CPU_OF_TARGET
from kernel_runs import on_arm, on_host
from linear_runs import ALL_ROWS, TYPES, activations, array, assert_same, choices, host_targets, poisoned, quantizer
from tensor_kernels import POISON

from hf_tle_int8.arithmetic import quantize_activation
from hf_tle_int8.backend.target import named
from hf_tle_int8.dispatch import Choice, scheme

# Around the group of each instruction, the padding, and what is quantized at a time.
TAILS = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200)
FEW_TAILS = (1, 9, 33, 65, 128)


def last_tile(name):
    """`test_linear_tiles` has all."""
    return choices(named(name))[-1]


def check(name, dtype, choice, kernel, m, k):
    """Codes where `quantize` puts them, zeros behind K and in the rows behind M, and nothing beyond."""
    layout = scheme(named(name))
    group, padded = layout.packing.group, layout.packing.padded(1, k)[1]
    rows = choice.rows
    groups = -(-m // rows)
    x = activations(m, k, dtype)
    q, scale = poisoned(groups * rows * padded + 64, torch.int8), poisoned(groups * rows + 16, torch.float32)
    kernel(array(x), k, array(q), array(scale), m, k, padded, groups, 1, 1, 1)
    codes, scales = quantize_activation(torch.cat([x, x.new_zeros(groups * rows - m, k)]))
    whole = torch.zeros(groups * rows, padded, dtype=torch.int8)
    whole[:, :k] = codes
    if choice.flipped:
        whole ^= -128
    expected = whole.reshape(groups, rows, padded // group, group).transpose(1, 2).flatten()
    np.testing.assert_array_equal(array(q[: expected.numel()]), array(expected))
    assert_same(scale[: groups * rows], scales.flatten())
    for room, used in ((q, expected.numel()), (scale, groups * rows)):
        assert (room[used:].view(torch.uint8) == POISON).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", host_targets())
def test_on_the_host(name, dtype):
    choice = last_tile(name)
    kernel = on_host(quantizer(named(name), dtype, choice), named(name))
    for k in TAILS:
        for m in (1, choice.rows + 1, ALL_ROWS):
            check(name, dtype, choice, kernel, m, k)


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    choice = last_tile(name)
    cases = {dtype: quantizer(named(name), dtype, choice) for dtype in TYPES}
    with on_arm(list(cases.values()), name, tmp_path) as kernel:
        for dtype, case in cases.items():
            for k in FEW_TAILS:
                check(name, dtype, choice, kernel(case), ALL_ROWS + 1, k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_float(dtype):
    """Each number as a row of its own, and all finite ones beside the largest of them."""
    name = host_targets()[0]
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    kernel = on_host(quantizer(named(name), dtype, Choice(1, 1, 1, 1, False, 1)), named(name))
    padded = scheme(named(name)).packing.k_multiple
    for x in (every[:, None], every[every.isfinite()].reshape(-1, 16)):
        m, k = x.shape
        q, scale = poisoned((m, padded), torch.int8), poisoned(m, torch.float32)
        kernel(array(x.contiguous()), k, array(q), array(scale), m, k, padded, m, 1, 1, 1)
        codes, scales = quantize_activation(x)
        assert torch.equal(q[:, :k], codes)
        assert_same(scale, scales.flatten())
