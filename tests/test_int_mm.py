import pytest
import torch

from hf_tle_int8.int_mm import _libraries, override_int_mm, restore_int_mm


@pytest.fixture(autouse=True)
def overridden():
    override_int_mm()
    yield
    restore_int_mm()


def codes(*shape):
    return torch.where(torch.rand(shape) < 0.3, -128, torch.randint(-128, 128, shape)).to(torch.int8)


def exact(a, b):
    return (a.long() @ b.long()).int()


@pytest.mark.parametrize("m", [1, 2, 3, 5, 8, 17, 33])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 5), (32, 64), (33, 65), (100, 300)])
@pytest.mark.parametrize("column_major", [True, False])
def test_is_exact(m, n, k, column_major):
    a, b = codes(m, k), codes(n, k).t() if column_major else codes(k, n)
    assert torch.equal(torch._int_mm(a, b), exact(a, b))
    out = torch.full((m, n), 77, dtype=torch.int32)
    assert torch._int_mm(a, b, out=out) is out
    assert torch.equal(out, exact(a, b))


def test_transposed_rows_and_slices_are_served():
    a, b = codes(64, 20).t(), codes(40, 100).t()[:64, 3:33]
    assert torch.equal(torch._int_mm(a, b), exact(a, b))


def test_what_is_not_served_runs_as_before():
    a, b = codes(20, 128)[:, ::2], codes(64, 32)
    assert torch.equal(torch._int_mm(a, b), exact(a, b))
    with pytest.raises(RuntimeError, match="contiguous"):
        torch._int_mm(codes(20, 64), b, out=torch.empty((32, 20), dtype=torch.int32).t())
    with pytest.raises(RuntimeError, match="dtype"):
        torch._int_mm(codes(20, 64).float(), b)
    assert torch._int_mm(codes(0, 64), b).shape == (0, 32)


def test_it_is_idempotent_and_undoable(monkeypatch):
    override_int_mm()
    assert len(_libraries) == 1
    served = []
    monkeypatch.setattr("hf_tle_int8.int_mm._product", lambda a, b, out: served.append(a.shape) or out.fill_(7))
    a, b = codes(20, 64), codes(64, 32)
    assert (torch._int_mm(a, b) == 7).all()
    restore_int_mm()
    restore_int_mm()
    assert torch.equal(torch._int_mm(a, b), exact(a, b))
    assert served == [(20, 64)]


def test_compiled_code_uses_it(monkeypatch):
    a, b = codes(20, 64), codes(32, 64).t()
    monkeypatch.setattr("hf_tle_int8.int_mm._product", lambda a, b, out: out.fill_(7))
    compiled = torch.compile(lambda a, b: torch._int_mm(a, b) + 1)
    assert (compiled(a, b) == 8).all()
