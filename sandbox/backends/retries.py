"""Clients of HTTP servers: the API key, and when to retry a request."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sandbox.backends.base import BackendDown

CONNECT_SECONDS = 10.0
"""Timeout of a connection attempt, in seconds."""

LONGEST_WAIT = 366 * 86400.0
"""Upper limit of the wait that a server asks for, in seconds."""

LONGEST_PAUSE = 60.0
"""The longest pause between two attempts, in seconds, if the server asks for none."""

_RETRIED = frozenset((408, 409, 425, 429))


def can_be_retried(status: int) -> bool:
    """Whether the same request may succeed later, by the HTTP status of the response."""
    return status in _RETRIED or status >= 500


def pause(attempt: int, jitter: random.Random, first: float = 0.5) -> float:
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
    then = None
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            then = parse(date)
            break
        except ValueError:
            continue
    if then is None:
        return 0.0
    return (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()


_RESETS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
)
"""Headers of what is left of a limit, and of when it is full again."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"\d+(?:\.\d+)?\s*(?:ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)"
_IN_WORDS = re.compile(
    rf"(?:(?:try again|retry|wait)\s+(?:in|after|for)?\s*|retryDelay\W{{1,5}})"
    rf"((?:{_PART}(?:\s*(?:,|and)?\s*)?)+)(?![a-z])",
    re.IGNORECASE,
)
_EACH_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|mil|s|m|h|d)", re.IGNORECASE)
_SEARCHED = 2000  # characters of a body in which a wait is looked for
_UNIX_TIME = 1e9  # larger numbers of seconds are a time since 1970


def seconds_asked(headers: Mapping[str, str], body: bytes, now: datetime | None = None) -> float:
    """Return the seconds that a server asks to wait before the request is sent again.

    They are in the header Retry-After; or in headers of the limits of which nothing is left; or in
    the words of the error, as in "try again in 1m30s".

    Args:
        headers: of the response; names are compared as `headers` compares them.
        body: of the response.
        now: the current time, by default that of the system.

    Returns:
        The seconds, at most `LONGEST_WAIT`; 0 if it asks for none.
    """
    now = now or datetime.now(UTC)
    milliseconds = retry_seconds(headers.get("retry-after-ms"), now) / 1000
    told = milliseconds or retry_seconds(headers.get("Retry-After"), now)
    if told:
        return told
    resets = [
        _reset_seconds(headers[reset], now)
        for remaining, reset in _RESETS
        if headers.get(remaining, "").strip() in ("0", "0.0") and reset in headers
    ]
    words = _IN_WORDS.search(body[:_SEARCHED].decode("utf-8", "replace"))
    return max(resets, default=0.0) or (_duration(words[1]) if words else 0.0)


def _reset_seconds(header: str, now: datetime) -> float:
    """Parse the time of a reset: a duration (6m0s), seconds, a Unix time, or a date."""
    seconds = _duration(header) if header[-1:].isalpha() else 0.0
    if seconds:
        return seconds
    with suppress(ValueError):
        then = float(header)
        if _UNIX_TIME <= then < math.inf:
            then = then / 1000 if then >= 1000 * _UNIX_TIME else then  # some count milliseconds
            return min(LONGEST_WAIT, max(0.0, then - now.timestamp()))
    return retry_seconds(header, now)


def _duration(text: str) -> float:
    """Return the seconds of a duration such as 333ms, 20s, 6m0s or 1 minute and 5 seconds."""
    seconds = 0.0
    for number, unit in _EACH_PART.findall(text):
        name = unit.lower()
        seconds += float(number) * _UNITS["ms" if name == "mil" else name]
    return min(LONGEST_WAIT, seconds)
