"""Files of a report: a file gets its name when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from sandbox.viewer.report.drawings import TYPES
from storage.errors import InputError


@contextmanager
def new_file(out: Path, overwrite: bool) -> Iterator[Path]:
    """A file to write, which gets its name when all is written and leaves nothing if not.

    Args:
        out: its name in the end; its folder is made.
        overwrite: replace a file of that name.

    Raises:
        InputError: `out` exists and may not be replaced.
        OSError: it cannot be written.
    """
    check(out, overwrite)
    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.partial-{token_hex(4)}")
    try:
        yield part
        check(out, overwrite)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def check(out: Path, overwrite: bool) -> None:
    """Refuse what cannot become a file, or may not be replaced.

    Raises:
        InputError: it is a folder, or exists and may not be replaced.
    """
    if out.is_dir():
        raise InputError(f"out: {out} is a folder; expected a file")
    if out.exists() and not overwrite:
        raise InputError(f"out: {out} exists; expected a new file, or --overwrite")
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"out: {above} is not a folder that can be written to")


def foreign(folder: Path) -> str | None:
    """A file in a folder of figures that no report wrote: a report writes all types of a figure.

    Raises:
        OSError: the folder cannot be read.
    """
    names = {path.name for path in folder.iterdir()}
    ours = {f"{Path(name).stem}.{kind}" for name in names for kind in TYPES if _whole(name, names)}
    return min(names - ours, default=None)


def _whole(name: str, names: set[str]) -> bool:
    return all(f"{Path(name).stem}.{kind}" in names for kind in TYPES)
