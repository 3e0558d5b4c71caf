"""What all formats share: where rows come from, a folder that is whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, TextIO

from sqlalchemy import Connection

from storage.errors import InputError
from storage.exchanges import Exchange, Order, exchanges
from storage.reader import Reader

SCRIPTED = "scripted"
"""The model name of the backend that composes texts by rules, without a language model."""


class Source(NamedTuple):
    """The run that is exported, as it was at one moment.

    Attributes:
        reader: the run.
        connection: where all passes over the run read from.
    """

    reader: Reader
    connection: Connection

    def exchanges(self, by: Order) -> Iterator[Exchange]:
        """A pass over all exchanges."""
        return exchanges(self.reader, by=by, connection=self.connection)


class Written(NamedTuple):
    """What a format wrote.

    Attributes:
        files: the rows in each file.
        found: the rows of each kind that the run holds.
        written: the rows of each kind that were written.
        removed: the candidates that each rule removed.
        notes: what is out of the ordinary, and why nothing is left where nothing is.
    """

    files: Mapping[str, int]
    found: Mapping[str, int]
    written: Mapping[str, int]
    removed: Mapping[str, int]
    notes: tuple[str, ...] = ()


def create_text(path: Path) -> TextIO:
    """Open a new file for lines of `json_line`: UTF-8, whatever a text holds."""
    return path.open("x", encoding="utf-8", errors="backslashreplace", newline="\n")


def json_line(value: Any) -> str:
    """A value as JSON on one line, also for readers that take other characters for line ends."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for separator in "\u2028\u2029\x85":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text


@contextmanager
def new_folder(out: Path, overwrite: bool, ours: Collection[str]) -> Iterator[Path]:
    """A folder to write into, which gets its name when all is written and leaves nothing if not.

    Args:
        out: the folder's name in the end.
        overwrite: replace an earlier export.
        ours: the names of the files that an export may hold; a folder with others is not replaced.

    Raises:
        InputError: `out` exists and may not be replaced.
        OSError: it cannot be written.
    """
    place = out.resolve()
    _check(out, overwrite, ours)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(place, "partial")
    part.mkdir()
    try:
        yield part
        _check(out, overwrite, ours)
        _move(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _beside(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.{what}-{token_hex(4)}")


def _check(out: Path, overwrite: bool, ours: Collection[str]) -> None:
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"out: {path} is not a folder; expected an empty or a new folder")
    if not out.exists():
        return
    held = sorted(path.name for path in out.iterdir())
    foreign = [name for name in held if name not in ours]
    if held and not overwrite:
        raise InputError(f"out: {out} exists; expected an empty or a new folder, or --overwrite")
    if foreign:
        raise InputError(
            f"out: {out} holds {foreign[0]!r}, which no export wrote; expected an earlier export"
        )


def _move(part: Path, place: Path) -> None:
    """Give the folder its name; what has that name now is kept until this has worked."""
    if not place.exists():
        part.rename(place)
        return
    old = _beside(place, "replaced")
    place.rename(old)
    try:
        part.rename(place)
    except BaseException:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)
