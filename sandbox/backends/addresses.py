"""Load balancing over the addresses of a served model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandbox.backends.base import Unavailable
from sandbox.concurrency import Gate

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""First and longest pause of an unreachable address, in seconds; the pause doubles each time."""

SPARE_CALLS = 8
"""Calls that an address may have on top of twice those of the least busy address."""


class AdaptiveGate(Gate):
    """A gate with adaptive width (additive increase, multiplicative decrease).

    The width is halved, at most once a second, when the server is overloaded; it grows by one
    after as many successes as it is wide, up to its initial value.
    """

    def __init__(self, width: int) -> None:
        super().__init__(float(width))
        self._max_width = float(width)
        self._halved = -math.inf

    def succeeded(self) -> None:
        """Report a success: widen the gate a little."""
        self.width = min(self._max_width, self.width + 1 / self.width)
        self.admit()

    def overloaded(self) -> None:
        """Report an overload: halve the width, unless that was done within the last second."""
        now = time.monotonic()
        if now - self._halved >= 1:
            self._halved = now
            self.width = max(1.0, self.width / 2)


class Address:
    """One server: its gate, and whether it is paused after a failure.

    Attributes:
        url: its base URL.
        gate: limits its calls in flight.
    """

    def __init__(self, url: str, max_in_flight: int) -> None:
        self.url = url
        self.gate = AdaptiveGate(max_in_flight)
        self._available_at = 0.0
        self._pause = FIRST_PAUSE

    def seconds_paused(self) -> float:
        """Return the seconds until it is used again; 0 if it is in use."""
        return max(0.0, self._available_at - time.monotonic())

    def failed(self) -> None:
        """Report that it is unreachable. Failures during a pause count as the same failure."""
        if not self.seconds_paused():
            self._available_at = time.monotonic() + self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def reached(self) -> None:
        """Report that it answered."""
        self._pause = FIRST_PAUSE

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Leave the gate after a request, and record overloads and failures."""
        import aiohttp  # here, since it takes long to import

        try:
            yield
        except asyncio.CancelledError:  # mostly the timeout of the call
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
    """Choose the address of a call: that of its episode, unless another is much less busy.

    Args:
        addresses: all addresses.
        episode: the number of the call's episode.

    Raises:
        Unavailable: all addresses are paused.
    """
    first = episode % len(addresses)
    available = [
        address for address in addresses[first:] + addresses[:first] if not address.seconds_paused()
    ]
    if not available:
        pause = min(address.seconds_paused() for address in addresses)
        names = ", ".join(address.url for address in addresses)
        raise Unavailable(f"{names} cannot be reached", pause)
    least_busy = min(available, key=lambda address: address.gate.load())
    overloaded = available[0].gate.load() > 2 * least_busy.gate.load() + SPARE_CALLS
    return least_busy if overloaded else available[0]
