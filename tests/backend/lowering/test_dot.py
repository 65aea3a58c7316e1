import platform

import pytest
from dot_kernels import DOT_CASES
from dot_uses import DOT_USES
from kernel_runs import assert_same_code, check_on_arm, on_host

from hf_tle_int8.backend import target

CASES = [*DOT_CASES, *DOT_USES]
# Types for which some CPUs have an instruction that sums several products.
INT8, BF16 = ([case for case in CASES if case.signature["a"] == kind] for kind in ("*i8", "*bf16"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    case.check(on_host(case, target.host()))


@pytest.mark.parametrize("name", ["neon", "neon-i8mm"])
def test_on_arm(name, tmp_path):
    check_on_arm(CASES, name, tmp_path)


def test_on_arm_with_sdot(tmp_path):
    check_on_arm(INT8, "neon-dotprod", tmp_path)


def test_sdot_changes_no_products_of_floats():
    assert_same_code([case for case in CASES if case.signature["a"] != "*i8"], "neon-dotprod", "neon")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions are of x86-64")
@pytest.mark.parametrize(
    ("name", "case"),
    [
        *((name, case) for name in ("avx512bf16", "avx512") for case in INT8 + BF16),
        *((name, case) for name in ("avxvnni", "amx") for case in INT8),
    ],
    ids=lambda value: getattr(value, "id", value),
)
def test_with_instructions_that_the_host_may_lack(name, case):
    case.check(on_host(case, target.named(name)))
