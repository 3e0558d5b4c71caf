"""A folder of an export: it gets its name when it is whole."""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from storage.errors import InputError

Foreign = Callable[[Path], str | None]


@contextmanager
def new_folder(
    out: Path, overwrite: bool, foreign: Foreign, what: str = "export"
) -> Iterator[Path]:
    """A folder to write into, which gets its name when all is written and leaves nothing if not.

    Args:
        out: the folder's name in the end.
        overwrite: replace an earlier export.
        foreign: finds a file in a folder that no export wrote; such a folder is not replaced.
        what: what is written, as errors call it.

    Raises:
        InputError: `out` exists and may not be replaced.
        OSError: it cannot be written.
    """
    place = out.resolve()
    _check(out, overwrite, foreign, what)
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place)
    part = _beside(place, "partial")
    part.mkdir()
    try:
        yield part
        _check(out, overwrite, foreign, what)
        _move(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _beside(place: Path, what: str) -> Path:
    """A hidden name beside a folder that tells which process it belongs to."""
    owner = f"{socket.gethostname()}-{os.getpid()}"
    return place.with_name(f".{place.name}.{what}-{owner}-{token_hex(4)}")


def _sweep(place: Path) -> None:
    """Remove what exports of the same name left that were killed on this machine."""
    owner = re.escape(f".{place.name}.partial-{socket.gethostname()}-")
    for path in place.parent.glob(f".{glob.escape(place.name)}.partial-*"):
        found = re.fullmatch(owner + r"(\d+)-[0-9a-f]{8}", path.name)
        if found and not _alive(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _check(out: Path, overwrite: bool, foreign: Foreign, what: str) -> None:
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"out: {path} is not a folder; expected an empty or a new folder")
    if not out.exists():
        return
    if any(out.iterdir()) and not overwrite:
        raise InputError(f"out: {out} exists; expected an empty or a new folder, or --overwrite")
    found = foreign(out)
    if found is not None:
        raise InputError(
            f"out: {out} holds {found!r}, which no {what} wrote; expected an earlier {what}"
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
