import platform

import pytest
from arm_emulation import CPU_OF_TARGET
from dot_kernels import DOT_CASES
from dot_uses import DOT_USES
from kernel_runs import check_on_arm, on_host

from hf_tle_int8.backend import target

CASES = [*DOT_CASES, *DOT_USES]
# Types for which some CPUs have an instruction that sums several products.
WITH_INSTRUCTIONS = [case for case in CASES if case.signature["a"] in ("*i8", "*bf16")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    case.check(on_host(case, target.host()))


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    check_on_arm(CASES, name, tmp_path)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions are of x86-64")
@pytest.mark.parametrize("name", ["avx512bf16", "avx512", "avxvnni"])
@pytest.mark.parametrize("case", WITH_INSTRUCTIONS, ids=lambda case: case.id)
def test_with_instructions_that_the_host_may_lack(case, name):
    case.check(on_host(case, target.named(name)))
