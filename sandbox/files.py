"""Atomic creation of files and folders.

Both are written under a hidden temporary name and renamed when they are complete.
"""

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


@contextmanager
def new_file(out: Path, overwrite: bool) -> Iterator[Path]:
    """Write a file atomically: it is renamed to its final name on success.

    Args:
        out: the final path; missing parent folders are created.
        overwrite: replace an existing file.

    Yields:
        The temporary path to write to.

    Raises:
        InputError: `out` exists and may not be replaced.
        OSError: it cannot be written.
    """
    check_new_file(out, overwrite)
    target = out.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.partial-{token_hex(4)}")
    try:
        yield part
        check_new_file(out, overwrite)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def check_new_file(out: Path, overwrite: bool) -> None:
    """Check that a file can be created at a path, or may be replaced.

    Raises:
        InputError: it is a folder or a device, or exists and may not be replaced.
    """
    if out.is_dir():
        raise InputError(f"out: {out} is a folder; expected a file")
    if out.exists() and not out.is_file():
        raise InputError(f"out: {out} is a device or a pipe; expected a file")
    if out.exists() and not overwrite:
        raise InputError(f"out: {out} exists; expected a new file, or --overwrite")
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"out: {above} is not a writable folder; expected one")


FindUnknownFile = Callable[[Path], str | None]
"""Returns a file in a folder that this program did not write; None if there is none."""


@contextmanager
def new_folder(
    out: Path, overwrite: bool, find_unknown_file: FindUnknownFile, what: str = "export"
) -> Iterator[Path]:
    """Write a folder atomically: it is renamed to its final name on success.

    Args:
        out: the final path.
        overwrite: replace an earlier folder of this kind.
        find_unknown_file: a folder in which it returns a file is never replaced.
        what: the noun that error messages use.

    Yields:
        The temporary folder to write into.

    Raises:
        InputError: `out` exists and may not be replaced.
        OSError: it cannot be written.
    """
    place = out.resolve()
    _check(out, overwrite, find_unknown_file, what)
    place.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(place)
    part = _temporary_sibling(place, "partial")
    part.mkdir()
    try:
        yield part
        _check(out, overwrite, find_unknown_file, what)
        _move(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _temporary_sibling(place: Path, what: str) -> Path:
    """Return a hidden sibling path whose name contains the host and the process id."""
    owner = f"{socket.gethostname()}-{os.getpid()}"
    return place.with_name(f".{place.name}.{what}-{owner}-{token_hex(4)}")


def _delete_leftovers(place: Path) -> None:
    """Delete partial folders of the same name left by killed processes of this machine."""
    owner = re.escape(f".{place.name}.partial-{socket.gethostname()}-")
    for path in place.parent.glob(f".{glob.escape(place.name)}.partial-*"):
        match = re.fullmatch(owner + r"(\d+)-[0-9a-f]{8}", path.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _check(out: Path, overwrite: bool, find_unknown_file: FindUnknownFile, what: str) -> None:
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"out: {path} is not a folder; expected an empty or a new folder")
    if not out.exists():
        return
    if any(out.iterdir()) and not overwrite:
        raise InputError(f"out: {out} exists; expected an empty or a new folder, or --overwrite")
    unknown = find_unknown_file(out)
    if unknown is not None:
        raise InputError(
            f"out: {out} contains {unknown!r}, which no {what} wrote; expected an earlier {what}"
        )


def _move(part: Path, place: Path) -> None:
    """Rename the folder to its final name; an existing one is deleted only afterwards."""
    if not place.exists():
        part.rename(place)
        return
    old = _temporary_sibling(place, "replaced")
    place.rename(old)
    try:
        part.rename(place)
    except BaseException:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)
