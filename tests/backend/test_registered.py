"""The entry point in fresh processes: what it gives to users of Triton, and what it leaves alone for all others."""

import json
from pathlib import Path

import pytest
import triton
from plugin_support import registered, run_python
from triton.backends import Backend, backends
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.driver import _create_driver

from hf_tle_int8.backend import settings
from hf_tle_int8.backend.compiler import CPUBackend
from hf_tle_int8.backend.driver import CPUDriver

# Prints, as JSON, what torch and others say about Triton, and the code of a compiled function.
WHAT_OTHERS_SEE = """
import json, torch
from torch._dynamo.device_interface import CpuInterface
from torch._inductor import config
from torch._inductor.utils import run_and_get_code
from torch.utils import _triton
import accelerate.utils, transformers.utils

seen = {name: getattr(_triton, name)() for name in dir(_triton) if name.startswith("has_triton")}
seen["transformers"] = transformers.utils.is_triton_available()
seen["accelerate"] = accelerate.utils.is_triton_available()
seen["backend of CPUs"] = config.cpu_backend
try:
    CpuInterface.raise_if_triton_unavailable()
    seen["interface"] = None
except RuntimeError as error:
    seen["interface"] = str(error)
x = torch.arange(256.0).reshape(16, 16)
result, seen["code"] = run_and_get_code(torch.compile(lambda x: torch.softmax(x @ x, -1).sum(0)), x)
seen["result"] = result.tolist()
print(json.dumps(seen))
"""


def test_a_program_of_a_user_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = str(Path(__file__).with_name("user_program.py"))
    printed = run_python(program, TRITON_CACHE_DIR=str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert printed == "all equal\n"


def test_importing_triton_imports_nothing_heavy():
    heavy = ["torch", "llvmlite", "numpy", "transformers", "safetensors"]
    for environment in ({}, {"TRITON_BACKENDS_IN_TREE": "1"}):
        script = f"import sys, triton; print(sorted(set({heavy}) & set(sys.modules)), 'hf_tle_int8' in sys.modules)"
        assert run_python("-c", script, **environment).split() == ["[]", str(not environment)]


def test_nothing_changes_for_torch_and_others(tmp_path):
    with_us, without = (
        json.loads(run_python("-c", WHAT_OTHERS_SEE, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / hidden), **environment))
        for hidden, environment in (("no", {}), ("yes", {"TRITON_BACKENDS_IN_TREE": "1"}))
    )
    assert len(with_us) > 8
    assert with_us["code"]
    assert with_us == without


class TestOtherBackends:
    @pytest.fixture
    def gpu(self, monkeypatch):
        """A backend for a GPU of its own, which is there."""
        monkeypatch.delenv("TRITON_DEFAULT_BACKEND", raising=False)
        compiler = type("Compiler", (CPUBackend,), {"supports_target": staticmethod(lambda target: target.arch == 90)})
        driver = type("Driver", (CPUDriver,), {"is_active": classmethod(lambda cls: True)})
        for name in set(backends) - {settings.NAME}:
            monkeypatch.delitem(backends, name)
        with registered():
            monkeypatch.setitem(backends, "gpu", Backend(compiler, driver))
            yield driver

    def test_an_active_one_stays_the_default(self, gpu):
        assert type(_create_driver()) is gpu
        assert settings.why_inactive() == "Triton's backend gpu is active. Set TRITON_DEFAULT_BACKEND=tle_cpu."

    def test_unless_we_are_chosen(self, gpu, monkeypatch):
        monkeypatch.setenv("TRITON_DEFAULT_BACKEND", "tle_cpu")
        assert type(_create_driver()) is CPUDriver
        assert settings.why_inactive() is None

    def test_one_that_is_not_active_does_not_matter(self, gpu, monkeypatch):
        monkeypatch.setattr(gpu, "is_active", classmethod(lambda cls: False))
        assert type(_create_driver()) is CPUDriver

    def test_targets_of_another_backend_for_cpus_are_not_ours(self):
        with pytest.raises(RuntimeError, match="0 compatible backends"):
            make_backend(GPUTarget("cpu", "znver3", 1))

    def test_the_name_is_not_the_one_that_torch_gives_to_triton_cpu(self):
        assert settings.NAME in triton.backends.backends
        assert "cpu" not in triton.backends.backends
