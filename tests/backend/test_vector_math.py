import math
import platform
import re

import numpy as np
import pytest
from benchmarks import vector_math_errors as errors

from hf_tle_int8.backend import codegen, hwcap, target
from hf_tle_int8.backend.ir import BFLOAT, DOUBLE, FLOAT, HALF, I32, PTR, FunctionBuilder, IRType, ModuleBuilder
from hf_tle_int8.backend.vector_math import FUNCTIONS, MAX_ULP, tables

INF, NAN = math.inf, math.nan
TINY, SMALLEST_NORMAL, LARGEST = 2.0**-149, 2.0**-126, (2 - 2.0**-23) * 2.0**127
RUNNABLE = [target.named(name) for name in target.runnable(hwcap.cpu_features(), platform.machine())]
PROMOTED = 0.501

on_runnable_targets = pytest.mark.parametrize("chosen", RUNNABLE, ids=lambda chosen: chosen.name)
on_all_targets = pytest.mark.parametrize("chosen", target.TARGETS.values(), ids=lambda chosen: chosen.name)
for_all_functions = pytest.mark.parametrize("name", FUNCTIONS)

# Operands and exact results; those of odd functions are checked with both signs.
SPECIAL = {
    "math.exp": [
        (-INF, 0.0),
        (INF, INF),
        (0.0, 1.0),
        (-0.0, 1.0),
        (1e30, INF),
        (-1e30, 0.0),
        (89.0, INF),
        (-104.0, 0.0),
        (TINY, 1.0),
    ],
    "math.exp2": [
        (-INF, 0.0),
        (INF, INF),
        (0.0, 1.0),
        (-0.0, 1.0),
        (128.0, INF),
        (-150.0, 0.0),
        (-1e30, 0.0),
        (1e30, INF),
        (-TINY, 1.0),
    ],
    "math.log": [
        (0.0, -INF),
        (-0.0, -INF),
        (INF, INF),
        (-INF, NAN),
        (-1.0, NAN),
        (-TINY, NAN),
        (-LARGEST, NAN),
        (1.0, 0.0),
    ],
    "math.log2": [
        (0.0, -INF),
        (-0.0, -INF),
        (INF, INF),
        (-INF, NAN),
        (-1.0, NAN),
        (-TINY, NAN),
        (1.0, 0.0),
        (TINY, -149.0),
        (8.0, 3.0),
    ],
    "math.tanh": [
        (0.0, 0.0),
        (INF, 1.0),
        (10.0, 1.0),
        (LARGEST, 1.0),
        (TINY, TINY),
        (SMALLEST_NORMAL, SMALLEST_NORMAL),
    ],
    "math.erf": [(0.0, 0.0), (INF, 1.0), (4.0, 1.0), (LARGEST, 1.0), (TINY, TINY)],
    "math.rsqrt": [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-INF, NAN), (-1.0, NAN), (4.0, 0.5), (2.0**-148, 2.0**74)],
    "math.sqrt": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.0, NAN), (4.0, 2.0), (2.0**-148, 2.0**-74)],
    "math.floor": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -INF),
        (1.5, 1.0),
        (-1.5, -2.0),
        (-TINY, -1.0),
        (1e30, 1e30),
    ],
    "math.ceil": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -INF),
        (1.5, 2.0),
        (-1.5, -1.0),
        (TINY, 1.0),
        (-0.5, -0.0),
    ],
    "math.roundeven": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, INF),
        (0.5, 0.0),
        (1.5, 2.0),
        (2.5, 2.0),
        (-0.5, -0.0),
        (-1.5, -2.0),
    ],
    "math.absf": [(0.0, 0.0), (-0.0, 0.0), (INF, INF), (-INF, INF), (-1.5, 1.5), (-TINY, TINY)],
}
# Where double has other limits.
SMALLEST_DOUBLE = 2.0**-1074
SPECIAL_DOUBLES = {
    "math.exp": [(-INF, 0.0), (INF, INF), (0.0, 1.0), (-0.0, 1.0), (710.0, INF), (-746.0, 0.0), (-1e300, 0.0)],
    "math.exp2": [(-INF, 0.0), (INF, INF), (-0.0, 1.0), (1024.0, INF), (-1074.0, SMALLEST_DOUBLE), (-1075.0, 0.0)],
    "math.log2": [(0.0, -INF), (-0.0, -INF), (INF, INF), (-1.0, NAN), (1.0, 0.0), (SMALLEST_DOUBLE, -1074.0)],
    "math.tanh": [(0.0, 0.0), (INF, 1.0), (20.0, 1.0), (1e300, 1.0), (SMALLEST_DOUBLE, SMALLEST_DOUBLE)],
    "math.erf": [(0.0, 0.0), (INF, 1.0), (6.0, 1.0), (1e300, 1.0), (SMALLEST_DOUBLE, SMALLEST_DOUBLE)],
}
ODD = ("math.tanh", "math.erf")

