"""What every client of a server needs: its key, and when to send a request again."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sandbox.backends.base import BackendDown

CONNECT_SECONDS = 10.0
"""How long an address may take to accept a connection."""

LONGEST_WAIT = 600.0
"""The longest that a server's Retry-After is heeded for, in seconds."""

LONGEST_PAUSE = 60.0
"""The longest pause between two tries, in seconds, where the server asks for none."""

_RETRIED = frozenset((408, 409, 425, 429))


def can_be_retried(status: int) -> bool:
    """Tell whether the same request may succeed later, by the HTTP status of the answer."""
    return status in _RETRIED or status >= 500


def pause(attempt: int, jitter: random.Random, first: float = 2.0) -> float:
    """Seconds to wait before a request is sent again: exponential backoff with jitter.

    Args:
        attempt: how often it has been sent before, from 1.
        jitter: draws between half of the pause and all of it.
        first: the pause after the first attempt, in seconds; it doubles with each further one.
    """
    return min(LONGEST_PAUSE, first * 2.0 ** (attempt - 1)) * jitter.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Key:
    """The key for the servers, and the name of the variable that holds it."""

    variable: str
    value: str

    @classmethod
    def read(cls, variable: str) -> Key:
        """Take the key out of the environment; without one, requests carry none.

        Raises:
            BackendDown: no request can carry this key.
        """
        value = os.environ.get(variable, "").strip()
        if not (value.isascii() and value.isprintable()):
            raise BackendDown(f"openai: the key in {variable} has characters that no key can have")
        return cls(variable, value)

    def __repr__(self) -> str:
        return f"Key({self.variable!r})"

    def headers(self) -> dict[str, str]:
        """What goes with each request."""
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}

    def hide(self, text: str) -> str:
        """A text on one line and of at most 300 characters, without the key."""
        if self.value:
            text = text.replace(self.value, "***")
        text = " ".join(text.split())
        return text if len(text) <= 300 else f"{text[:297]}..."


def retry_seconds(header: str | None, now: datetime | None = None) -> float:
    """What a header Retry-After asks for: it holds seconds, or a date; 0 where it cannot be read.

    Args:
        header: what it holds.
        now: the present, if not that of the clock.
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
