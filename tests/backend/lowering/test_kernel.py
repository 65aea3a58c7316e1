import ctypes

import numpy as np
import pytest
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from openmp_stubs import STUBS
from tensor_kernels import CASES

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.loader import LoadedObject
from hf_tle_int8.backend.openmp import runtime_symbols


def on_host(case, chosen):
    """The kernel as a function of arrays and integers."""
    kernel = case.lowered(chosen)
    symbol = f"{kernel.name}_launch"
    loaded = LoadedObject(codegen.compile_module(chosen, kernel.body).object_code, chosen, [symbol], runtime_symbols())

    def call(*arguments):
        pointers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        kinds = [ctypes.c_void_p if isinstance(a, np.ndarray) else ctypes.c_int32 for a in arguments]
        ctypes.CFUNCTYPE(None, *kinds)(loaded.addresses[symbol])(*pointers)

    return call


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    case.check(on_host(case, target.host()))


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    require_emulator()
    chosen = target.named(name)
    objects, entries = [codegen.compile_module(chosen, STUBS).object_code], []
    for number, case in enumerate(CASES):
        kernel = case.lowered(chosen)
        body = kernel.body.replace(f"@{kernel.name}_", f"@case{number}_")
        objects.append(codegen.compile_module(chosen, body).object_code)
        entries.append(f"case{number}_launch")
    program = link(objects, entries, tmp_path)
    with ArmProcess(program, entries, CPU_OF_TARGET[name]) as arm:
        for case, entry in zip(CASES, entries, strict=True):
            case.check(lambda *arguments, entry=entry: arm.call(entry, *arguments))
