import plugin_kernels as k
import pytest
import torch
import triton
from plugin_support import registered

from hf_tle_int8.backend import arguments, benchmark, settings, target
from hf_tle_int8.backend.driver import CPUDriver
from hf_tle_int8.backend.lowering import UnsupportedOperationError


@pytest.fixture(autouse=True)
def driver(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    with registered() as active:
        yield active


class TestLaunch:
    @pytest.mark.parametrize(
        "dtype", [torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32]
    )
    def test_copies(self, dtype):
        x = torch.arange(-5, 6).to(dtype)
        y = torch.empty_like(x)
        k.copy_kernel[(x.numel(),)](x, y)
        assert torch.equal(x, y)

    def test_bools(self):
        x, y = torch.tensor([True, False, True]), torch.zeros(3, dtype=torch.bool)
        k.copy_kernel[(3,)](x, y)
        assert torch.equal(x, y)

    @pytest.mark.parametrize("factor", [0, 1, 2, 16, -3])
    def test_constexprs_and_defaults(self, factor):
        x, y = torch.arange(5), torch.empty(5, dtype=torch.int64)
        k.affine_kernel[(5,)](x, y, factor)
        assert torch.equal(y, x * factor + 7)
        k.affine_kernel[(5,)](x, y, factor, offset=2, SQUARE=True)
        assert torch.equal(y, x * x * factor + 2)

    def test_views_start_where_they_start(self):
        x, y = torch.arange(10), torch.zeros(10, dtype=torch.int64)
        k.copy_kernel[(3,)](x[5:], y[1:])
        assert y.tolist() == [0, 5, 6, 7, 0, 0, 0, 0, 0, 0]

    def test_do_not_specialize(self):
        y = torch.empty(2, dtype=torch.int64)
        first = k.count_kernel[(2,)](y, 1)
        assert y.tolist() == [1, 1]
        assert k.count_kernel[(2,)](y, 16) is first
        assert y.tolist() == [16, 16]

    @pytest.mark.parametrize("value", [0.1, -2.5, float("inf")])
    def test_floats_are_fp32(self, value):
        y = torch.empty(1, dtype=torch.float64)
        k.scalar_kernel[(1,)](y, value)
        assert y.item() == torch.tensor(value, dtype=torch.float32).item()

    @pytest.mark.parametrize("value", [-1, 5, 2**31 - 1, 2**31, -(2**40), 2**63 - 1, 2**63, 2**64 - 1, True, False])
    def test_integers_of_all_widths(self, value):
        y = torch.empty(1, dtype=torch.int64)
        k.integer_kernel[(1,)](y, value)
        assert y.item() % 2**64 == value % 2**64

    def test_annotated_types(self):
        y = torch.empty(4, dtype=torch.float64)
        k.annotated_kernel[(1,)](y, 0.1, 0.1, 0.1, True)
        expected = [torch.tensor(0.1, dtype=d).double().item() for d in (torch.float16, torch.bfloat16, torch.float64)]
        assert y.tolist() == [*expected, 1.0]

    def test_tuples(self):
        y = torch.empty(1, dtype=torch.int64)
        k.tuple_kernel[(1,)]((y, 40), 2)
        assert y.item() == 42

    def test_none_pointers(self):
        x, y = torch.tensor([5]), torch.empty(1, dtype=torch.int64)
        k.optional_kernel[(1,)](None, y)
        assert y.item() == 1
        k.optional_kernel[(1,)](x, y)
        assert y.item() == 5

    def test_grids(self):
        y = torch.empty(24, dtype=torch.int32)
        k.place_kernel[(4, 3, 2)](y)
        assert y.view(2, 3, 4)[1, 2].tolist() == [21, 121, 221, 321]
        k.place_kernel[lambda meta: (2,)](y)
        assert y[:2].tolist() == [0, 100]

    @pytest.mark.parametrize("grid", [(0,), (3, 0), (1, 2, 0)])
    def test_empty_grids_run_nothing(self, grid):
        y = torch.full((6,), 9, dtype=torch.int32)
        k.place_kernel[grid](y)
        assert (y == 9).all()

    def test_too_large_grids_are_refused(self):
        with pytest.raises(ValueError, match=r"4294967296.*second axis"):
            k.place_kernel[(2**32,)](torch.empty(1, dtype=torch.int32))

    def test_other_devices_are_refused(self):
        x = torch.empty(3, device="meta")
        with pytest.raises(ValueError, match=r"argument x is on device 'meta'.*\.cpu\(\)"):
            k.copy_kernel[(3,)](x, torch.empty(3))

    def test_reinterpreted_tensors(self):
        x, y = torch.tensor([1.0]), torch.empty(1, dtype=torch.int32)
        k.copy_kernel[(1,)](triton.reinterpret(x, triton.language.int32), y)
        assert y.item() == 0x3F800000

    def test_options_of_gpus_have_no_effect(self, tmp_path):
        y = torch.empty(1, dtype=torch.int32)
        k.place_kernel[(1,)](y)
        entries = set((tmp_path / "cache").rglob("*.obj"))
        k.place_kernel[(1,)](y, num_warps=8, num_stages=5, num_ctas=2, maxnreg=64, waves_per_eu=2)
        assert set((tmp_path / "cache").rglob("*.obj")) == entries

    def test_unknown_options_are_refused(self):
        with pytest.raises(KeyError, match="nonsense"):
            k.place_kernel[(1,)](torch.empty(1, dtype=torch.int32), nonsense=3)

    def test_hooks_see_each_launch(self):
        seen = []
        enter, leave = triton.knobs.runtime.launch_enter_hook, triton.knobs.runtime.launch_exit_hook

        def entered(metadata):
            seen.append(("enter", metadata.get()["name"]))

        def left(metadata):
            seen.append(("exit", metadata.get()["name"]))

        enter.add(entered)
        leave.add(left)
        try:
            k.place_kernel[(1,)](torch.empty(1, dtype=torch.int32))
        finally:
            enter.remove(entered)
            leave.remove(left)
        assert seen == [("enter", "place_kernel"), ("exit", "place_kernel")]


class TestTritonsTools:
    def test_warmup_compiles_without_running(self):
        compiled = k.place_kernel.warmup(torch.int32, grid=(1,))
        assert {"ttir", "llir", "asm", "obj"} <= set(compiled.asm)
        assert compiled.metadata.name == "place_kernel"

    def test_a_compiled_kernel_runs(self):
        y = torch.empty(1, dtype=torch.int32)
        k.place_kernel.warmup(y, grid=(1,))[(1, 1, 1)](y)
        assert y.item() == 0

    def test_autotune(self):
        y = torch.empty(2, dtype=torch.int32)
        k.tuned_kernel[(2,)](y)
        assert y.tolist() == [k.tuned_kernel.best_config.kwargs["OFFSET"]] * 2

    def test_heuristics(self):
        y = torch.empty(1, dtype=torch.int64)
        k.heuristic_kernel[(1,)](y, 5)
        assert y.item() == 15

    @pytest.mark.parametrize("mode", ["mean", "median", "min", "max"])
    def test_do_bench_of_triton(self, mode):
        assert triton.testing.do_bench(lambda: sum(range(1000)), warmup=1, rep=2, return_mode=mode) > 0

    def test_errors_name_the_line_of_the_kernel(self):
        with pytest.raises(UnsupportedOperationError, match=r"plugin_kernels\.py:\d+: tt\.atomic_rmw"):
            k.unsupported_kernel[(1,)](torch.empty(1, dtype=torch.int32))


class TestBenchmark:
    def test_calls_at_least_once_each(self):
        calls = []
        times = benchmark.do_bench(lambda: calls.append(1), warmup=0, rep=0, return_mode="all")
        assert len(calls) == 2
        assert len(times) == 1

    def test_quantiles_interpolate(self):
        assert benchmark._quantile([4.0, 1.0, 2.0], 0.5) == 2.0
        assert benchmark._quantile([4.0, 1.0, 2.0], 0.75) == 3.0
        assert benchmark._quantile([4.0], 0.2) == 4.0

    def test_drops_gradients(self):
        x = torch.ones(1, requires_grad=True)
        x.sum().backward()
        low, high = benchmark.do_bench(lambda: None, 0, 0, grad_to_none=[x], quantiles=[0.2, 0.8])
        assert x.grad is None
        assert low <= high

    def test_unknown_modes_are_refused(self):
        with pytest.raises(ValueError, match=r"'p99' is unknown\. Choose of min, max"):
            benchmark.do_bench(lambda: None, return_mode="p99")


class TestDriver:
    def test_target(self, driver, monkeypatch):
        assert driver.get_current_target().arch == target.host().name
        monkeypatch.setenv("HF_TLE_INT8_TARGET", "z80")
        with pytest.raises(RuntimeError, match=r"HF_TLE_INT8_TARGET=z80: .*no target.*Choose of .*Unset"):
            driver.get_current_target()

    def test_targets_of_other_machines_are_refused(self, monkeypatch):
        other = next(name for name, kind in target.TARGETS.items() if kind.arch != target.host().arch)
        monkeypatch.setenv("HF_TLE_INT8_TARGET", other)
        with pytest.raises(RuntimeError, match=f"{other}.*does not have.*Choose of {target.host().name}"):
            target.current()

    def test_every_runnable_target_can_be_chosen(self, driver, monkeypatch):
        for name in target.runnable(target.cpu_features(), target.platform.machine()):
            monkeypatch.setenv("HF_TLE_INT8_TARGET", name)
            assert driver.get_current_target().arch == name

    def test_one_device(self, driver):
        driver.set_current_device(driver.get_current_device())
        with pytest.raises(ValueError, match="device 1"):
            driver.set_current_device(1)
        assert driver.get_active_torch_device() == torch.device("cpu")

    @pytest.mark.parametrize(("kind", "expected"), [("*fp32", "void*"), ("i32", "int32_t"), ("u8", "uint8_t")])
    def test_types(self, driver, kind, expected):
        assert driver.map_python_to_cpp_type(kind) == expected

    def test_unknown_types(self, driver):
        with pytest.raises(ValueError, match="nvTmaDesc"):
            driver.map_python_to_cpp_type("nvTmaDesc")

    @pytest.mark.parametrize("kind", ["nvTmaDesc", "tensordesc<fp32[8, 8]>"])
    def test_descriptors_are_refused(self, kind):
        with pytest.raises(TypeError, match=r"argument d has type .*make_tensor_descriptor"):
            arguments.converters({"d": kind})

    def test_things_without_address(self):
        ((_, convert),) = arguments.converters({"d": "*fp32"})
        assert convert(None) == 0
        assert convert(4096) == 4096
        with pytest.raises(TypeError, match="argument d is of list"):
            convert([1])


class TestWhyInactive:
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch):
        for name in ("TRITON_DEFAULT_BACKEND", "TRITON_BACKENDS_IN_TREE", "HF_TLE_INT8_TARGET"):
            monkeypatch.delenv(name, raising=False)
        for name in set(triton.backends.backends) - {settings.NAME}:
            monkeypatch.delitem(triton.backends.backends, name)

    def test_active(self):
        assert settings.why_inactive() is None
        assert CPUDriver.is_active()

    def test_other_choice(self, monkeypatch):
        monkeypatch.setenv("TRITON_DEFAULT_BACKEND", "nvidia")
        assert "TRITON_DEFAULT_BACKEND=nvidia" in settings.why_inactive()

    def test_in_tree(self, monkeypatch):
        monkeypatch.setenv("TRITON_BACKENDS_IN_TREE", "1")
        assert "Unset it" in settings.why_inactive()

    def test_no_entry_point(self, monkeypatch):
        monkeypatch.delitem(triton.backends.backends, "tle_cpu")
        assert "no entry point 'tle_cpu' in the group 'triton.backends'. Reinstall" in settings.why_inactive()

    def test_interpreted(self):
        with triton.knobs.runtime.scope():
            triton.knobs.runtime.interpret = True
            assert "Unset it" in settings.why_inactive()

    def test_no_llvmlite(self, monkeypatch):
        find = settings.importlib.util.find_spec
        monkeypatch.setattr(settings.importlib.util, "find_spec", lambda n: None if n == "llvmlite" else find(n))
        assert "pip install llvmlite" in settings.why_inactive()

    def test_no_target(self, monkeypatch):
        target.host.cache_clear()
        monkeypatch.setattr(target, "cpu_features", frozenset)
        try:
            assert "runs none of the targets" in settings.why_inactive()
            assert not CPUDriver.is_active()
        finally:
            target.host.cache_clear()

    def test_wrong_override(self, monkeypatch):
        monkeypatch.setenv("HF_TLE_INT8_TARGET", "z80")
        assert "Unset HF_TLE_INT8_TARGET" in settings.why_inactive()
