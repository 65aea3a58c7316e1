import os
import platform

import torch

import hf_tle_int8
from hf_tle_int8 import report


def test_environment_states_versions_cpu_and_threads():
    facts = report.environment()
    assert facts["hf_tle_int8"] == hf_tle_int8.__version__
    assert facts["torch"] == torch.__version__
    assert facts["torch threads"] == str(torch.get_num_threads())
    assert int(facts["usable CPUs"]) >= 1
    assert all(facts.values())


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(report, "_PACKAGES", ("no-such-package",))
    assert report.environment()["no-such-package"] == "not installed"


def test_features_agree_with_torch():
    features = report.cpu_features()
    if platform.machine() == "x86_64":
        has_avx2 = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX")
        assert ("avx2" in features) == has_avx2
    else:
        assert "asimd" in features


def test_omp_num_threads_is_read(monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "7")
    assert report.environment()["OMP_NUM_THREADS"] == "7"


def test_arm_features_come_from_the_auxiliary_vector(monkeypatch):
    words = {16: (1 << 1) | (1 << 20), 26: (1 << 13) | (1 << 1)}

    class Library:
        @staticmethod
        def getauxval(kind):
            return words[kind]

    library = Library()
    library.getauxval = type("Function", (), {"__call__": lambda self, kind: words[kind]})()
    monkeypatch.setattr(report.ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(report.platform, "machine", lambda: "aarch64")
    assert report.cpu_features() == ["asimd", "asimddp", "sve2", "i8mm"]