# Where a result overflows, turns subnormal or becomes 0, and where an algorithm changes its ways.
THRESHOLDS = {
    "math.exp": [88.722839, -87.336545, -103.97208, -103.27893, math.log(2) / 2, 0.0],
    "math.exp2": [128.0, -126.0, -149.0, -150.0, -151.0, 0.5, 1.5, 0.0],
    "math.log": [1.0, math.sqrt(0.5), math.sqrt(2), 2.0, SMALLEST_NORMAL, 2 * TINY, LARGEST],
    "math.log2": [1.0, math.sqrt(0.5), math.sqrt(2), 2.0, SMALLEST_NORMAL, 2 * TINY, LARGEST],
    "math.tanh": [tables.TANH_SWITCH, 9.010913, 9.357623, SMALLEST_NORMAL, 0.0],
    "math.erf": [tables.ERF_SWITCH, 3.919206, 3.95, SMALLEST_NORMAL, 0.0],
}
WHERE_IT_VARIES = {"math.exp": 105, "math.exp2": 151, "math.tanh": 10, "math.erf": 4}


def neighbourhood(value: float, radius: int = 300) -> np.ndarray:
    """The floats next to ``value``, with both signs."""
    bits = np.float32(abs(value)).view(np.uint32).astype(np.int64) + np.arange(-radius, radius)
    x = np.clip(bits, 0, 0x7F800000).astype(np.uint32).view(np.float32)
    return np.concatenate([x, -x])


