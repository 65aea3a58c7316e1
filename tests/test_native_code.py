"""The machine code of linears for every target; `triton_kernels/test_native_on_arm` and `test_native` run it."""

import pytest

from hf_tle_int8 import native_code
from hf_tle_int8.backend import codegen
from hf_tle_int8.backend.target import TARGETS, named
from hf_tle_int8.dispatch import scheme


@pytest.mark.parametrize("name", TARGETS)
def test_what_throws_is_called_last_from_no_frame_of_its_own(name):
    """C++ could not unwind one."""
    target = named(name)
    assembly = codegen.compile_module(target, native_code.module(scheme(target))).assembly
    jump = {"x86_64": "jmp", "aarch64": "b"}[target.arch]
    calls = [line.split() for line in assembly.splitlines() if "aoti_torch_check" in line]
    assert [(operation, called.removesuffix("@PLT")) for operation, called in calls] == [(jump, "aoti_torch_check")] * 2
