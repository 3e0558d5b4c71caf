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

FEW_ANSWERS = 3
"""A rate is measured from so many answers, at least, after a first refusal: until then a server may
answer faster than it can go on."""

LEAST_WAIT, SHORTEST = 0.2, 0.001
"""After a refusal requests begin with four in the time that the server asks to wait, or in the
first of these seconds; each answer halves the time between two, down to the second."""

DECREASE, GROWTH, SLOW_GROWTH = 0.8, 1.1, 1.01
"""At its limit the rate becomes `DECREASE` times what the server answered. Each second with few
refusals multiplies it by `GROWTH`, and by `SLOW_GROWTH` once it is what the server answered; in
between it stays, so it settles where few are refused."""

GROWN, MOST_IN_VAIN = 1.25, 3
"""Refusals have other causes than the rate if there are too many before it has grown so much since
it was last lowered, and that so often in a row. The first measurement may be wrong."""

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
        self._interval = 0.0  # between requests, after a refusal while no rate is known
        self._set = 0.0  # the rate to which it was last lowered
        self._in_vain = 0  # how often it was lowered without having grown before
        self._possible = math.inf  # what the server answered then; infinite: not known well
        self._raised = self._lowered = 0.0
        self._answers: deque[float] = deque(maxlen=1000)
        self._refusals: deque[float] = deque(maxlen=1000)
        self._turn = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until the next request may be sent."""
        if self.rate is None and self._interval == 0 and self._next <= time.monotonic():
            return
        async with self._turn:
            while (wait := self._next - time.monotonic()) > 0:
                await asyncio.sleep(min(wait, 1.0))
            interval = self._interval if self.rate is None else 1 / self.rate
            self._next = time.monotonic() + interval

    def answered(self) -> None:
        """Report an answer: raise the rate a little if few are refused, at most once a second."""
        now = time.monotonic()
        self._answers.append(now)
        self._interval = self._interval / 2 if self._interval > SHORTEST else 0.0
        if self.rate is None or now < self._raised + 1:
            return
        answered, refused = self._latest(self._answers), self._latest(self._refusals)
        if len(refused) < FEW * (len(answered) + len(refused)):
            self._raised = now
            self.rate *= GROWTH if self.rate < self._possible else SLOW_GROWTH
            self._next = min(self._next, now + 1 / self.rate)

    def refused(self, after: float = 0.0) -> None:
        """Report a refusal: lower the rate if too many of enough requests are refused.

        Args:
            after: in how many seconds the server takes the request. While no rate is known, nothing
                is sent until then, and what follows begins slowly.
        """
        now = time.monotonic()
        self._refusals.append(now)
        if self.rate is None:
            self._next = max(self._next, now + after)
            self._interval = max(after, LEAST_WAIT) / 4
        answered, refused = self._latest(self._answers), self._latest(self._refusals)
        count = len(answered) + len(refused)
        if not answered or count < FEWEST or len(refused) < TOO_MANY * count:
            return  # a server that answers nothing is away
        first = refused[0]
        seconds, late = now - first, sum(then > first for then in answered)
        if seconds < 1 or late < FEW_ANSWERS:
            return
        self._lowered = now
        in_vain = self.rate is not None and self.rate < GROWN * self._set
        self._in_vain = self._in_vain + 1 if in_vain else 0
        if self._in_vain == MOST_IN_VAIN:
            self.rate = None
            self._lowered = now + IGNORED  # nothing before then counts
            return
        possible = late / seconds
        if self.rate is not None:
            self._possible = possible = min(possible, self.rate)
        self.rate = self._set = max(SLOWEST, DECREASE * possible)
        self._next = max(self._next, now + 1 / self.rate)

    def _latest(self, times: Iterable[float]) -> list[float]:
        """The times that are in the window, and after the rate was last lowered."""
        seconds = max(WINDOW, FEWEST / (self.rate or math.inf))
        since = max(time.monotonic() - seconds, self._lowered)
        return [then for then in times if then > since]
