"""Errors caused by user input, and faults of a database."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from storage.secrets import hide_secrets


class _OneLine(Exception):
    """An error whose message is one line without secrets, whatever it repeats of its cause."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(" ".join(message[:_LONGEST].splitlines())))


_LONGEST = 20_000  # characters


class InputError(_OneLine):
    """Raised for invalid user input. The message is one line: ``place: found X; expected Y``."""


class NotThere(InputError):
    """Raised when no row has the number that the user asked for."""


class StorageFault(_OneLine):
    """Raised when a database fails that was usable before. The message is one line."""


class Damaged(StorageFault):
    """Raised when stored rows cannot be read or contradict each other."""


class Unreachable(StorageFault):
    """Raised when a database server cannot be reached, or has ended the connection."""


class Gone(StorageFault):
    """Raised when a database file was deleted or replaced while it was in use."""


class Taken(StorageFault):
    """Raised when another process writes a run that this process was writing."""


class IncompleteWarning(UserWarning):
    """Issued when a database can be read, but not all of it."""


DECODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)
"""What code raises that decodes damaged rows; no sound row causes one of them."""


def damage(error: BaseException, place: str) -> Damaged:
    """A fault for one of `DECODING_ERRORS`: one line, with the place in the code for a report."""
    words = " ".join(str(error).split())[:200]
    frames = extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return Damaged(f"{place}: the database is damaged: {type(error).__name__}: {words}{where}")


@contextmanager
def damage_reported(place: str) -> Iterator[None]:
    """Raise `Damaged` for what fails because stored rows cannot be decoded."""
    try:
        yield
    except DECODING_ERRORS as error:
        raise damage(error, place) from error
