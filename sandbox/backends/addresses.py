"""The addresses of a served model: how many calls each gets at once, and which one gets a call."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandbox.backends.base import Unavailable
from sandbox.concurrency import Gate

REST_SECONDS, LONGEST_REST = 5.0, 60.0
"""How long an address rests that could not be reached; each time twice as long, to the longest."""

SPARE_CALLS = 8
"""How many more calls than twice those of the least busy address an address may have."""


class AdaptiveGate(Gate):
    """A gate whose width follows from how the other side copes.

    The width is halved, at most once a second, when the other side is overloaded; it grows by one
    for as many successes as it is wide, up to where it began.
    """

    def __init__(self, width: int) -> None:
        super().__init__(float(width))
        self._widest = float(width)
        self._halved = -math.inf

    def succeeded(self) -> None:
        """Grow a little."""
        self.width = min(self._widest, self.width + 1 / self.width)
        self.admit()

    def overloaded(self) -> None:
        """Shrink to half, unless that has just happened."""
        now = time.monotonic()
        if now - self._halved >= 1:
            self._halved = now
            self.width = max(1.0, self.width / 2)


class Address:
    """One server: its gate, and whether it rests.

    Attributes:
        url: where it is.
        gate: what its calls go through.
        vllm: whether it is vLLM's server.
        limit: what it calls the limit of a reply's tokens.
    """

    def __init__(self, url: str, max_in_flight: int) -> None:
        self.url = url
        self.gate = AdaptiveGate(max_in_flight)
        self.vllm = False
        self.limit = "max_tokens"
        self._awake = 0.0
        self._rest = REST_SECONDS

    def resting(self) -> float:
        """Seconds until it is used again; 0 where it is in use."""
        return max(0.0, self._awake - time.monotonic())

    def failed(self) -> None:
        """It could not be reached. What fails while it rests is the same failure."""
        if not self.resting():
            self._awake = time.monotonic() + self._rest
            self._rest = min(LONGEST_REST, 2 * self._rest)

    def reached(self) -> None:
        """It answered."""
        self._rest = REST_SECONDS

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """For as long as a call that has entered is at the server; notices how that goes."""
        import aiohttp  # here, since it takes long to import

        try:
            yield
        except asyncio.CancelledError:  # for the most part the call's own time limit
            self.gate.overloaded()
            raise
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                self.gate.overloaded()
            self.failed()
            raise
        finally:
            self.gate.leave()


def choose(addresses: list[Address], episode: int) -> Address:
    """Where a call goes: to its episode's address, or to the least busy one if that is better.

    Raises:
        Unavailable: all of them rest.
    """
    home = episode % len(addresses)
    awake = [one for one in addresses[home:] + addresses[:home] if not one.resting()]
    if not awake:
        pause = min(one.resting() for one in addresses)
        names = ", ".join(one.url for one in addresses)
        raise Unavailable(f"{names} cannot be reached", pause)
    least = min(awake, key=lambda one: one.gate.load())
    crowded = awake[0].gate.load() > 2 * least.gate.load() + SPARE_CALLS
    return least if crowded else awake[0]
