import platform

import pytest

from hf_tle_int8.backend import hwcap, target

N1 = frozenset({"asimd", "asimddp", "asimdhp", "fphp"})
V2 = N1 | {"sve", "sve2", "i8mm", "svei8mm", "bf16"}
HASWELL = frozenset({"sse4_2", "ssse3", "popcnt", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm"})
SKYLAKE = HASWELL | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}


@pytest.mark.parametrize(
    ("features", "machine", "expected"),
    [
        (frozenset({"asimd"}), "aarch64", "neon"),
        (N1, "aarch64", "neon-dotprod"),
        (V2, "aarch64", "neon-i8mm"),
        (HASWELL, "x86_64", "avx2"),
        (HASWELL | {"avx_vnni"}, "x86_64", "avxvnni"),
        (SKYLAKE, "x86_64", "avx512"),
        (SKYLAKE | {"avx512_vnni"}, "x86_64", "avx512vnni"),
        (SKYLAKE | {"avx512_vnni", "avx512_bf16", "avx_vnni"}, "x86_64", "avx512bf16"),
        (SKYLAKE | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}, "x86_64", "amx"),
    ],
)
def test_best_target_of_a_cpu(features, machine, expected):
    assert target.runnable(features, machine)[0] == expected


@pytest.mark.parametrize(
    ("features", "machine"), [(frozenset({"sse4_2", "avx"}), "x86_64"), (frozenset(), "aarch64"), (V2, "riscv64")]
)
def test_nothing_runs(features, machine):
    assert target.runnable(features, machine) == []


def test_host_is_of_this_machine():
    host = target.host()
    assert host.arch == platform.machine()
    assert host.name in target.runnable(hwcap.cpu_features(), platform.machine())


def test_host_without_a_target_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(target.platform, "machine", lambda: "riscv64")
    with pytest.raises(RuntimeError, match=r"riscv64.*Linux on AArch64"):
        target.host.__wrapped__()


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"'avx1024' is no target.*neon-i8mm"):
        target.named("avx1024")


@pytest.mark.parametrize("found", target.TARGETS.values(), ids=lambda found: found.name)
def test_targets_are_consistent(found):
    assert found.name in target._REQUIRED[found.arch]
    assert found.lanes(32) * 4 == found.vector_bytes
    assert found.lanes(1) == found.lanes(8) == found.vector_bytes
    register = found.packing.columns * found.packing.k
    assert register % found.vector_bytes == 0
    needs = {"smmla": "i8mm", "sdot": "asimddp", "vpdpbusd": "vnni", "vpmaddubsw": "avx2", "widening": ""}[
        found.int8_dot
    ]
    assert any(needs in feature for feature in target._REQUIRED[found.arch][found.name])
