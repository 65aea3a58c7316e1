import pytest

from hf_tle_int8.bench.timing import Flush, interleaved


def test_each_task_is_timed_once_a_round_after_what_comes_before():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = interleaved(tasks, 5, lambda: calls.append("-"))
    assert list(times) == ["a", "b", "c"]
    assert all(0 < found.minimum <= found.median for found in times.values())
    timed = calls[len(tasks) :]
    assert timed[::2] == ["-"] * 15
    rounds = [timed[start + 1 : start + 6 : 2] for start in range(0, 30, 6)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def test_without_anything_before_the_task_warms_its_own_caches():
    calls = []
    interleaved({"a": lambda: calls.append("a")}, 2)
    assert len(calls) == 1 + 2 * 2


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="0 rounds"):
        interleaved({}, 0, Flush())
