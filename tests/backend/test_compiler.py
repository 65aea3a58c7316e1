import plugin_kernels as k
import pytest
import torch
import triton
from plugin_support import registered
from triton.backends import _find_concrete_subclasses
from triton.backends.compiler import BaseBackend, GPUTarget
from triton.backends.driver import DriverBase

from hf_tle_int8.backend import compiler, driver, identity, options, target
from hf_tle_int8.backend.compiler import CPUBackend


@pytest.fixture(autouse=True)
def _backend(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with registered():
        yield


def backend_for(name: str) -> CPUBackend:
    return CPUBackend(GPUTarget("cpu", name, 1))


class TestDiscovery:
    def test_triton_finds_one_class_each(self):
        assert _find_concrete_subclasses(compiler, BaseBackend) is CPUBackend
        assert _find_concrete_subclasses(driver, DriverBase) is driver.CPUDriver

    def test_only_cpus_are_supported(self):
        assert CPUBackend.supports_target(GPUTarget("cpu", "avx2", 1))
        assert not CPUBackend.supports_target(GPUTarget("cuda", 90, 32))
        assert not CPUBackend.supports_target(GPUTarget("cpu", "znver3", 1))

    def test_unknown_targets_are_refused(self):
        with pytest.raises(ValueError, match="'z80' is no target"):
            backend_for("z80")


class TestKey:
    def test_each_target_has_its_own(self):
        assert len({backend_for(name).hash() for name in target.TARGETS}) == len(target.TARGETS)

    def test_covers_what_code_depends_on(self, monkeypatch):
        before = backend_for("avx2").hash()
        for name, value in (("llvmlite_version", "0"), ("sources_digest", "0")):
            with monkeypatch.context() as patch:
                patch.setattr(identity, name, lambda value=value: value)
                identity.backend_key.cache_clear()
                assert backend_for("avx2").hash() != before
        identity.backend_key.cache_clear()
        assert backend_for("avx2").hash() == before


class TestOptions:
    def test_gpu_options_do_not_change_the_key(self):
        given = {"num_warps": 8, "num_stages": 4, "num_ctas": 2, "maxnreg": 32, "waves_per_eu": 1, "kpack": 2}
        parsed = options.parse(given)
        assert parsed.num_warps == 8
        assert parsed.hash() == options.CPUOptions().hash()

    def test_every_option_without_effect_is_one(self):
        assert set(options.CPUOptions().__dict__) >= options.WITHOUT_EFFECT

    def test_others_change_the_key(self):
        assert options.parse({"debug": True}).hash() != options.CPUOptions().hash()

    def test_survive_json(self):
        parsed = options.parse({"allowed_dot_input_precisions": ["ieee", "tf32"], "arch": None, "foreign": 1})
        assert parsed.allowed_dot_input_precisions == ("ieee", "tf32")

    def test_precisions(self):
        assert options.CPUOptions().default_dot_input_precision == "ieee"
        with pytest.raises(ValueError, match="'fp4' is unknown"):
            options.parse({"default_dot_input_precision": "fp4"})

    def test_libraries_are_refused(self):
        with pytest.raises(ValueError, match="extern_libs"):
            options.parse({"extern_libs": {"libdevice": "x.bc"}})


class TestStages:
    def test_all_targets_compile_here(self):
        source = triton.compiler.ASTSource(k.copy_kernel, {"x": "*fp32", "y": "*fp32"})
        for name in target.TARGETS:
            compiled = triton.compile(source, target=GPUTarget("cpu", name, 1))
            assert list(compiled.asm)[-4:] == ["ttir", "llir", "asm", "obj"]
            assert compiled.metadata.parameters == ["ptr", "ptr"]
            assert (compiled.metadata.shared, compiled.metadata.warp_size) == (0, 1)

    def test_what_triton_stores_is_valid(self, tmp_path):
        from triton._C.libtriton import ir

        compiled = k.copy_kernel.warmup(torch.float32, torch.float32, grid=(1,))
        path = tmp_path / "again.ttir"
        path.write_text(compiled.asm["ttir"])
        context = ir.context()
        ir.load_dialects(context)
        assert ir.parse_mlir_module(str(path), context).verify()

    def test_kernels_of_other_machines_are_not_launched(self):
        other = next(name for name, kind in target.TARGETS.items() if kind.arch != target.host().arch)
        source = triton.compiler.ASTSource(k.copy_kernel, {"x": "*fp32", "y": "*fp32"})
        compiled = triton.compile(source, target=GPUTarget("cpu", other, 1))
        with pytest.raises(RuntimeError, match=f"copy_kernel cannot be launched: the target '{other}' needs"):
            compiled[(1, 1, 1)](torch.ones(1), torch.ones(1))

    def test_a_stage_can_be_overridden(self, tmp_path):
        compiled = k.count_kernel.warmup(torch.int64, 5, grid=(1,))
        path = tmp_path / "count_kernel.llir"
        program, rest = compiled.asm["llir"].split("\n}\n", 1)
        path.write_text(program.replace("%a1 to i64", "77 to i64") + "\n}\n" + rest)
        y = torch.zeros(1, dtype=torch.int64)
        k.count_kernel[(1,)](y, 5, ir_override=str(path))
        assert y.item() == 77

    def test_assembly_cannot(self, tmp_path):
        path = tmp_path / "count_kernel.asm"
        path.write_text("nop")
        with pytest.raises(RuntimeError, match="Override the stage llir"):
            k.count_kernel[(1,)](torch.zeros(1), 5, ir_override=str(path))

    def test_storing_code_of_gpus_only_is_refused(self):
        with triton.knobs.compilation.scope():
            triton.knobs.compilation.store_binary_only = True
            with pytest.raises(RuntimeError, match="TRITON_STORE_BINARY_ONLY.*Unset it"):
                k.copy_kernel.warmup(torch.float32, torch.float32, grid=(1,))

    def test_gluon_is_refused(self):
        language = type("Language", (), {"name": "GLUON"})
        with pytest.raises(NotImplementedError, match="Gluon.*Write it in Triton"):
            backend_for("avx2").add_stages({}, options.CPUOptions(), language)
