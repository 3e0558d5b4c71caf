"""The folder of a training: what is there while it goes on, and how the model appears in it.

OUT/checkpoints/ has checkpoints and `started.json`, with the settings and the data's digest. A
checkpoint counts once `complete` is in it, which is written after all its other files are on disk.
The model is written beside OUT, to .OUT.partial, which becomes .OUT.finished and then takes the
place of OUT; whatever a killed process left of this is put right by the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sandbox.text import short
from storage.errors import InputError

TRAINING = "training.json"
"""The record of a finished training."""

CHECKPOINTS = "checkpoints"
_STARTED = "started.json"
_COMPLETE = "complete"
_PREFIX = "checkpoint-"


class Place:
    """The folder of a training.

    Args:
        out: the folder, which need not exist.
    """

    def __init__(self, out: Path) -> None:
        self.out = out.expanduser().resolve()
        self.checkpoints = self.out / CHECKPOINTS
        self.partial, self._finished, self._replaced = (
            self.out.with_name(f".{self.out.name}.{what}")
            for what in ("partial", "finished", "replaced")
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out.

        Raises:
            InputError: another process trains into the folder, or it cannot be written.
        """
        path = self.out.with_name(f".{self.out.name}.lock")
        if not self.out.name or (self.out.exists() and not self.out.is_dir()):
            raise InputError(f"out: found {self.out}; expected an empty or a new folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _lock(path)
        except BlockingIOError:
            raise InputError(f"out: another process trains into {self.out}; wait for it") from None
        except OSError as error:
            raise InputError(f"out: {self.out}: cannot be written: {error.strerror}") from None
        try:
            self._recover()
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _recover(self) -> None:
        """Finish or undo what a killed process was doing to the folder."""
        shutil.rmtree(self.partial, ignore_errors=True)
        if self._finished.exists():
            self._swap()
        shutil.rmtree(self._replaced, ignore_errors=True)

    def finished(self) -> dict[str, Any] | None:
        """The record of the training that is finished here; None if none is.

        Raises:
            InputError: it is damaged.
        """
        path = self.out / TRAINING
        return _read(path) if path.is_file() else None

    def check(self, record: Mapping[str, Any]) -> None:
        """Check that a training can go on, or start, in the folder.

        Raises:
            InputError: it has other files, or a training of other settings or data.
        """
        if self.out.exists():
            other = next((path for path in self.out.iterdir() if path != self.checkpoints), None)
            if other is not None:
                raise InputError(
                    f"out: {self.out} contains {other.name!r}, which no training wrote; expected "
                    "an empty or a new folder"
                )
        started = self.checkpoints / _STARTED
        if started.is_file() and self._complete():
            check_same(_read(started), record, self.out)

    def start(self, record: Mapping[str, Any]) -> Path | None:
        """Prepare the folder; returns the checkpoint to go on from, if there is one.

        All others are deleted: they are older, or not complete.
        """
        started = self.checkpoints / _STARTED
        if not (started.is_file() and self._complete()):  # nothing that could be lost
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            self.checkpoints.mkdir(parents=True)
            write_json(started, record)
        return self._latest()

    def _all(self) -> dict[int, Path]:
        """The checkpoints by step, complete or not."""
        return {
            int(path.name.removeprefix(_PREFIX)): path
            for path in self.checkpoints.glob(f"{_PREFIX}*")
            if path.name.removeprefix(_PREFIX).isdecimal()
        }

    def _complete(self) -> list[int]:
        """The steps of the checkpoints that are complete."""
        return [step for step, path in self._all().items() if (path / _COMPLETE).is_file()]

    def _latest(self) -> Path | None:
        found, latest = self._all(), max(self._complete(), default=None)
        for step, path in found.items():
            if step != latest:
                shutil.rmtree(path)
        return None if latest is None else found[latest]

    def completed(self, step: int) -> None:
        """Mark the checkpoint of a step as complete, once its files are on disk."""
        folder = self.checkpoints / f"{_PREFIX}{step}"
        for path in (*folder.rglob("*"), folder):
            _flush(path)
        write_json(folder / _COMPLETE, {"step": step})

    def publish(self) -> None:
        """Put the model in .OUT.partial in the place of the checkpoints."""
        for path in (*self.partial.rglob("*"), self.partial):
            _flush(path)
        self.partial.rename(self._finished)
        self._swap()
        shutil.rmtree(self._replaced, ignore_errors=True)

    def _swap(self) -> None:
        if self.out.exists():
            shutil.rmtree(self._replaced, ignore_errors=True)
            self.out.rename(self._replaced)
        self._finished.rename(self.out)


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Check that a training goes on with the settings and the data that it began with.

    Raises:
        InputError: one of them differs.
    """
    old, new = (
        {**record["settings"], **record["settings"]["arguments"], "digest of the data": digest}
        for record, digest in ((before, _digest(before)), (now, _digest(now)))
    )
    for key in ("digest of the data", *old, *new):
        if key != "arguments" and old.get(key) != new.get(key):
            raise InputError(
                f"out: {out} holds a training with {key} {short(old.get(key), 60)}; found "
                f"{short(new.get(key), 60)}; expected the same, or another folder"
            )


def _digest(record: Mapping[str, Any]) -> Any:
    return record["data"]["digest"]


def write_json(path: Path, value: Any) -> None:
    """Write plain values to a file; it is there with all of its content or not at all."""
    part = path.with_name(f".{path.name}.partial")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    _flush(part)
    part.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {"settings", "data"} <= set(found) and "arguments" in found["settings"]:
            return dict(found)
    except (OSError, ValueError, TypeError):
        pass
    raise InputError(f"{path}: found no record of a training; expected the file that `train` wrote")


def _flush(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Open and lock a file that whoever had it locked may have deleted meanwhile."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
