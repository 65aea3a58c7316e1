import control_kernels
import pytest
import reduction_kernels
import tensor_kernels
import view_kernels
from arm_emulation import CPU_OF_TARGET
from kernel_runs import check_on_arm, on_host

from hf_tle_int8.backend import target

CASES = [*tensor_kernels.CASES, *control_kernels.CASES, *view_kernels.CASES, *reduction_kernels.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    case.check(on_host(case, target.host()))


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    check_on_arm(CASES, name, tmp_path)
