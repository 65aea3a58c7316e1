"""Kernels, written in IR by hand, that record which programs of a grid ran, and where."""

import itertools

import numpy as np

from hf_tle_int8.backend import codegen, launch, target
from hf_tle_int8.backend.entry import KernelEntry
from hf_tle_int8.backend.ir import I32, I64, PTR, FunctionBuilder, ModuleBuilder, constant
from hf_tle_int8.backend.schedule import EVEN

GRID = dict.fromkeys(("px", "py", "pz", "gx", "gy", "gz"), I32)
COLUMNS = 8


def record_kernel(work: int) -> ModuleBuilder:
    """Program ``i`` adds (1, px, py, pz, gx, gy, gz, thread) to row ``i`` of ``out``, i32 ``[programs, 8]``."""
    module = ModuleBuilder()
    f = FunctionBuilder(module, "record_program", {"out": PTR, **GRID}, "internal")
    out, *position = f.parameters.values()
    px, py, pz, gx, gy, _ = position
    plane = f.binary("add", f.binary("mul", pz, gy), py)
    row = f.cast("sext", f.binary("add", f.binary("mul", plane, gx), px), I64)
    values = [constant(I32, 1), *position, f.call("omp_get_thread_num", I32)]
    for column, value in enumerate(values):
        index = f.binary("add", f.binary("mul", row, constant(I64, COLUMNS)), constant(I64, column))
        place = f.offset(out, index, I32)
        f.store(f.binary("add", f.load(I32, place), value), place)
    f.return_()
    f.finish()
    launch.add_launch(module, "record", "record_program", {"out": PTR}, work)
    return module


def entry_of(module: ModuleBuilder, name: str, parameters, schedule: str | None = EVEN) -> KernelEntry:
    """A kernel that `launch.add_launch` has completed, compiled for the host."""
    launch.add_python_entry(module, name, parameters)
    host = target.host()
    return KernelEntry(codegen.compile_module(host, str(module)).object_code, host, name, schedule)


def expected_rows(grid) -> np.ndarray:
    """What `record_kernel` leaves in all but its last column where every program ran once."""
    positions = [(x, y, z) for z, y, x in itertools.product(*(range(extent) for extent in reversed(grid)))]
    return np.array([(1, *position, *grid) for position in positions], np.int32).reshape(-1, 7)


def run(entry: KernelEntry, grid, threads: int) -> np.ndarray:
    """What a `record_kernel` leaves."""
    out = np.zeros((max(int(np.prod(grid)), 0), COLUMNS), np.int32)
    entry.call(out.ctypes.data, *grid, threads)
    return out


def waiting_kernel() -> ModuleBuilder:
    """The first program waits, for a bounded time, for all others to end.

    ``out`` is i32 ``[2 + programs]``: others that have ended, how many of them the first saw, and the thread of each
    program.
    """
    module = ModuleBuilder()
    f = FunctionBuilder(module, "waiting_program", {"out": PTR, **GRID}, "internal")
    ended, px = f.parameters["out"], f.parameters["px"]
    place = f.offset(ended, f.binary("add", px, constant(I32, 2)), I32)
    f.store(f.call("omp_get_thread_num", I32), place)
    first, other, leave = f.label("first"), f.label("other"), f.label("leave")
    f.branch(f.compare("eq", px, constant(I32, 0)), first, other)
    f.place(other)
    f.do(f"atomicrmw add {ended.typed}, i32 1 monotonic")
    f.jump(leave)
    f.place(first)
    others = f.binary("sub", f.parameters["gx"], constant(I32, 1))
    loop = f.counted_loop(constant(I64, 0), constant(I64, 1 << 31), constant(I64, 1))
    seen = f.emit(I32, f"load atomic i32, {ended.typed} monotonic, align 4")
    f.store(seen, f.offset(ended, constant(I32, 1), I32))
    go_on = f.label("go_on")
    f.branch(f.compare("eq", seen, others), leave, go_on)
    f.place(go_on)
    loop.close()
    f.jump(leave)
    f.place(leave)
    f.return_()
    f.finish()
    launch.add_launch(module, "waiting", "waiting_program", {"out": PTR}, 1 << 20)
    return module
