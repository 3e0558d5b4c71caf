"""Errors caused by user input, and faults of a database."""

from __future__ import annotations


class InputError(Exception):
    """Raised for invalid user input. The message is one line: ``place: found X; expected Y``."""


class NotThere(InputError):
    """Raised when no row has the number that the user asked for."""


class StorageFault(Exception):
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
