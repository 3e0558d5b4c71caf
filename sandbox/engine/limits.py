"""Limits: the budget of a session, and stopping it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from sandbox.progress import Clock, Counts


class Stopped(Exception):
    """The session sends no further call; those in flight are waited for."""


class Budget(NamedTuple):
    """Limits of one session; None is no limit. Replayed calls do not count."""

    calls: int | None = None
    tokens: int | None = None
    hours: float | None = None

    def spent(self, calls: int, tokens: int, seconds: float) -> str | None:
        """Describe the limit that is reached; None if there is none."""
        if self.calls is not None and calls >= self.calls:
            return f"the limit of {self.calls:,} calls is reached"
        if self.tokens is not None and tokens >= self.tokens:
            return f"the limit of {self.tokens:,} tokens is reached"
        if self.hours is not None and seconds >= self.hours * 3600:
            return f"the limit of {self.hours:g} hours is reached"
        return None


UNLIMITED = Budget()


class Limiter:
    """Ends a session: when its budget is spent, or when it is stopped.

    Args:
        budget: limits of this session.
        clock: the time spent on the run.

    Attributes:
        clock: the same.
        counts: counters of this session.
        sent: number of calls sent to backends.
        stopping: why no further call is sent; None while calls may be sent.
    """

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self.clock = clock
        self.counts = Counts()
        self.sent = 0
        self.stopping: str | None = None
        self._budget = budget
        self._stop = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Send no further call."""
        self.stopping = self.stopping or reason
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped if no further call may be sent."""
        tokens = self.counts.tokens_in + self.counts.tokens_out
        spent = self._budget.spent(self.sent, tokens, self.clock.session_seconds())
        if spent:
            self.stop(spent)
        if self.stopping:
            raise Stopped(self.stopping)

    async def pause(self, seconds: float) -> None:
        """Sleep; raise Stopped as soon as the session is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        self.check()
