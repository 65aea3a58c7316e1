import platform

import pytest
import torch

from hf_tle_int8.backend import hwcap


def test_features_agree_with_torch():
    features = hwcap.cpu_features()
    if platform.machine() == "x86_64":
        assert ("avx2" in features) == (torch.backends.cpu.get_cpu_capability() != "DEFAULT")
    else:
        assert "asimd" in features


@pytest.mark.parametrize(
    ("hwcap_word", "hwcap2_word", "expected"),
    [
        (1 << 1, 0, {"asimd"}),
        ((1 << 1) | (1 << 20), 0, {"asimd", "asimddp"}),
        (
            (1 << 1) | (1 << 20) | (1 << 22),
            (1 << 1) | (1 << 13) | (1 << 14),
            {"asimd", "asimddp", "sve", "sve2", "i8mm", "bf16"},
        ),
    ],
)
def test_arm_features_come_from_the_auxiliary_vector(monkeypatch, hwcap_word, hwcap2_word, expected):
    class GetAuxiliaryValue:
        def __call__(self, kind):
            return {16: hwcap_word, 26: hwcap2_word}[kind]

    library = type("Library", (), {"getauxval": GetAuxiliaryValue()})()
    monkeypatch.setattr(hwcap.ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(hwcap.platform, "machine", lambda: "aarch64")
    assert hwcap.cpu_features() == expected


def test_other_systems_tell_nothing(monkeypatch):
    monkeypatch.setattr(hwcap.platform, "system", lambda: "Darwin")
    assert hwcap.cpu_features() == frozenset()


def test_cpuinfo_of_an_unknown_key_is_empty():
    assert hwcap.cpuinfo("no such key") == ""
