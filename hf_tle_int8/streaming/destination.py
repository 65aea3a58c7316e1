"""The folder that a conversion fills: beside its place until it is complete, and resumable."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_tle_int8.errors import ConfigError

_STATE, _LOCK = "conversion.json", "conversion.lock"


def check(source: Path, destination: Path, overwrite: bool) -> None:
    """Raise `ConfigError` where ``destination`` cannot be written, or only at a loss that was not asked for."""
    one, other = source.resolve(), destination.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ConfigError(f"{destination} and {source} are one inside of the other. Name a folder elsewhere.")
    if destination.exists() and not destination.is_dir():
        raise ConfigError(f"{destination} is a file. Name a folder.")
    if not _is_taken(destination):
        return
    if not overwrite:
        raise ConfigError(f"{destination} is not empty. Name another folder, or replace it with --overwrite.")
    if not (destination / "config.json").is_file():
        raise ConfigError(
            f"{destination} is no checkpoint, since it has no config.json: --overwrite would delete what it is. "
            f"Name another folder."
        )


def _is_taken(destination: Path) -> bool:
    return destination.is_dir() and any(destination.iterdir())


class Destination:
    """The folder while it is filled; made by `filling`.

    Attributes:
        folder: where to write.
        finished: the shards that an earlier run has completed.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.folder, self._identity = folder, identity
        self.finished: list[str] = self._read()

    def _read(self) -> list[str]:
        """The shards of an earlier run of the same conversion; of another one, everything is deleted."""
        others = [path for path in self.folder.iterdir() if path.name != _LOCK]
        if not others:
            return []
        file = self.folder / _STATE
        if not file.is_file():
            raise ConfigError(f"{self.folder}, which this conversion would use, has other files. Move them away.")
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            finished: list[str] = state["finished"] if state["identity"] == self._identity else []
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{file} is damaged ({error!r}), which would say how far an earlier run came. Delete {self.folder}."
            ) from error
        for path in others:
            if path.name in finished:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return [name for name in finished if (self.folder / name).is_file()]

    def record(self) -> None:
        """Write down what is converted, and how far."""
        unfinished = self.folder / f"{_STATE}.unfinished"
        unfinished.write_text(json.dumps({"identity": self._identity, "finished": self.finished}), encoding="utf-8")
        os.replace(unfinished, self.folder / _STATE)

    def finish(self, shard: str) -> None:
        """Record a complete shard."""
        self.finished.append(shard)
        self.record()


@contextmanager
def filling(destination: Path, identity: Mapping[str, Any], overwrite: bool) -> Iterator[Destination]:
    """A folder beside ``destination``, which takes its place at the end. Otherwise it stays, if a shard is done.

    Args:
        destination: see `check`.
        identity: what is converted, and how; an earlier run that was interrupted continues only if it is equal.
        overwrite: whether to replace what is there.

    Raises:
        ConfigError: another process converts to this place, or the folder beside it is of somebody else or damaged;
            or ``destination`` is not empty any more.
    """
    partial = destination.with_name(f"{destination.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(partial / _LOCK, timeout=0):
            filled = Destination(partial, identity)
            filled.record()
            try:
                yield filled
                if not overwrite and _is_taken(destination):
                    raise ConfigError(f"{destination} was filled meanwhile. Move that away, and run the same again.")
            except BaseException:
                if not filled.finished:
                    shutil.rmtree(partial)
                raise
            for name in (_STATE, _LOCK):
                (partial / name).unlink(missing_ok=True)
            _take_place(partial, destination)
    except Timeout as error:
        raise ConfigError(
            f"{partial} is being filled by another process. Wait for it, or name another folder."
        ) from error


def _take_place(partial: Path, destination: Path) -> None:
    if not _is_taken(destination):
        os.replace(partial, destination)
        return
    former = destination.with_name(f"{destination.name}.former")
    os.replace(destination, former)
    try:
        os.replace(partial, destination)
    except OSError:
        os.replace(former, destination)
        raise
    shutil.rmtree(former)
