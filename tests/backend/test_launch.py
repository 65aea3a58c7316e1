"""The grid, the threads and the call from Python, around kernels that are written in IR by hand."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from grid_kernels import COLUMNS, GRID, entry_of, expected_rows, record_kernel, run
from openmp_stubs import STUBS

from hf_tle_int8.backend import codegen, launch, openmp, target
from hf_tle_int8.backend.ir import FLOAT, I8, I32, I64, PTR, FunctionBuilder, ModuleBuilder, constant


@pytest.fixture(scope="module")
def heavy():
    return entry_of(record_kernel(work=1 << 20), "record", {"out": PTR})


@pytest.fixture(scope="module")
def light():
    return entry_of(record_kernel(work=1), "record", {"out": PTR})


class TestGrid:
    @pytest.mark.parametrize("threads", [1, 2, 3, 8])
    @pytest.mark.parametrize("grid", [(1, 1, 1), (7, 1, 1), (1, 5, 1), (1, 1, 3), (4, 3, 2), (2, 3, 5), (101, 2, 1)])
    def test_each_program_runs_once_and_knows_its_place(self, heavy, grid, threads):
        assert np.array_equal(run(heavy, grid, threads)[:, :7], expected_rows(grid))

    @pytest.mark.parametrize("grid", [(0, 1, 1), (1, 0, 1), (3, 4, 0), (-1, 1, 1), (-2, -3, 1)])
    def test_an_empty_grid_runs_nothing(self, heavy, grid):
        out = np.zeros((64, COLUMNS), np.int32)
        heavy.call(out.ctypes.data, *grid, 2)
        assert not out.any()

    @pytest.mark.parametrize("threads", [0, 1, -1])
    def test_any_number_of_threads(self, heavy, threads):
        assert np.array_equal(run(heavy, (3, 2, 1), threads)[:, :7], expected_rows((3, 2, 1)))


class TestThreads:
    def test_programs_are_split_evenly_and_contiguously(self, heavy):
        numbers = run(heavy, (10, 1, 1), 2)[:, 7]
        assert numbers.tolist() == [0] * 5 + [1] * 5

    def test_one_thread_does_not_wake_another(self, heavy):
        assert not run(heavy, (10, 1, 1), 1)[:, 7].any()

    def test_too_little_work_stays_on_one_thread(self, light):
        assert not run(light, (100, 1, 1), 2)[:, 7].any()

    def test_many_small_programs_are_enough_work(self, light):
        assert set(run(light, (4 * launch.WORK_PER_THREAD, 1, 1), 2)[:, 7]) == {0, 1}

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_torch_rules(self, heavy, count):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            out = np.zeros((12, COLUMNS), np.int32)
            heavy(out.ctypes.data, grid=(12, 1, 1))
        finally:
            torch.set_num_threads(before)
        assert set(out[:, 7]) == set(range(count))

    def test_there_is_one_openmp_runtime_and_it_is_torchs(self, heavy):
        run(heavy, (4, 1, 1), 2)
        (runtime,) = openmp.loaded_runtimes()
        assert Path(torch.__file__).parent.parent in Path(runtime).parents

    def test_several_python_threads_at_once(self, heavy):
        failures = []

        def work():
            for _ in range(50):
                if not np.array_equal(run(heavy, (20, 2, 1), 2)[:, :7], expected_rows((20, 2, 1))):
                    failures.append(1)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not failures

    def test_a_kernel_inside_of_a_kernel(self):
        module = record_kernel(work=1 << 20)
        f = FunctionBuilder(module, "outer_program", {"out": PTR, **GRID}, "internal")
        stride = f.binary("mul", f.cast("sext", f.parameters["px"], I64), constant(I64, 5 * COLUMNS))
        inner = [constant(I32, value) for value in (5, 1, 1, 2)]
        f.call_local("record_launch", f.offset(f.parameters["out"], stride, I32), *inner)
        f.return_()
        f.finish()
        launch.add_launch(module, "outer", "outer_program", {"out": PTR}, 1 << 20)
        entry = entry_of(module, "outer", {"out": PTR})
        out = np.zeros((4, 5, COLUMNS), np.int32)
        entry.call(out.ctypes.data, 4, 1, 1, 2)
        assert np.array_equal(out[..., :7], np.broadcast_to(expected_rows((5, 1, 1)), (4, 5, 7)))

    def test_works_after_fork(self, tmp_path):
        script = f"""
            import os, sys
            sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
            import numpy as np, torch
            import test_launch as t
            torch.set_num_threads(2)
            entry, dynamic = (
                t.entry_of(t.record_kernel(1 << 20), "record", {{"out": t.PTR}}, name) for name in ("even", "dynamic")
            )
            t.run(dynamic, (10, 1, 1), 2)
            out = np.zeros((10, 8), np.int32)
            entry(out.ctypes.data, grid=(10, 1, 1))
            assert set(out[:, 7]) == {{0, 1}}
            child = os.fork()
            again = np.zeros((10, 8), np.int32)
            entry(again.ctypes.data, grid=(10, 1, 1))
            used = set(again[:, 7])
            taken = np.zeros((10, 8), np.int32)
            dynamic(taken.ctypes.data, grid=(10, 1, 1))
            assert (taken[:, 0] == 1).all()
            if child == 0:
                os._exit(0 if used == {{0}} == set(taken[:, 7]) and (again[:, 0] == 1).all() else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert used == {{0, 1}}
            print("fine")
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert output.stdout.strip() == "fine", output.stderr


class TestPython:
    @pytest.fixture
    def copies(self):
        """Stores an i8, an i32, an i64 and an fp32 argument to 8-byte slots."""
        module = ModuleBuilder()
        parameters = {"out": PTR, "a": I8, "b": I32, "c": I64, "d": FLOAT}
        f = FunctionBuilder(module, "copies_program", {**parameters, **GRID}, "internal")
        out, *values = list(f.parameters.values())[:5]
        for index, value in enumerate(values):
            f.store(value, f.offset(out, constant(I64, index), I64))
        f.return_()
        f.finish()
        launch.add_launch(module, "copies", "copies_program", parameters, 1)
        return entry_of(module, "copies", parameters)

    def test_arguments_arrive(self, copies):
        out = np.zeros(4, np.int64)
        copies.call(out.ctypes.data, -3, 1 << 20, -(1 << 40), 0.1, 1, 1, 1, 1)
        assert out.view(np.int8)[0] == -3
        assert out.view(np.int32)[2] == 1 << 20
        assert out[2] == -(1 << 40)
        assert out.view(np.float32)[6] == np.float32(0.1)

    def test_returns_none_without_leaking_it(self, copies):
        out = np.zeros(4, np.int64)
        before = sys.getrefcount(None)
        for _ in range(1000):
            assert copies.call(out.ctypes.data, 0, 0, 0, 0.0, 1, 1, 1, 1) is None
        assert abs(sys.getrefcount(None) - before) < 100

    @pytest.mark.parametrize("count", [0, 1, 8, 10])
    def test_wrong_number_of_arguments(self, copies, count):
        with pytest.raises(TypeError, match="copies takes 9 arguments"):
            copies.call(*[0] * count)

    @pytest.mark.parametrize(("position", "value"), [(0, "x"), (0, None), (1, 1.5), (3, "c"), (4, "d"), (5, None)])
    def test_wrong_types_are_errors_and_run_nothing(self, copies, position, value):
        out = np.full(4, 77, np.int64)
        arguments = [out.ctypes.data, 1, 2, 3, 4.0, 1, 1, 1, 1]
        arguments[position] = value
        with pytest.raises((TypeError, ValueError)):
            copies.call(*arguments)
        assert (out == 77).all()

    def test_other_python_threads_run_meanwhile(self):
        """The kernel waits, for a bounded time, for a cell that another Python thread sets."""
        module = ModuleBuilder()
        f = FunctionBuilder(module, "wait_program", {"cell": PTR, **GRID}, "internal")
        cell = f.parameters["cell"]
        loop = f.counted_loop(constant(I64, 0), constant(I64, 1 << 31), constant(I64, 1))
        seen = f.emit(I32, f"load volatile i32, {cell.typed}, align 4")
        found, go_on = f.label("found"), f.label("go_on")
        f.branch(f.compare("ne", seen, constant(I32, 0)), found, go_on)
        f.place(found)
        f.store(constant(I32, 2), cell)
        f.return_()
        f.place(go_on)
        loop.close()
        f.return_()
        f.finish()
        launch.add_launch(module, "wait", "wait_program", {"cell": PTR}, 1)
        entry = entry_of(module, "wait", {"cell": PTR})
        cell = np.zeros(1, np.int32)
        worker = threading.Thread(target=entry.call, args=(cell.ctypes.data, 1, 1, 1, 1))
        worker.start()
        cell[0] = 1
        worker.join()
        assert cell[0] == 2


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_grid_on_arm(name, tmp_path):
    require_emulator()
    chosen = target.named(name)
    objects = [codegen.compile_module(chosen, text).object_code for text in (str(record_kernel(1 << 20)), STUBS)]
    program = link(objects, ["record_launch"], tmp_path)
    with ArmProcess(program, ["record_launch"], CPU_OF_TARGET[name]) as arm:
        for grid in ((1, 1, 1), (4, 3, 2), (0, 1, 1)):
            for threads in (1, 2):
                out = np.zeros((max(np.prod(grid), 1), COLUMNS), np.int32)
                arm.call("record_launch", out, *grid, threads)
                assert np.array_equal(out[: np.prod(grid), :7], expected_rows(grid))


def test_threads_is_torchs_number():
    assert openmp.threads() == torch.get_num_threads()
