import math

from hf_tle_int8.bench import tables
from hf_tle_int8.bench.linear import Outcome, Result
from hf_tle_int8.bench.timing import Times

MACHINE = tables.Machine("avx2", 1, 1e9, 1e10, 0.5)


def result(peer: str, n: int, seconds: float) -> Result:
    return Result(peer, n, 100, 2, "hot", Times(seconds, 2 * seconds), n * 100, 0.01)


CASES = (("ours", 10, 1e-6), ("base", 10, 4e-6), ("ours", 20, 1e-6), ("base", 20, 1e-6))
OUTCOME = Outcome([result(*case) for case in CASES])


def test_ratios_are_to_the_base_of_the_same_case():
    found = tables.ratios(OUTCOME.results, "base")
    assert [found[case] for case in found if case[0] == "ours"] == [4.0, 1.0]
    assert tables.mean_ratio(found, "ours", 2, "hot") == 2.0
    assert math.isnan(tables.mean_ratio(found, "ours", 3, "hot"))


def test_records_are_shares_of_the_machine():
    record = tables.records(OUTCOME, MACHINE, "base")[0]
    assert record["bandwidth_share"] == 1000 / 1e-6 / 1e9
    assert record["int8_peak_share"] == 2 * 2 * 1000 / 1e-6 / 1e10
    assert (record["min_us"], record["median_us"], record["ratio_to_base"]) == (1.0, 2.0, 4.0)


def test_without_the_base_there_is_no_ratio():
    record = tables.records(Outcome([result("ours", 10, 1e-6)]), MACHINE, "base")[0]
    assert record["ratio_to_base"] is None


def test_what_limits_others_is_said(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert "ONEDNN" not in MACHINE.facts()["versions"]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert MACHINE.facts()["versions"].endswith(", ONEDNN_MAX_CPU_ISA AVX512_CORE_BF16")
