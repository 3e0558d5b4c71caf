"""The rate of requests to a server, learned from its refusals."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable

SLOWEST = 0.1
"""The lowest rate, in requests a second."""

WINDOW, WINDOW_REQUESTS = 5.0, 10
"""The latest seconds tell what a server can do, or more of them, until there are some requests."""

REFUSED, SHARE = 4, 0.15
"""A server has a limit if it refused so many requests, and such a share of all, in the window."""

DECREASE, HEADROOM, GROWTH, FAST_GROWTH = 0.7, 0.8, 1.02, 1.1
"""At its limit the rate is `DECREASE` times what the server can do. Each second with an answer and
without a refusal in the window doubles it up to `HEADROOM` times what the server could do, and then
multiplies it by `GROWTH`, or by `FAST_GROWTH` if the limit was not reached for `FREE` seconds."""

FREE = 30.0


class Pace:
    """Spaces requests out, once a server has refused some for their rate.

    Attributes:
        rate: requests a second; None while none has been refused.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._known = 1.0  # what the server could do when it last refused a request
        self._next = 0.0
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
        """Report an answer: raise the rate a little, at most once a second."""
        now = time.monotonic()
        self._answers.append(now)
        if self.rate is None or now < self._raised + 1 or self._latest(self._refusals):
            return
        self._raised = now
        enough = HEADROOM * self._known
        grown = self.rate * (GROWTH if now < self._lowered + FREE else FAST_GROWTH)
        self.rate = max(grown, min(2 * self.rate, enough))
        self._next = min(self._next, now + 1 / self.rate)

    def refused(self) -> None:
        """Report a refusal: lower the rate if there are many, at most once a second."""
        now = time.monotonic()
        self._refusals.append(now)
        latest = self._latest(self._answers)
        refused = sum(then > self._lowered for then in self._latest(self._refusals))
        if now < self._lowered + 1 or refused < max(REFUSED, SHARE * (refused + len(latest))):
            return
        if latest and latest[-1] > self._lowered:  # else it is away
            self._known = len(latest) / max(1.0, now - latest[0])
        self._lowered = now
        rate = self._known if self.rate is None else min(self.rate, self._known)
        self.rate = max(SLOWEST, DECREASE * rate)
        self._next = max(self._next, now + 1 / self.rate)

    def _latest(self, times: Iterable[float]) -> list[float]:
        """The times that are in the window."""
        seconds = max(WINDOW, WINDOW_REQUESTS / (self.rate or math.inf))
        since = time.monotonic() - seconds
        return [then for then in times if then > since]
