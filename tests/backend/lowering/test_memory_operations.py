import pytest
from arm_emulation import CPU_OF_TARGET
from kernel_runs import check_on_arm, on_host
from memory_kernels import CASES

from hf_tle_int8.backend import target


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    case.check(on_host(case, target.host()))


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    check_on_arm(CASES, name, tmp_path)
