"""Limits: what one sitting may spend, and when no further call may be made."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from sandbox.progress import Clock, Counts


class Stopped(Exception):
    """No further call is made in this sitting; those in flight are waited for."""


class Budget(NamedTuple):
    """What one sitting may spend; None is no limit. Replayed calls cost nothing."""

    calls: int | None = None
    tokens: int | None = None
    hours: float | None = None

    def spent(self, calls: int, tokens: int, seconds: float) -> str | None:
        """Name the limit that is reached, if any, in words."""
        if self.calls is not None and calls >= self.calls:
            return f"the limit of {self.calls:,} calls is reached"
        if self.tokens is not None and tokens >= self.tokens:
            return f"the limit of {self.tokens:,} tokens is reached"
        if self.hours is not None and seconds >= self.hours * 3600:
            return f"the limit of {self.hours:g} hours is reached"
        return None


UNLIMITED = Budget()


class Limiter:
    """Says when no further call may be made: the run is stopped, or its budget is spent.

    Args:
        budget: what this sitting may spend.
        clock: time at work.

    Attributes:
        clock: the same.
        counts: what this sitting has done.
        asked: calls that it has sent to backends.
        stopping: why no further call is made; None while calls may be made.
    """

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self.clock = clock
        self.counts = Counts()
        self.asked = 0
        self.stopping: str | None = None
        self._budget = budget
        self._stop = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Make no further call."""
        self.stopping = self.stopping or reason
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped if no further call may be made."""
        tokens = self.counts.tokens_in + self.counts.tokens_out
        spent = self._budget.spent(self.asked, tokens, self.clock.sitting())
        if spent:
            self.stop(spent)
        if self.stopping:
            raise Stopped(self.stopping)

    async def pause(self, seconds: float) -> None:
        """Wait; raise Stopped as soon as no further call may be made."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        self.check()
