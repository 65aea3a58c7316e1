import pytest
from machine_code import count, pieces
from memory_kernels import CASES
from test_guards import MASKED, VECTOR_LOAD, VECTOR_STORE

SHUFFLE = {"avx2": r"vp?unpck|vp?shuf|vp?blend|vp?perm|vinsert", "neon": r"trn[12]|zip[12]|uzp[12]|mov v.*\.d"}


@pytest.mark.parametrize("name", SHUFFLE)
@pytest.mark.parametrize("kernel", ["upright", "stored_upright", "upright_inside"])
def test_tiles_are_loaded_by_vectors_and_transposed(kernel, name):
    parts = pieces(next(c for c in CASES if c.kernel.__name__ == kernel and 64 in c.constexprs.values()), name)
    vectors = {"avx2": 8, "neon": 2}[name]
    assert any(
        count(piece, SHUFFLE[name]) >= vectors
        and count(piece, VECTOR_LOAD[name]) >= vectors
        and count(piece, VECTOR_STORE[name]) >= vectors
        and not count(piece, MASKED[name])
        for piece in parts
    )
