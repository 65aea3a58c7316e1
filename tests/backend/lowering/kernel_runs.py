"""Running cases: on the host, and all at once on an emulated Arm CPU."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from instruction_models import with_models
from openmp_stubs import STUBS
from tensor_kernels import KernelCase

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.loader import LoadedObject
from hf_tle_int8.backend.openmp import runtime_symbols


def on_host(case: KernelCase, lowered_for: target.Target) -> Callable[..., None]:
    """The kernel as a function of arrays and integers.

    Instructions that ``lowered_for`` has and the host may not have are replaced by functions.
    """
    kernel, chosen = case.lowered(lowered_for), target.host()
    symbol = f"{kernel.name}_launch"
    loaded = LoadedObject(
        codegen.compile_module(chosen, with_models(kernel.body)).object_code, chosen, [symbol], runtime_symbols()
    )

    def call(*arguments):
        pointers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        kinds = [ctypes.c_void_p if isinstance(a, np.ndarray) else ctypes.c_int32 for a in arguments]
        ctypes.CFUNCTYPE(None, *kinds)(loaded.addresses[symbol])(*pointers)

    return call


def check_on_arm(cases: Sequence[KernelCase], name: str, directory: Path) -> None:
    """Check all cases in one emulated process on the CPU of the target ``name``."""
    require_emulator()
    chosen = target.named(name)
    objects, entries = [codegen.compile_module(chosen, STUBS).object_code], []
    for number, case in enumerate(cases):
        kernel = case.lowered(chosen)
        body = kernel.body.replace(f"@{kernel.name}_", f"@case{number}_")
        objects.append(codegen.compile_module(chosen, body).object_code)
        entries.append(f"case{number}_launch")
    program = link(objects, entries, directory)
    with ArmProcess(program, entries, CPU_OF_TARGET[name]) as arm:
        for case, entry in zip(cases, entries, strict=True):
            case.check(lambda *arguments, entry=entry: arm.call(entry, *arguments))
