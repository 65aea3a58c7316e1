"""Kernels of tensors as users launch them: ``kernel[grid]`` on tensors of torch."""

import pytest
import torch
import triton
from plugin_support import registered
from tensor_kernels import add, row_sums, softmax


@pytest.fixture(autouse=True)
def driver(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    with registered() as active:
        yield active
        for kernel in (add, row_sums, softmax):
            kernel.device_caches.clear()


@pytest.mark.parametrize("n", [1, 1000, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_add(n, dtype):
    x, y = (torch.randint(-50, 50, (n,)).to(dtype) for _ in range(2))
    out = torch.empty_like(x)
    add[lambda meta: (triton.cdiv(n, meta["B"]),)](x, y, n, out, B=1024)
    assert torch.equal(out, x + y)


@pytest.mark.parametrize("n", [1, 100, 3000])
def test_softmax(n):
    x = torch.randn(17, n)
    out = torch.empty_like(x)
    softmax[(17,)](x, n, out, B=triton.next_power_of_2(n))
    torch.testing.assert_close(out, x.softmax(1))


def test_row_sums():
    x = torch.randn(64, 256)
    out = torch.empty(64)
    row_sums[(4,)](x, 256, out, R=16, B=64)
    torch.testing.assert_close(out, x.sum(1))
