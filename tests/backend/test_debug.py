import plugin_kernels as k
import pytest
import torch
from plugin_support import registered

from hf_tle_int8.backend import debug


@pytest.fixture(autouse=True)
def _backend(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with registered():
        yield


def compile_place_kernel():
    k.place_kernel.warmup(torch.int32, grid=(1,))


@pytest.mark.parametrize(
    ("value", "stages"),
    [("", []), ("ttir", ["ttir"]), ("llir, asm", ["llir", "asm"]), ("all", ["ttir", "llir", "asm"]), ("asm,", ["asm"])],
)
def test_prints_what_is_asked_for(value, stages, monkeypatch, capsys):
    monkeypatch.setenv("HF_TLE_INT8_DEBUG", value)
    compile_place_kernel()
    printed = capsys.readouterr().err
    headers = [line for line in printed.splitlines() if line.startswith("====")]
    assert headers == [f"==== {stage} of place_kernel ====" for stage in stages]
    assert ("tt.func" in printed) == ("ttir" in stages)
    assert ("define " in printed) == ("llir" in stages)
    assert (".globl" in printed) == ("asm" in stages)


@pytest.mark.parametrize("value", ["ttgir", "asm,ptx", "asm llir"])
def test_unknown_names_are_refused(value, monkeypatch):
    monkeypatch.setenv("HF_TLE_INT8_DEBUG", value)
    with pytest.raises(ValueError, match=r"no stage\. There are ttir, llir, asm and 'all'"):
        compile_place_kernel()


def test_nothing_is_the_default(monkeypatch):
    monkeypatch.delenv("HF_TLE_INT8_DEBUG", raising=False)
    assert debug.requested() == frozenset()
