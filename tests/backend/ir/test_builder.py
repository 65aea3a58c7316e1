import re

import numpy as np
import pytest
from jit_support import elementwise, run

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.ir import (
    BFLOAT,
    DOUBLE,
    FLOAT,
    HALF,
    I1,
    I8,
    I16,
    I32,
    I64,
    PTR,
    FunctionBuilder,
    IRType,
    ModuleBuilder,
    constant,
)


class TestConstants:
    @pytest.mark.parametrize(
        ("kind", "value", "text"),
        [
            (I1, 1, "true"),
            (I8, -1, "-1"),
            (I8, 255, "-1"),
            (I32, 2**31, str(-(2**31))),
            (I64, -5, "-5"),
            (PTR, 0, "null"),
            (FLOAT, 0.1, "0x3FB99999A0000000"),
            (FLOAT, 1e300, "0x7FF0000000000000"),
            (DOUBLE, 0.1, "0x3FB999999999999A"),
            (HALF, 65504, "0xH7BFF"),
            (HALF, 65536, "0xH7C00"),
            (BFLOAT, 1.0, "0xR3F80"),
            (BFLOAT, float("-inf"), "0xRFF80"),
            (FLOAT.vector(4), 0.0, "zeroinitializer"),
            (FLOAT.vector(4), -0.0, "splat (float 0x8000000000000000)"),
            (I32.vector(2), [1, -2], "<i32 1, i32 -2>"),
        ],
    )
    def test_text(self, kind, value, text):
        assert constant(kind, value).text == text

    @pytest.mark.parametrize("kind", [HALF, BFLOAT, FLOAT, DOUBLE])
    def test_nan_stays_nan(self, kind):
        literal = constant(kind, float("nan")).text
        assert not literal.endswith(("7C00", "7F80", "7FF0000000000000"))

    @pytest.mark.parametrize(
        ("value", "bits"),
        [
            (1.00390625, 0x3F80),  # a tie, to even
            (1.01171875, 0x3F82),  # a tie, to even, upwards
            (1.00390625 + 2**-40, 0x3F81),  # above a tie that fp32 cannot tell from it
            (1.01171875 - 2**-40, 0x3F81),  # below one
            (3.4e38, 0x7F80),
        ],
    )
    def test_bfloat_rounds_once(self, value, bits):
        assert constant(BFLOAT, value).text == f"0xR{bits:04X}"

    def test_pointer_must_be_null(self):
        with pytest.raises(ValueError, match="can only be null"):
            constant(PTR, 8)


def test_types():
    assert str(FLOAT.vector(8)) == "<8 x float>"
    assert I32.vector(4).mangled == "v4i32"
    assert FLOAT.vector(4).of(I1) == IRType("i1", 4)
    assert PTR.vector(2).mangled == "v2p0"


def test_elementwise_loop():
    x, y, z = np.arange(64, dtype=np.float32), np.full(64, 3, np.float32), np.full(64, np.nan, np.float32)
    body = elementwise(FLOAT, FLOAT, 64, 8, lambda f, a, b: f.binary("fmul", a, b), operands=2)
    run(body, "f", x, y, z)
    assert np.array_equal(z, x * y)


def test_select_compare_cast_and_intrinsic():
    def emit(f, a):
        wide = f.cast("fpext", a, DOUBLE)
        root = f.cast("fptrunc", f.intrinsic("sqrt", f.intrinsic("fabs", wide)), FLOAT)
        return f.select(f.compare("olt", a, constant(a.type, 0.0)), f.negate(root), root)

    x, z = np.linspace(-4, 4, 32, dtype=np.float32), np.empty(32, np.float32)
    run(elementwise(FLOAT, FLOAT, 32, 4, emit), "f", x, z)
    assert np.array_equal(z, np.sign(x) * np.sqrt(np.abs(x).astype(np.float64)).astype(np.float32))


def test_shuffle_extract_and_splat():
    def emit(f, a):
        reversed_ = f.shuffle(a, None, [3, 2, 1, 0])
        return f.binary("add", reversed_, f.splat(f.extract(a, 0), 4))

    x, z = np.arange(8, dtype=np.int32), np.empty(8, np.int32)
    run(elementwise(I32, I32, 8, 4, emit), "f", x, z)
    assert z.tolist() == [3, 2, 1, 0, 11, 10, 9, 8]


