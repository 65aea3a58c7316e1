import threading
from concurrent.futures import ThreadPoolExecutor

import control_kernels
import model_kernels
import pytest
import reduction_kernels
import tensor_kernels
import view_kernels
from kernel_runs import assert_same_code, check_on_arm, on_host

from hf_tle_int8.backend import target

CASES = [
    *tensor_kernels.CASES,
    *control_kernels.CASES,
    *view_kernels.CASES,
    *reduction_kernels.CASES,
    *model_kernels.CASES,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    case.check(on_host(case, target.host()))


def test_large_tensors_are_not_on_the_stack_of_a_thread():
    call = on_host(control_kernels.LARGE_TILE, target.host())
    before = threading.stack_size(1 << 19)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(control_kernels.LARGE_TILE.check, call).result()
    finally:
        threading.stack_size(before)


@pytest.mark.parametrize("name", ["neon", "neon-i8mm"])
def test_on_arm(name, tmp_path):
    check_on_arm(CASES, name, tmp_path)


def test_sdot_alone_changes_nothing_but_products():
    assert_same_code(CASES, "neon-dotprod", "neon-i8mm")
