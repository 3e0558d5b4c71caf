"""The one error that is the user's to mend."""

from __future__ import annotations


class InputError(Exception):
    """Bad input. The message is one clear line: the place, what was found, what was expected."""


class NotThere(InputError):
    """What is asked for by its number does not exist."""
