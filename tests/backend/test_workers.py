"""Both schedules: every program runs once, on whichever thread, with memory of that thread's own."""

import heapq
import itertools
import threading

import numpy as np
import pytest
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from grid_kernels import GRID, entry_of, expected_rows, record_kernel, run, waiting_kernel
from openmp_stubs import STUBS

from hf_tle_int8.backend import codegen, launch, target, workers
from hf_tle_int8.backend.ir import I32, I64, PTR, FunctionBuilder, ModuleBuilder, constant
from hf_tle_int8.backend.ir.frame import ALIGNMENT, STACK_BYTES
from hf_tle_int8.backend.schedule import DYNAMIC, EVEN

HEAVY = 1 << 20
SCHEDULES = (EVEN, DYNAMIC)
ENTRY = {EVEN: "launch", DYNAMIC: "launch_dynamic"}
GRIDS = [*((count, 1, 1) for count in (1, 2, 3, 4, 5, 31, 97)), (3, 5, 7), (1, 1, 13), (2, 17, 1)]


@pytest.fixture(scope="module")
def entries():
    return {schedule: entry_of(record_kernel(HEAVY), "record", {"out": PTR}, schedule) for schedule in SCHEDULES}


def boundaries(total: int, team: int, least: int) -> set[int]:
    """Where chunks of the dynamic schedule begin."""
    found, begin = set(), 0
    while begin < total:
        found.add(begin)
        begin += min(max((total - begin) // (4 * team), least), total - begin)
    return found


def changes(threads: np.ndarray) -> set[int]:
    """Programs that another thread ran than the program before."""
    return {int(index) + 1 for index in np.flatnonzero(np.diff(threads))}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
class TestOnce:
    @pytest.mark.parametrize("grid", [*GRIDS, (10007, 1, 1), (101, 1, 103)])
    def test_each_program_runs_once(self, entries, schedule, threads, grid):
        assert np.array_equal(run(entries[schedule], grid, threads)[:, :7], expected_rows(grid))

    def test_from_several_python_threads(self, entries, schedule, threads):
        failures, expected = [], expected_rows((29, 2, 3))

        def work():
            for _ in range(25):
                if not np.array_equal(run(entries[schedule], (29, 2, 3), threads)[:, :7], expected):
                    failures.append(1)

        callers = [threading.Thread(target=work) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not failures

    def test_inside_of_a_kernel(self, schedule, threads):
        module = record_kernel(HEAVY)
        f = FunctionBuilder(module, "outer_program", {"out": PTR, **GRID}, "internal")
        stride = f.binary("mul", f.cast("sext", f.parameters["px"], I64), constant(I64, 11 * 8))
        inner = [constant(I32, value) for value in (11, 1, 1, threads)]
        f.call_local(f"record_{ENTRY[schedule]}", f.offset(f.parameters["out"], stride, I32), *inner)
        f.return_()
        f.finish()
        launch.add_launch(module, "outer", "outer_program", {"out": PTR}, HEAVY)
        out = np.zeros((9, 11, 8), np.int32)
        entry = entry_of(module, "outer", {"out": PTR}, schedule)
        entry.call(out.ctypes.data, 9, 1, 1, threads)
        assert np.array_equal(out[..., :7], np.broadcast_to(expected_rows((11, 1, 1)), (9, 11, 7)))


class TestChunks:
    @pytest.mark.parametrize("threads", [2, 3, 4])
    def test_chunks_shrink_with_what_is_left(self, entries, threads):
        for _ in range(20):
            found = changes(run(entries[DYNAMIC], (10007, 1, 1), threads)[:, 7])
            assert found <= boundaries(10007, threads, 1)

    @pytest.mark.parametrize(
        "speeds", [(1, 0.5), (1,) * 4 + (0.2,) * 4, (1,) * 4 + (0.55,) * 8, (1,) * 4 + (0.88,) * 4 + (0.27,) * 4]
    )
    def test_unlike_cores_end_together(self, speeds):
        total = 32 * len(speeds)
        begins = [*sorted(boundaries(total, len(speeds), 1)), total]
        free = [(0.0, speed) for speed in speeds]
        for begin, end in itertools.pairwise(begins):
            now, speed = heapq.heappop(free)
            heapq.heappush(free, (now + (end - begin) / speed, speed))
        assert max(free)[0] < 1.035 * total / sum(speeds)

    def test_programs_of_little_work_are_taken_together(self):
        work, total = 16, 8 * launch.WORK_PER_THREAD // 16
        entry = entry_of(record_kernel(work), "record", {"out": PTR}, DYNAMIC)
        out = run(entry, (total, 1, 1), 2)
        assert (out[:, 0] == 1).all()
        assert changes(out[:, 7]) <= boundaries(total, 2, workers.WORK_PER_CHUNK // work)

    def test_a_thread_that_takes_long_leaves_the_rest_to_another(self):
        entry = entry_of(waiting_kernel(), "waiting", {"out": PTR}, DYNAMIC)
        out = np.full(2 + 8, -1, np.int32)
        out[:2] = 0
        entry.call(out.ctypes.data, 8, 1, 1, 2)
        check_waiting(out)

    def test_one_thread_wakes_no_other(self, entries):
        assert not run(entries[DYNAMIC], (100, 1, 1), 1)[:, 7].any()


def check_waiting(out: np.ndarray) -> None:
    """That the first program of a `waiting_kernel` saw all others end, on other threads than its own."""
    assert out[1] == len(out) - 3
    assert out[2] not in out[3:]
    assert (out[2:] >= 0).all()


def scratch_kernel(size: int) -> ModuleBuilder:
    """Program ``i`` fills the ends of its scratch with its thread's number, and notes that and the address in ``out``.

    ``out`` is i64 ``[programs, 2]``.
    """
    module = ModuleBuilder()
    f = FunctionBuilder(module, "scratch_program", {"out": PTR, **GRID, "memory": PTR}, "internal")
    out, px, memory = f.parameters["out"], f.parameters["px"], f.parameters["memory"]
    thread = f.cast("zext", f.call("omp_get_thread_num", I32), I64)
    last = f.offset(memory, constant(I64, size // 8 - 1), I64)
    f.store(thread, memory)
    f.store(thread, last)
    row = f.offset(out, f.binary("mul", f.cast("zext", px, I64), constant(I64, 2)), I64)
    f.store(f.load(I64, last), row)
    f.store(memory, f.offset(row, constant(I64, 1), I64))
    f.return_()
    f.finish()
    launch.add_launch(module, "scratch", "scratch_program", {"out": PTR}, HEAVY, size)
    return module


def check_scratch(out: np.ndarray, size: int) -> None:
    """That each thread had aligned memory of its own, the same for all of its programs."""
    owners = {(int(thread), int(address)) for thread, address in out}
    addresses = sorted(address for _, address in owners)
    assert len(owners) == len({thread for thread, _ in owners})
    assert all(address and address % ALIGNMENT == 0 for address in addresses)
    assert all(after - before >= size for before, after in itertools.pairwise(addresses))


SCRATCH = 4 * STACK_BYTES


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_thread_has_scratch_of_its_own(schedule):
    entry = entry_of(scratch_kernel(SCRATCH), "scratch", {"out": PTR}, schedule)
    for threads in (1, 2, 3, 4):
        for _ in range(10):
            out = np.zeros((1009, 2), np.int64)
            entry.call(out.ctypes.data, 1009, 1, 1, threads)
            check_scratch(out, SCRATCH)


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_threads_on_arm(name, tmp_path):
    require_emulator()
    chosen = target.named(name)
    modules = (str(record_kernel(HEAVY)), str(waiting_kernel()), str(scratch_kernel(SCRATCH)), STUBS)
    objects = [codegen.compile_module(chosen, text).object_code for text in modules]
    symbols = [f"{kernel}_{ENTRY[schedule]}" for kernel in ("record", "scratch") for schedule in SCHEDULES]
    symbols.append("waiting_launch_dynamic")
    with ArmProcess(link(objects, symbols, tmp_path), symbols, CPU_OF_TARGET[name]) as arm:
        for symbol in symbols[:2]:
            for threads in (1, 2, 3, 4):
                for grid in (*GRIDS, (997, 1, 1)):
                    out = np.zeros((np.prod(grid), 8), np.int32)
                    arm.call(symbol, out, *grid, threads)
                    assert np.array_equal(out[:, :7], expected_rows(grid))
        for symbol in symbols[2:4]:
            out = np.zeros((101, 2), np.int64)
            arm.call(symbol, out, 101, 1, 1, 4)
            check_scratch(out, SCRATCH)
        for threads in (2, 4):
            out = np.full(2 + 4 * threads, -1, np.int32)
            out[:2] = 0
            arm.call(symbols[-1], out, 4 * threads, 1, 1, threads)
            check_waiting(out)
