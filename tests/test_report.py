import os

import torch

import hf_tle_int8
from hf_tle_int8 import report
from hf_tle_int8.backend import hwcap


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


def test_features_are_shown():
    shown = report.environment()["CPU features"].split()
    assert shown
    assert set(shown) <= hwcap.cpu_features()


def test_omp_num_threads_is_read(monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "7")
    assert report.environment()["OMP_NUM_THREADS"] == "7"
