"""The rate of requests to a server, learned from its refusals."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable

SLOWEST = 0.1
"""The lowest rate, in requests a second."""

WINDOW = 5.0
"""Seconds that tell what a server can do; more of them for a rate with fewer than `FEWEST`."""

FEWEST = 20
"""The fewest requests that tell anything: fewer may be refused by chance."""

TOO_MANY, FEW = 0.25, 0.08
"""The share of refused requests from which a server has a limit; below the second, none is near."""

DECREASE, GROWTH = 0.8, 1.1
"""At its limit the rate becomes `DECREASE` times what the server answered. Each second with few
refusals multiplies it by `GROWTH`; in between it stays, so it settles where few are refused."""

GROWN = 1.25
"""Refusals have other causes than the rate if there are too many before it has grown so much since
it was last lowered."""

IGNORED = 30.0
"""Seconds in which refusals are not counted, once they have shown to have other causes."""


class Pace:
    """Spaces requests out, once a server has refused some for their rate.

    Attributes:
        rate: requests a second; None while too few are refused, or for other causes.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._next = 0.0
        self._set = 0.0  # the rate to which it was last lowered
        self._raised = self._lowered = 0.0
        self._answers: deque[float] = deque(maxlen=1000)
        self._refusals: deque[float] = deque(maxlen=1000)
        self._turn = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until the next request may be sent."""
        if self.rate is None and self._next <= time.monotonic():
            return
        async with self._turn:
            while (wait := self._next - time.monotonic()) > 0:
                await asyncio.sleep(min(wait, 1.0))
            if self.rate is not None:
                self._next = time.monotonic() + 1 / self.rate

    def hold(self, seconds: float) -> None:
        """Send nothing for some seconds, as the server asks."""
        self._next = max(self._next, time.monotonic() + seconds)

    def answered(self) -> None:
        """Report an answer: raise the rate a little if few are refused, at most once a second."""
        now = time.monotonic()
        self._answers.append(now)
        if self.rate is None or now < self._raised + 1:
            return
        answered, refused = self._latest(self._answers), self._latest(self._refusals)
        if len(refused) < FEW * (len(answered) + len(refused)):
            self._raised = now
            self.rate *= GROWTH
            self._next = min(self._next, now + 1 / self.rate)

    def refused(self) -> None:
        """Report a refusal: lower the rate if too many of enough requests are refused."""
        now = time.monotonic()
        self._refusals.append(now)
        answered, refused = self._latest(self._answers), self._latest(self._refusals)
        count = len(answered) + len(refused)
        if not answered or count < FEWEST or len(refused) < TOO_MANY * count:
            return  # a server that answers nothing is away
        seconds = now - min(refused[0], answered[0])
        if seconds < 1:
            return
        self._lowered = now
        if self.rate is not None and self.rate < GROWN * self._set:
            self.rate = None
            self._lowered = now + IGNORED  # nothing before then counts
            return
        possible = len(answered) / seconds
        self.rate = self._set = max(SLOWEST, DECREASE * min(possible, self.rate or possible))
        self._next = max(self._next, now + 1 / self.rate)

    def _latest(self, times: Iterable[float]) -> list[float]:
        """The times that are in the window, and after the rate was last lowered."""
        seconds = max(WINDOW, FEWEST / (self.rate or math.inf))
        since = max(time.monotonic() - seconds, self._lowered)
        return [then for then in times if then > since]
