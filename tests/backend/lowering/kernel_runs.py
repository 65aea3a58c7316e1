"""Running the cases of `tensor_kernels` and its like: on the host, and under emulation."""

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from instruction_models import with_models
from openmp_stubs import STUBS
from tensor_kernels import KernelCase

from hf_tle_int8.backend import codegen
from hf_tle_int8.backend.loader import LoadedObject
from hf_tle_int8.backend.lowering.kernel import LoweredKernel
from hf_tle_int8.backend.openmp import runtime_symbols
from hf_tle_int8.backend.target import Target, host, named

Kernel = Callable[..., None]

INTEGERS = {"i32": ctypes.c_int32, "i64": ctypes.c_int64}

_lowered: dict[tuple, LoweredKernel] = {}
_objects: dict[tuple, tuple[str, bytes]] = {}


def lowered(case: KernelCase, chosen: Target) -> LoweredKernel:
    """The case's kernel as LLVM IR; lowered once."""
    key = _key(case, chosen)
    if key not in _lowered:
        _lowered[key] = case.lowered(chosen)
    return _lowered[key]


def _key(case: KernelCase, *targets: Target) -> tuple:
    names = (target.name for target in targets)
    return (case.kernel, *case.signature.items(), *case.constexprs.items(), *names)


def assert_same_code(cases: Sequence[KernelCase], name: str, other: str) -> None:
    """The targets have the same IR for all cases: those that ran for ``other`` need not for ``name``."""
    for case in cases:
        assert lowered(case, named(name)).body == lowered(case, named(other)).body, case.id


def compiled(case: KernelCase, lowered_for: Target, chosen: Target) -> tuple[str, bytes]:
    """The name of the case's entry point, different for each kernel, and the object for ``chosen``; compiled once.

    Instructions of x86-64 that ``lowered_for`` has beyond ``chosen`` are replaced by functions.
    """
    key = _key(case, lowered_for, chosen)
    if key not in _objects:
        kernel, name = lowered(case, lowered_for), f"case{len(_objects)}"
        body = kernel.body.replace(f"@{kernel.name}_", f"@{name}_")
        body = body if chosen is lowered_for else with_models(body)
        _objects[key] = f"{name}_launch", codegen.compile_module(chosen, body).object_code
    return _objects[key]


def on_host(case: KernelCase, lowered_for: Target, entry: str = "launch") -> Kernel:
    """The kernel, by one of the entry points of `launch`, as a function of arrays, pointers and integers."""
    chosen = host()
    launch, code = compiled(case, lowered_for, chosen)
    symbol = launch.replace("launch", entry)
    loaded = LoadedObject(code, chosen, [symbol], runtime_symbols())
    kinds = [ctypes.c_void_p if kind[0] == "*" else INTEGERS[kind] for kind in case.signature.values()]
    function = ctypes.CFUNCTYPE(None, *kinds, *[ctypes.c_int32] * 4)(loaded.addresses[symbol])

    def call(*arguments: "np.ndarray | int") -> None:
        assert loaded.addresses
        function(*[a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments])

    return call


@contextmanager
def on_arm(
    cases: Sequence[KernelCase], name: str, folder: Path
) -> Iterator[Callable[[KernelCase], Callable[..., None]]]:
    """One emulated process with all kernels, on the CPU for the target ``name``: gives each as `on_host` does."""
    require_emulator()
    chosen = named(name)
    objects = dict(compiled(case, chosen, chosen) for case in cases)
    stubs = codegen.compile_module(chosen, STUBS).object_code
    program = link([stubs, *objects.values()], list(objects), folder)
    with ArmProcess(program, list(objects), CPU_OF_TARGET[name]) as arm:
        yield lambda case: functools.partial(arm.call, compiled(case, chosen, chosen)[0])


def check_on_arm(cases: Sequence[KernelCase], name: str, folder: Path) -> None:
    """Check all cases in one emulated process."""
    with on_arm(cases, name, folder) as kernel:
        for case in cases:
            case.check(kernel(case))
