"""The rate of requests to a server, learned from its refusals."""

from __future__ import annotations

import asyncio
import time
from collections import deque

SLOWEST = 0.1
"""The lowest rate, in requests a second."""

WINDOW = 5.0
"""The answers of this many seconds tell what a server can do."""

DECREASE, HEADROOM, GROWTH = 0.7, 0.8, 1.02
"""After a refusal the rate is `DECREASE` times what the server can do. Each second with an answer
doubles it up to `HEADROOM` times what the server could do, and from there multiplies it by
`GROWTH`."""


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
        if self.rate is None or now < max(self._raised, self._lowered) + 1:
            return
        self._raised = now
        enough = HEADROOM * self._known
        grown = self.rate * GROWTH
        self.rate = max(grown, min(2 * self.rate, enough))
        self._next = min(self._next, now + 1 / self.rate)

    def refused(self) -> None:
        """Report a refusal: lower the rate, at most once a second."""
        now = time.monotonic()
        if self.rate is not None and now < self._lowered + 1:
            return
        self._lowered = now
        latest = [then for then in self._answers if then > now - WINDOW]
        if latest and latest[-1] > now - max(1.0, 2 / (self.rate or 1.0)):  # it is not away
            self._known = len(latest) / max(1.0, now - latest[0])
        rate = self._known if self.rate is None else min(self.rate, self._known)
        self.rate = max(SLOWEST, DECREASE * rate)
        self._next = max(self._next, now + 1 / self.rate)
