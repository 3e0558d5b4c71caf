"""Errors caused by user input."""

from __future__ import annotations


class InputError(Exception):
    """Raised for invalid user input. The message is one line: ``place: found X; expected Y``."""


class NotThere(InputError):
    """Raised when no row has the number that the user asked for."""
