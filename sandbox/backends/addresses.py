"""Load balancing over the addresses of a served model."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable
from typing import TypeVar

from sandbox.backends.base import Resting, Unavailable
from sandbox.backends.pace import Pace
from sandbox.concurrency import Gate

T = TypeVar("T")

FAILURES_IN_A_ROW = 3
"""An address rests after this many failures without a success between them."""

FIRST_REST, LONGEST_REST = 2.0, 15.0
"""The first and the longest rest of an address, in seconds; a rest doubles each time."""

LONG_WAIT = 5.0
"""An address rests for as long as its server asks, if that is at least this many seconds."""

DOUBT = 1.0
"""Seconds after a failure in which an address is used only if all others fail or rest too."""

FIRST_WIDTH = 16
"""Calls in flight to a server that may have a limit, at first; each success admits one more."""

FAST, LATEST = 0.25, 20
"""A reply that is not there in time is due to its prompt, and no sign of overload, if the `LATEST`
responses took less than this share of the timeout."""

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
        self._untried = False

    def begin_narrow(self) -> None:
        """Begin with `FIRST_WIDTH`; until the first overload, each success admits one more."""
        self.width = min(self._max_width, float(FIRST_WIDTH))
        self._untried = True

    def succeeded(self) -> None:
        """Report a success: widen the gate a little."""
        step = 1.0 if self._untried else 1 / self.width
        self.width = min(self._max_width, self.width + step)
        self.admit()

    def overloaded(self) -> None:
        """Report an overload: halve the width, unless that was done within the last second."""
        self._untried = False
        now = time.monotonic()
        if now - self._halved >= 1:
            self._halved = now
            self.width = max(1.0, self.width / 2)


class Address:
    """One server: its limits, and whether it rests after failures.

    Attributes:
        url: its base URL.
        gate: limits its calls in flight.
        pace: limits its requests a second.
        problem: why it rests, or rested last.
        asked_to_rest: its server asked for this rest.
    """

    def __init__(self, url: str, max_in_flight: int) -> None:
        self.url = url
        self.gate = AdaptiveGate(max_in_flight)
        self.pace = Pace()
        self.problem = ""
        self._available_at = 0.0
        self._doubted_until = 0.0
        self.asked_to_rest = False
        self._rest = FIRST_REST
        self._failures = 0
        self._took: deque[float] = deque(maxlen=LATEST)

    def seconds_resting(self) -> float:
        """Return the seconds until it is used again; 0 if it is in use."""
        return max(0.0, self._available_at - time.monotonic())

    def is_doubted(self) -> bool:
        """Whether it has just failed to answer."""
        return time.monotonic() < self._doubted_until

    async def enter(self, priority: int) -> bool:
        """Wait until a request may be sent; false if the address has begun to rest meanwhile."""
        await self.gate.enter(priority)
        try:
            await self.pace.turn()
        except asyncio.CancelledError:
            self.gate.leave()
            raise
        if self.seconds_resting():
            self.gate.leave()
            return False
        return True

    async def request(self, reply: Awaitable[T], timeout: float | None) -> T:
        """Wait for the reply to a request, and leave the gate.

        Raises:
            Unavailable: there is no reply within `timeout` seconds.
        """
        limit = asyncio.timeout(timeout)
        began = time.monotonic()
        try:
            if timeout is None:
                found = await reply
            else:
                async with limit:
                    found = await reply
            self._took.append(time.monotonic() - began)
            return found
        except TimeoutError:
            if not self._is_fast(timeout):
                self.gate.overloaded()
            if not limit.expired():
                raise
            raise Unavailable(f"{self.url}: no reply within {timeout:g} seconds") from None
        finally:
            self.gate.leave()

    def _is_fast(self, timeout: float | None) -> bool:
        """Whether its latest responses took so little time that it is not overloaded."""
        return timeout is not None and max(self._took, default=timeout) < FAST * timeout

    def answered(self) -> None:
        """Report that it answered: it no longer rests, unless it asked for that."""
        self._failures = 0
        self._doubted_until = 0.0
        self._rest = FIRST_REST
        if not self.asked_to_rest:
            self._available_at = 0.0

    def limited(self, after: float) -> None:
        """Report that it refused a request for its rate, and in how many seconds it takes one."""
        self.pace.refused(after if after < LONG_WAIT else 0.0)

    def failed(self, problem: str, after: float = 0.0) -> None:
        """Report that it did not answer a request; several in a row let it rest.

        Failures during a rest count as part of the failure that began it.

        Args:
            problem: what happened, for those who wait.
            after: the seconds to wait that the server asks for.
        """
        self._failures += 1
        self._doubted_until = time.monotonic() + DOUBT
        if after >= LONG_WAIT:
            self._begin_rest(problem, max(after, self.seconds_resting()), asked=True)
        elif self._failures >= FAILURES_IN_A_ROW and not self.seconds_resting():
            self._begin_rest(problem, max(after, self._rest), asked=False)
            self._rest = min(LONGEST_REST, 2 * self._rest)

    def _begin_rest(self, problem: str, seconds: float, *, asked: bool) -> None:
        self.problem = problem
        self._available_at = time.monotonic() + seconds
        self.asked_to_rest = asked


def choose(addresses: list[Address], episode: int) -> Address:
    """Choose the address of a call: that of its episode, unless another is much less busy.

    Args:
        addresses: all addresses.
        episode: the number of the call's episode.

    Raises:
        Resting: all addresses rest.
    """
    if len(addresses) == 1 and not addresses[0].seconds_resting():
        return addresses[0]
    first = episode % len(addresses)
    available = [
        address
        for address in addresses[first:] + addresses[:first]
        if not address.seconds_resting()
    ]
    if not available:
        problems = "; ".join(dict.fromkeys(address.problem for address in addresses))
        raise Resting(problems, seconds_until_free(addresses), asked=asked_to_rest(addresses))
    available = [address for address in available if not address.is_doubted()] or available
    least_busy = min(available, key=lambda address: address.gate.load())
    overloaded = available[0].gate.load() > 2 * least_busy.gate.load() + SPARE_CALLS
    return least_busy if overloaded else available[0]


def seconds_until_free(addresses: list[Address]) -> float:
    """Return the seconds until the first of some addresses is in use again."""
    return min(address.seconds_resting() for address in addresses)


def asked_to_rest(addresses: list[Address]) -> bool:
    """Whether the server of one of some addresses asked for its rest."""
    return any(address.asked_to_rest for address in addresses)
