import os

import pytest
import torch

import hf_tle_int8
from hf_tle_int8 import dispatch, execution, report
from hf_tle_int8.backend import hwcap, schedule, settings, target

VARIABLES = (
    "TRITON_BACKENDS_IN_TREE", "TRITON_DEFAULT_BACKEND", "TRITON_INTERPRET", "HF_TLE_INT8_TARGET", "HF_TLE_INT8_DEBUG",
    "HF_TLE_INT8_SCHEDULE",
)  # fmt: skip


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


@pytest.fixture
def _no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_variables")
class TestTriton:
    def test_the_target_is_described(self):
        facts = report.environment()
        host = target.host()
        assert facts["kernels compiled for"].startswith(f"{host.name} ({host.arch}, {host.cpu}")
        assert facts["vector registers"] == f"{host.vector_registers} of {8 * host.vector_bytes} bits"
        assert facts["dot instructions"] == f"int8 {host.int8_dot}, bf16 {host.bf16_dot}"

    def test_a_target_that_does_not_run_is_said(self, monkeypatch):
        monkeypatch.setenv("HF_TLE_INT8_TARGET", "z80")
        facts = report.environment()
        assert facts["kernels compiled for"].startswith("nothing: HF_TLE_INT8_TARGET=z80: 'z80' is no target")
        assert facts["tle_cpu runs kernels"].startswith("no: HF_TLE_INT8_TARGET=z80")

    def test_the_schedule_is_said(self):
        found = schedule.current()
        assert report.environment()["threads share a grid"] == f"{found.name}: {found.reason}"

    def test_a_schedule_that_there_is_not_is_said(self, monkeypatch):
        monkeypatch.setenv("HF_TLE_INT8_SCHEDULE", "guided")
        monkeypatch.setattr(schedule, "current", schedule.current.__wrapped__)
        facts = report.environment()
        assert facts["threads share a grid"].startswith("not at all: HF_TLE_INT8_SCHEDULE=guided: there is no such")

    def test_registered_and_chosen(self, monkeypatch):
        monkeypatch.setenv("TRITON_DEFAULT_BACKEND", "tle_cpu")
        facts = report.environment()
        assert facts["Triton backend tle_cpu"] == "registered"
        assert facts["tle_cpu runs kernels"] == "yes"

    def test_not_registered(self, monkeypatch):
        monkeypatch.setenv("TRITON_BACKENDS_IN_TREE", "1")
        facts = report.environment()
        reason = settings.why_not_registered()
        assert facts["Triton backend tle_cpu"] == f"not registered: {reason}"
        assert facts["tle_cpu runs kernels"] == f"no: {reason}"

    def test_not_chosen(self, monkeypatch):
        monkeypatch.setenv("TRITON_DEFAULT_BACKEND", "nvidia")
        facts = report.environment()
        assert facts["Triton backend tle_cpu"] == "registered"
        assert "Set TRITON_DEFAULT_BACKEND=tle_cpu" in facts["tle_cpu runs kernels"]

    def test_variables_are_shown_where_set(self, monkeypatch):
        assert not set(VARIABLES) & set(report.environment())
        for name in VARIABLES:
            monkeypatch.setenv(name, "1")
        facts = report.environment()
        assert [facts[name] for name in VARIABLES] == ["1"] * len(VARIABLES)


def test_tiles_that_cannot_be_are_told(monkeypatch):
    execution.layout.cache_clear()
    monkeypatch.setenv(dispatch.VARIABLE, "3x7")
    try:
        assert report.environment()["INT8 linears run on"].startswith("nothing: HF_TLE_INT8_TILES='3x7'")
        assert report.environment()[dispatch.VARIABLE] == "3x7"
    finally:
        execution.layout.cache_clear()
