import time
from unittest import mock

import pytest

from hf_tle_int8.bench import timing
from hf_tle_int8.bench.timing import Flush, interleaved


def test_each_task_is_timed_once_a_round_after_what_comes_before():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = interleaved(tasks, 5, lambda name: calls.append(name.upper()))
    assert list(times) == ["a", "b", "c"]
    assert all(0 < found.minimum <= found.median for found in times.values())
    timed = calls[len(tasks) :]
    assert timed[::2] == [name.upper() for name in timed[1::2]]
    rounds = [timed[start + 1 : start + 6 : 2] for start in range(0, 30, 6)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def test_without_anything_before_a_task_warms_its_own_caches():
    calls = []
    interleaved({"slow": lambda: calls.append(time.sleep(2e-3))}, 2)
    assert len(calls) == 1 + 2 * 2


def test_a_short_task_is_called_for_as_long_before_it_is_timed_as_while_it_is():
    clock = [0.0]
    counted = []

    def task():
        counted.append(clock[0])
        clock[0] += 0.6e-3

    with mock.patch.object(timing.time, "perf_counter", side_effect=lambda: clock[0]):
        times = interleaved({"short": task}, 3)
    assert len(counted) == 1 + 3 * (4 + 4)
    assert times["short"].minimum == pytest.approx(0.6e-3) == times["short"].median


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="0 rounds"):
        interleaved({}, 0, Flush())
