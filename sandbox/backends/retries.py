"""Clients of HTTP servers: the API key, and when to retry a request."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sandbox.backends.base import BackendDown

CONNECT_SECONDS = 10.0
"""Timeout of a connection attempt, in seconds."""

LONGEST_WAIT = 600.0
"""Upper limit of a server's Retry-After, in seconds."""

LONGEST_PAUSE = 60.0
"""The longest pause between two attempts, in seconds, if the server asks for none."""

_RETRIED = frozenset((408, 409, 425, 429))


def can_be_retried(status: int) -> bool:
    """Whether the same request may succeed later, by the HTTP status of the response."""
    return status in _RETRIED or status >= 500


def pause(attempt: int, jitter: random.Random, first: float = 2.0) -> float:
    """Return the seconds to wait before a retry: exponential backoff with jitter.

    Args:
        attempt: number of attempts so far, from 1.
        jitter: draws the pause between half of its length and all of it.
        first: the pause after the first attempt, in seconds; it doubles with each attempt.
    """
    return min(LONGEST_PAUSE, first * 2.0 ** (attempt - 1)) * jitter.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Key:
    """An API key, and the environment variable that it is read from."""

    variable: str
    value: str

    @classmethod
    def read(cls, variable: str) -> Key:
        """Read the key from the environment; it is empty if the variable is not set.

        Raises:
            BackendDown: the key has characters that no header can contain.
        """
        value = os.environ.get(variable, "").strip()
        if not (value.isascii() and value.isprintable()):
            raise BackendDown(
                f"openai: {variable}: found characters that no key can have; expected an API key"
            )
        return cls(variable, value)

    def __repr__(self) -> str:
        return f"Key({self.variable!r})"

    def headers(self) -> dict[str, str]:
        """Return the headers of a request."""
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}

    def hide(self, text: str) -> str:
        """Return a text without the key, on one line of at most 300 characters."""
        if self.value:
            text = text.replace(self.value, "***")
        text = " ".join(text.split())
        return text if len(text) <= 300 else f"{text[:297]}..."


def retry_seconds(header: str | None, now: datetime | None = None) -> float:
    """Parse a header Retry-After, which has seconds or a date.

    Args:
        header: its value; None if there is none.
        now: the current time, by default that of the system.

    Returns:
        Seconds to wait, at most `LONGEST_WAIT`; 0 if the header is invalid.
    """
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header, now or datetime.now(UTC))
    return min(LONGEST_WAIT, seconds) if 0 < seconds < math.inf else 0.0


def _seconds_until(date: str, now: datetime) -> float:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    return (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()
