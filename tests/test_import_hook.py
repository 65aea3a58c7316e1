"""On small modules, each written for the test; what happens in transformers is in test_registration.py."""

import importlib
import importlib.util
import sys
import threading

import pytest

from hf_tle_int8.import_hook import after_import


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module of the package ``watched``, none of which is imported yet."""
    folder = tmp_path / "watched"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))

    def write(name, text):
        (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    write("__init__", "")
    write("later", "")
    write("registry", "entries = ['own']")
    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "watched"]:
        del sys.modules[name]


def add(module):
    module.entries.append("ours")


def test_at_once(write):
    registry = importlib.import_module("watched.registry")
    after_import("watched.registry", add)
    assert registry.entries == ["own", "ours"]


def test_when_it_is_imported(write):
    after_import("watched.registry", add)
    assert "watched.registry" not in sys.modules
    write("user", "from watched.registry import entries\nseen = list(entries)")
    assert importlib.import_module("watched.user").seen == ["own", "ours"]


def test_once(write):
    after_import("watched.registry", add)
    registry = importlib.import_module("watched.registry")
    importlib.import_module("watched.later")
    assert registry.entries == ["own", "ours"]


def test_two_actions(write):
    after_import("watched.registry", add)
    after_import("watched.registry", add)
    assert importlib.import_module("watched.registry").entries == ["own", "ours", "ours"]


def test_the_module_keeps_its_loader(write):
    after_import("watched.registry", add)
    registry = importlib.import_module("watched.registry")
    assert registry.__loader__ is registry.__spec__.loader
    assert registry.__loader__.get_source("watched.registry") == "entries = ['own']"


def test_looking_is_not_importing(write):
    calls = []
    after_import("watched.registry", calls.append)
    assert importlib.util.find_spec("watched.registry") is not None
    assert calls == []
    assert importlib.util.find_spec("watched.absent") is None


def test_in_the_middle_of_the_import(write):
    write("early", "from hf_tle_int8.import_hook import after_import\nimport test_import_hook as t\n"
                   "after_import('watched.registry', t.add)")  # fmt: skip
    write("registry", "import watched.early\nentries = ['own']")
    registry = importlib.import_module("watched.registry")
    assert registry.entries == ["own"]
    importlib.import_module("watched.later")
    assert registry.entries == ["own", "ours"]


def test_waits_for_another_thread(write):
    write("registry", "import threading\nstarted = threading.Event.started\nstarted.set()\n"
                      "threading.Event.proceed.wait(10)\nentries = ['own']")  # fmt: skip
    started, proceed = threading.Event(), threading.Event()
    threading.Event.started, threading.Event.proceed = started, proceed
    try:
        importer = threading.Thread(target=importlib.import_module, args=["watched.registry"])
        importer.start()
        assert started.wait(10)
        hooked = threading.Thread(target=after_import, args=["watched.registry", add])
        hooked.start()
        hooked.join(0.1)
        assert hooked.is_alive()
        proceed.set()
        importer.join(10)
        hooked.join(10)
    finally:
        del threading.Event.started, threading.Event.proceed
    assert sys.modules["watched.registry"].entries == ["own", "ours"]


class TestErrors:
    """An action that fails makes an import fail, and again until it succeeds."""

    @pytest.fixture
    def fail_once(self):
        failures = [ImportError("an old release")]

        def action(module):
            if failures:
                raise failures.pop()
            add(module)

        return action

    def test_at_once(self, write, fail_once):
        registry = importlib.import_module("watched.registry")
        with pytest.raises(ImportError, match="an old release"):
            after_import("watched.registry", fail_once)
        importlib.import_module("watched.later")
        assert registry.entries == ["own"]

    def test_when_it_is_imported(self, write, fail_once):
        after_import("watched.registry", fail_once)
        importlib.import_module("watched.later")
        with pytest.raises(ImportError, match="an old release"):
            importlib.import_module("watched.registry")
        assert "watched.registry" not in sys.modules
        assert importlib.import_module("watched.registry").entries == ["own", "ours"]

    def test_of_the_module_itself(self, write):
        write("registry", "1 / 0")
        after_import("watched.registry", add)
        with pytest.raises(ZeroDivisionError):
            importlib.import_module("watched.registry")