def test_branch_and_phi():
    module = ModuleBuilder()
    f = FunctionBuilder(module, "f", {"x": PTR, "y": PTR})
    value = f.load(I32, f.parameters["x"])
    yes, no, end = f.label("yes"), f.label("no"), f.label("end")
    f.branch(f.compare("sgt", value, constant(I32, 10)), yes, no)
    results = []
    for label, factor in ((yes, 2), (no, 3)):
        f.place(label)
        results.append((f.binary("mul", value, constant(I32, factor)), f.current))
        f.jump(end)
    f.place(end)
    phi = f.phi(I32)
    for result, label in results:
        f.add_incoming(phi, result, label)
    f.store(phi, f.parameters["y"])
    f.return_()
    f.finish()
    for given, expected in ((11, 22), (10, 30)):
        x, y = np.array([given], np.int32), np.zeros(1, np.int32)
        run(str(module), "f", x, y)
        assert y[0] == expected


@pytest.mark.parametrize("chosen", target.TARGETS.values(), ids=lambda chosen: chosen.name)
def test_compiles_for_every_target(chosen):
    lanes = chosen.lanes(32)
    body = elementwise(FLOAT, FLOAT, 4 * lanes, lanes, lambda f, a, b: f.binary("fadd", a, b), operands=2)
    code = codegen.compile_module(chosen, body)
    register = {"aarch64": "v", "x86_64": {16: "xmm", 32: "ymm", 64: "zmm"}[chosen.vector_bytes]}[chosen.arch]
    adds = [line for line in code.assembly.splitlines() if "fadd" in line or "addps" in line]
    assert adds
    assert all(register in line for line in adds)
    assert code.object_code.startswith(b"\x7fELF")


def _moves_bfloat16(module: ModuleBuilder, lanes: int) -> None:
    """Vectors of bf16 that are shuffled, selected, taken apart, put together and handed from block to block."""
    f = FunctionBuilder(module, "f", {"x": PTR, "y": PTR})
    bits = I16.vector(lanes)
    x = f.reinterpret(f.load(bits, f.parameters["x"]), BFLOAT.vector(lanes))
    condition = f.compare("sgt", f.load(I32, f.parameters["y"]), constant(I32, 0))
    yes, end = f.label("yes"), f.label("end")
    entry = f.current
    f.branch(condition, yes, end)
    f.place(yes)
    f.call_procedure("llvm.prefetch.p0", f.parameters["x"], *(constant(I32, number) for number in (0, 3, 1)))
    reversed_ = f.shuffle(x, None, range(lanes - 1, -1, -1))
    changed = f.insert(f.select(condition, reversed_, x), f.extract(x, 1), 0)
    f.jump(end)
    f.place(end)
    phi = f.phi(BFLOAT.vector(lanes))
    f.add_incoming(phi, x, entry)
    f.add_incoming(phi, changed, yes)
    spread = f.splat(f.extract(phi, 0), lanes)
    result = f.select(f.compare("ne", f.reinterpret(phi, bits), constant(bits, 7)), phi, spread)
    f.store(f.reinterpret(result, bits), f.parameters["y"])
    f.return_()
    f.finish()


@pytest.mark.parametrize("chosen", target.TARGETS.values(), ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("lanes", [4, 16, 64])
def test_bfloat16_is_moved_without_conversions(chosen, lanes):
    module = ModuleBuilder()
    _moves_bfloat16(module, lanes)
    assembly = codegen.compile_module(chosen, str(module)).assembly
    assert not re.search(r"__\w+bf|cvt", assembly)


def test_bfloat16_from_block_to_block():
    module = ModuleBuilder()
    _moves_bfloat16(module, 4)
    for given, expected in (([1, 0, 0, 0], [8, 9, 8, 5]), ([0, 0, 0, 0], [5, 8, 9, 5])):
        x, y = np.array([5, 8, 9, 7], np.int16), np.array(given, np.int16)
        run(str(module), "f", x, y)
        assert y.tolist() == expected
