"""Conversions that are interrupted, repeated, or aimed at a folder that is taken."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
from filelock import FileLock
from support import save_tiny_llama

from hf_tle_int8 import TLEInt8Config
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.streaming.conversion import convert_checkpoint
from hf_tle_int8.streaming.options import Options
from hf_tle_int8.streaming.shard_file import ShardFile

OPTIONS = Options(TLEInt8Config(), max_shard_size="15KB")
OVERWRITE = dataclasses.replace(OPTIONS, overwrite=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("float"), torch.bfloat16)


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected") / "int8"
    convert_checkpoint(source, folder, OPTIONS)
    return contents(folder)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def failing(monkeypatch):
    """Make the conversion fail at its fourth tensor that starts a file, with an exception of choice."""

    def fail_with(error):
        write, files = ShardFile.write, []

        def limited(self, name, tensor):
            if self not in files:
                files.append(self)
            if len(files) > 3:
                raise error
            write(self, name, tensor)

        monkeypatch.setattr(ShardFile, "write", limited)

    yield fail_with
    monkeypatch.undo()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["Ctrl-C", "full"])
def test_an_interrupted_run_continues(source, expected, tmp_path, failing, monkeypatch, error):
    before = contents(source)
    failing(error)
    with pytest.raises(type(error)):
        convert_checkpoint(source, tmp_path / "int8", OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.partial"]
    partial = contents(tmp_path / "int8.partial")
    assert sum(name.endswith(".safetensors") for name in partial) == 3
    assert not any(name.endswith(".unfinished") for name in partial)
    # What a killed process leaves.
    (tmp_path / "int8.partial" / "model-00004-of-00005.safetensors.unfinished").write_text("half")
    (tmp_path / "int8.partial" / "tmp").mkdir()
    monkeypatch.undo()
    outcome = convert_checkpoint(source, tmp_path / "int8", OPTIONS)
    assert outcome.resumed == 3
    assert contents(tmp_path / "int8") == expected
    assert contents(source) == before
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


@pytest.mark.parametrize("change", ["options", "source"])
def test_another_conversion_starts_anew(source, tmp_path, failing, monkeypatch, change):
    copy, options = shutil.copytree(source, tmp_path / "copy"), OPTIONS
    failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(copy, tmp_path / "int8", OPTIONS)
    monkeypatch.undo()
    if change == "options":
        options = Options(TLEInt8Config(quantize_lm_head=True), max_shard_size="15KB")
    else:
        os.utime(copy / "model.safetensors", (1, 1))
    assert convert_checkpoint(copy, tmp_path / "int8", options).resumed == 0
    convert_checkpoint(source, tmp_path / "whole", options)
    assert contents(tmp_path / "int8") == contents(tmp_path / "whole")


def test_a_folder_that_is_taken(source, expected, tmp_path):
    taken = tmp_path / "int8"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty. Name another folder, or replace it with --overwrite"):
        convert_checkpoint(source, taken, OPTIONS)
    with pytest.raises(ConfigError, match="is no checkpoint, since it has no config.json"):
        convert_checkpoint(source, taken, OVERWRITE)
    assert contents(taken) == {"thesis.txt": b"years of work"}
    (taken / "config.json").write_text("{}")
    convert_checkpoint(source, taken, OVERWRITE)
    assert contents(taken) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


def test_a_folder_that_is_taken_meanwhile(source, expected, tmp_path, monkeypatch):
    def fill(*arguments):
        (tmp_path / "int8").mkdir()
        (tmp_path / "int8" / "config.json").write_text("of somebody else")

    with monkeypatch.context() as patched:
        patched.setattr("hf_tle_int8.streaming.conversion.copy_small_files", fill)
        with pytest.raises(ConfigError, match="was filled meanwhile"):
            convert_checkpoint(source, tmp_path / "int8", OPTIONS)
    assert contents(tmp_path / "int8") == {"config.json": b"of somebody else"}
    shutil.rmtree(tmp_path / "int8")
    assert convert_checkpoint(source, tmp_path / "int8", OPTIONS).resumed == 5
    assert contents(tmp_path / "int8") == expected


def test_places_that_cannot_be(source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "float")
    for place in (copy, copy / "int8", tmp_path):
        with pytest.raises(ConfigError, match="one inside of the other"):
            convert_checkpoint(copy, place, OVERWRITE)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        convert_checkpoint(copy, tmp_path / "file", OPTIONS)
    assert contents(copy) == contents(source)


def test_a_partial_folder_of_somebody_else(source, tmp_path):
    partial = tmp_path / "int8.partial"
    partial.mkdir()
    (partial / "mine").write_text("")
    with pytest.raises(ConfigError, match="has other files. Move them away"):
        convert_checkpoint(source, tmp_path / "int8", OPTIONS)
    assert (partial / "mine").exists()


def test_two_conversions_to_one_place(source, tmp_path):
    partial = tmp_path / "int8.partial"
    partial.mkdir()
    with FileLock(partial / "conversion.lock"), pytest.raises(ConfigError, match="filled by another process"):
        convert_checkpoint(source, tmp_path / "int8", OPTIONS)


def test_too_little_space(source, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"needs 0\.0 GB, and the disk of .* has 0\.0 GB free"):
        convert_checkpoint(source, tmp_path / "int8", OPTIONS)
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_the_state_names_its_source(source, tmp_path, failing):
    failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(source, tmp_path / "int8", OPTIONS)
    state = json.loads((tmp_path / "int8.partial" / "conversion.json").read_text())
    assert state["identity"]["source"] == str(source)
    assert state["identity"]["files"].keys() == {"model.safetensors", "config.json"}