def points(name: str) -> np.ndarray:
    """Floats of every exponent, of the range where the function varies, subnormal ones and those at thresholds."""
    generator = np.random.default_rng(0)
    return np.concatenate(
        [
            generator.integers(0, 2**32, 1 << 19, np.uint32).view(np.float32),
            generator.uniform(-1, 1, 1 << 18).astype(np.float32) * WHERE_IT_VARIES.get(name, 2),
            generator.uniform(0.5, 2, 1 << 17).astype(np.float32),
            generator.integers(0, 1 << 23, 1 << 14, np.uint32).view(np.float32),
            *map(neighbourhood, THRESHOLDS.get(name, [0.0, 1.0])),
        ]
    )


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether numbers are equal, zeros in their signs too, or both NaN."""
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def test_tables_name_the_same_functions():
    assert FUNCTIONS.keys() == MAX_ULP.keys() == SPECIAL.keys() == errors.DOUBLE_REFERENCES.keys()


def check_special_values(name: str, kind: IRType, cases: list[tuple[float, float]], chosen: target.Target) -> None:
    x, expected = np.array([(NAN, NAN), *cases], {FLOAT: np.float32, DOUBLE: np.float64}[kind]).T
    if name in ODD:
        x, expected = np.concatenate([x, -x]), np.concatenate([expected, -expected])
    result = errors.evaluate(name, kind, x, chosen, lanes=4)
    wrong = ~same(result, expected)
    assert not wrong.any(), (x[wrong], result[wrong], expected[wrong])


@for_all_functions
@on_runnable_targets
def test_special_floats(chosen, name):
    check_special_values(name, FLOAT, SPECIAL[name], chosen)


@for_all_functions
@on_runnable_targets
def test_special_doubles(chosen, name):
    check_special_values(name, DOUBLE, SPECIAL_DOUBLES.get(name, SPECIAL[name]), chosen)


@for_all_functions
@on_runnable_targets
def test_float_errors(chosen, name):
    x = points(name)
    found = errors.float_errors(name, x, errors.evaluate(name, FLOAT, x, chosen))
    worst = np.argmax(found)
    assert found[worst] <= MAX_ULP[name], x[worst]


@pytest.mark.parametrize("name", errors.EXACT_REFERENCES)
@on_runnable_targets
def test_double_errors(chosen, name):
    x = errors.double_points(name, 600)
    found = errors.double_errors(name, x, errors.evaluate(name, DOUBLE, x, chosen))
    worst = int(np.argmax(found))
    assert found[worst] <= MAX_ULP[name], x[worst]


@for_all_functions
@pytest.mark.parametrize("kind", [FLOAT, DOUBLE], ids=str)
def test_every_lane_count_gives_the_same(kind, name):
    x = np.random.default_rng(1).standard_normal(256) * 20
    x = np.concatenate([x, [0.0, -0.0, INF, -INF, NAN, TINY, LARGEST, -LARGEST]])
    x = x.astype({FLOAT: np.float32, DOUBLE: np.float64}[kind])
    results = [errors.evaluate(name, kind, x, target.host(), lanes) for lanes in (0, 1, 4, 8, 16)]
    for result in results[1:]:
        assert same(result, results[0]).all()


@on_runnable_targets
def test_exact_powers_of_two(chosen):
    exponents = np.arange(-149, 128).astype(np.float32)
    powers = np.exp2(exponents.astype(np.float64)).astype(np.float32)
    assert np.array_equal(errors.evaluate("math.exp2", FLOAT, exponents, chosen), powers)
    assert np.array_equal(errors.evaluate("math.log2", FLOAT, powers, chosen), exponents)


@for_all_functions
@on_runnable_targets
def test_all_bfloats(chosen, name):
    bits = np.arange(1 << 16, dtype=np.uint16)
    x, result = (
        (array.astype(np.uint32) << 16).view(np.float32)
        for array in (bits, errors.evaluate(name, BFLOAT, bits, chosen))
    )
    check_rounded(name, x, result, precision=8, smallest=-133, largest=(2 - 2.0**-7) * 2.0**127)


@for_all_functions
@on_runnable_targets
def test_all_halves(chosen, name):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    result = errors.evaluate(name, HALF, x, chosen)
    check_rounded(name, x, result, precision=11, smallest=-24, largest=65504.0)


def check_rounded(name: str, x: np.ndarray, result: np.ndarray, precision: int, smallest: int, largest: float) -> None:
    """Whether results lie within `PROMOTED` ulp of a format of ``precision`` bits, and NaN and infinities are right."""
    with np.errstate(all="ignore"):
        exact = errors.DOUBLE_REFERENCES[name](x.astype(np.float64))
        ulp = np.exp2(np.maximum(np.frexp(exact)[1] - precision, smallest).astype(np.float64))
        tie = largest + 0.5 * np.exp2(np.frexp(largest)[1] - precision)
        infinite = np.abs(exact) >= tie
        close = np.abs(result.astype(np.float64) - exact) <= PROMOTED * ulp
    right = np.where(infinite, result == np.copysign(INF, exact), close | (np.isnan(exact) & np.isnan(result)))
    assert right.all(), (x[~right], result[~right])


class TestCode:
    """What is written, and what LLVM makes of it."""

    def module(self, kind, lanes, names=FUNCTIONS) -> str:
        """A loop for each function; LLVM sees them in one module, which is compiled once."""
        module = ModuleBuilder()
        for name in names:
            function = FunctionBuilder(module, name.replace(".", "_"), {"x": PTR, "y": PTR})
            x = function.load(kind.vector(lanes), function.parameters["x"])
            result = FUNCTIONS[name](function, x)
            assert result.type == x.type
            function.store(result, function.parameters["y"])
            function.return_()
            function.finish()
        return str(module)

    @pytest.mark.parametrize("lanes", [0, 8])
    @pytest.mark.parametrize("kind", [FLOAT, DOUBLE, BFLOAT, HALF], ids=str)
    @on_all_targets
    def test_no_library_is_called(self, chosen, kind, lanes):
        code = codegen.compile_module(chosen, self.module(kind, lanes))
        assert code.object_code.startswith(b"\x7fELF")
        assert not re.findall(r"^\s+(?:callq?|bl|blr|jmp|b)\s+\w+.*", code.assembly, re.MULTILINE)
        assert "@PLT" not in code.assembly

    @for_all_functions
    def test_no_branches_and_nothing_undefined(self, name):
        body = self.module(FLOAT, 8, [name])
        assert not re.search(r"\b(br|phi|fptosi|fptoui|nsw|nuw|exact|poison|fast|nnan|ninf|contract)\b", body)

    @for_all_functions
    def test_integers_are_refused(self, name):
        function = FunctionBuilder(ModuleBuilder(), "f", {"x": I32.vector(4)})
        with pytest.raises(TypeError, match="defined on floats, not on <4 x i32>"):
            FUNCTIONS[name](function, function.parameters["x"])


@pytest.mark.parametrize("name", errors.FITS)
def test_tables_are_what_the_script_derives(name):
    derived = errors.derive(errors.FITS[name], "float")
    assert [float(np.float32(value)) for value in getattr(tables, name)["float"]] == derived


@pytest.mark.parametrize("name", ["float", "double"])
def test_ln2_is_split(name):
    rounded = {"float": np.float32, "double": np.float64}[name]
    assert tuple(float(rounded(part)) for part in tables.LN2[name]) == errors.split_ln2(name)
