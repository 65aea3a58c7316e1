"""The harness itself: that it computes, that it tells CPUs apart, and that it notices death."""

import numpy as np
import pytest
from arm_emulation import CPU_OF_TARGET, ArmProcess, EmulatedDeathError, link, require_emulator
from jit_support import elementwise
from test_codegen import dot_ir

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.ir import FLOAT

ALL_CPUS = ("max", "max,sve=off", "neoverse-n1", "cortex-a76", "cortex-a72", "a64fx")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    require_emulator()
    objects = []
    for name, entry in (("neon-dotprod", "sdot"), ("neon-i8mm", "smmla")):
        chosen = target.named(name)
        objects.append(codegen.compile_module(chosen, dot_ir(chosen).replace("@f(", f"@{entry}(")).object_code)
    body = elementwise(FLOAT, FLOAT, 1024, 4, lambda f, a, b: f.binary("fmul", a, b), operands=2)
    objects.append(codegen.compile_module(target.named("neon"), body.replace("@f(", "@multiply(")).object_code)
    return link(objects, ["sdot", "smmla", "multiply"], tmp_path_factory.mktemp("arm"))


def process(program, cpu):
    return ArmProcess(program, ["sdot", "smmla", "multiply"], cpu)


def operands():
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-128, 128, 16, dtype=np.int8) for _ in range(2))
    return a, b, generator.integers(-1000, 1000, 4, dtype=np.int32)


@pytest.mark.parametrize("cpu", ALL_CPUS)
def test_plain_neon_runs_everywhere(program, cpu):
    x, y = (np.random.default_rng(seed).standard_normal(1024, np.float32) for seed in (0, 1))
    z = np.full(1024, np.nan, np.float32)
    with process(program, cpu) as arm:
        for _ in range(3):
            arm.call("multiply", x, y, z)
            assert np.array_equal(z, x * y)


@pytest.mark.parametrize("cpu", ["max", "max,sve=off", "neoverse-n1", "cortex-a76"])
def test_sdot(program, cpu):
    a, b, c = operands()
    expected = c + (a.astype(np.int32) * b).reshape(4, 4).sum(1)
    with process(program, cpu) as arm:
        arm.call("sdot", a, b, c)
    assert np.array_equal(c, expected)


@pytest.mark.parametrize("cpu", ["max", "max,sve=off"])
def test_smmla(program, cpu):
    a, b, c = operands()
    expected = c + (a.reshape(2, 8).astype(np.int32) @ b.reshape(2, 8).T.astype(np.int32)).ravel()
    with process(program, cpu) as arm:
        arm.call("smmla", a, b, c)
    assert np.array_equal(c, expected)


@pytest.mark.parametrize(
    ("entry", "cpu"),
    [
        *(("smmla", cpu) for cpu in ("neoverse-n1", "cortex-a76", "cortex-a72", "a64fx")),
        *(("sdot", cpu) for cpu in ("cortex-a72", "a64fx")),
    ],
)
def test_a_cpu_without_the_instruction_dies_of_it(program, entry, cpu):
    with process(program, cpu) as arm, pytest.raises(EmulatedDeathError) as death:
        arm.call(entry, *operands())
    assert death.value.returncode == -4


def test_each_arm_target_has_a_cpu():
    assert set(CPU_OF_TARGET) == {name for name, found in target.TARGETS.items() if found.arch == "aarch64"}
