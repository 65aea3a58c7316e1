"""Which schedule suits which CPUs, from imitations of what Linux says of them."""

import pytest
from grid_kernels import entry_of, record_kernel

from hf_tle_int8.backend import schedule
from hf_tle_int8.backend.ir import PTR
from hf_tle_int8.backend.schedule import DYNAMIC, EVEN, suited_to


@pytest.fixture
def fresh(monkeypatch):
    """`schedule.current` is asked anew, here and by whoever comes next."""
    monkeypatch.delenv(schedule.VARIABLE, raising=False)
    schedule.current.cache_clear()
    yield monkeypatch
    schedule.current.cache_clear()


def with_capacities(root, capacities):
    for cpu, capacity in enumerate(capacities):
        folder = root / f"devices/system/cpu/cpu{cpu}"
        folder.mkdir(parents=True)
        if capacity is not None:
            (folder / "cpu_capacity").write_text(f"{capacity}\n")
    return root


def with_kinds(root, **lists):
    for name, cpus in lists.items():
        folder = root / "devices" / name
        folder.mkdir(parents=True)
        (folder / "cpus").write_text(f"{cpus}\n")
    return root


class TestCapacities:
    def test_alike(self, tmp_path):
        found = suited_to(range(4), with_capacities(tmp_path, [1024] * 4))
        assert (found.name, found.reason) == (EVEN, "usable CPUs are alike: capacity 1024")

    def test_unlike(self, tmp_path):
        found = suited_to(range(12), with_capacities(tmp_path, [1024] * 4 + [905] * 4 + [279] * 4))
        assert found.name == DYNAMIC
        assert found.reason == ("usable CPUs are unlike: 4 of capacity 1024, 4 of capacity 279, 4 of capacity 905")

    def test_only_usable_ones_count(self, tmp_path):
        root = with_capacities(tmp_path, [279, 279, 1024, 1024])
        assert suited_to({0, 1}, root).name == EVEN
        assert suited_to({2, 3}, root).name == EVEN
        assert suited_to({1, 2}, root).name == DYNAMIC

    @pytest.mark.parametrize("create", [True, False])
    def test_unknown(self, tmp_path, create):
        root = with_capacities(tmp_path, [None, None]) if create else tmp_path / "nowhere"
        found = suited_to({0, 1}, root)
        assert (found.name, found.reason) == (EVEN, "usable CPUs are alike: unknown capacity")


class TestHybrid:
    def test_two_kinds(self, tmp_path):
        found = suited_to(range(10), with_kinds(tmp_path, cpu_core="0-3,8", cpu_atom="4-7,9"))
        assert found.name == DYNAMIC
        assert found.reason == (
            "usable CPUs are unlike: 5 of cpu_atom with unknown capacity, 5 of cpu_core with unknown capacity"
        )

    def test_kinds_of_one_capacity(self, tmp_path):
        root = with_kinds(with_capacities(tmp_path, [1024] * 3), cpu_core="0-1", cpu_atom="2")
        found = suited_to(range(3), root)
        assert found.name == DYNAMIC
        assert found.reason.endswith("1 of cpu_atom with capacity 1024, 2 of cpu_core with capacity 1024")

    def test_three_kinds(self, tmp_path):
        root = with_kinds(tmp_path, cpu_core="0-1", cpu_atom="2-3", cpu_lowpower="4")
        assert suited_to(range(5), root).reason.count(" of ") == 3
        assert suited_to({3, 4}, root).name == DYNAMIC

    @pytest.mark.parametrize("cpus", [{0, 3}, {4, 5}])
    def test_one_kind_is_usable(self, tmp_path, cpus):
        assert suited_to(cpus, with_kinds(tmp_path, cpu_core="0-3", cpu_atom="4-7")).name == EVEN

    def test_an_empty_list(self, tmp_path):
        found = suited_to({0, 1}, with_kinds(tmp_path, cpu_core="0-1", cpu_atom=""))
        assert (found.name, found.reason) == (EVEN, "usable CPUs are alike: cpu_core with unknown capacity")


class TestCurrent:
    @pytest.mark.parametrize("name", [EVEN, DYNAMIC])
    def test_the_variable_chooses(self, fresh, name):
        fresh.setenv(schedule.VARIABLE, name)
        assert schedule.current() == schedule.Schedule(name, "HF_TLE_INT8_SCHEDULE is set")

    @pytest.mark.parametrize("name", ["guided", "Even", " ", "1"])
    def test_other_values_are_refused(self, fresh, name):
        fresh.setenv(schedule.VARIABLE, name)
        with pytest.raises(ValueError, match="INT8_SCHEDULE=.* no such schedule. Choose even or dynamic, or unset"):
            schedule.current()

    def test_an_empty_variable_is_none(self, fresh):
        fresh.setenv(schedule.VARIABLE, "")
        assert schedule.current().reason.startswith("usable CPUs are")

    def test_it_is_decided_once(self, fresh):
        before = schedule.current()
        fresh.setenv(schedule.VARIABLE, "guided")
        assert schedule.current() is before

    @pytest.mark.parametrize("name", [EVEN, DYNAMIC])
    def test_kernels_follow(self, fresh, name):
        fresh.setenv(schedule.VARIABLE, name)
        found = entry_of(record_kernel(1 << 20), "record", {"out": PTR}, None)
        assert found.call.__self__ is (None if name == EVEN else True)
