"""Limits of requests a second are learned with few refusals, in simulated time."""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sandbox.backends.addresses import Address
from sandbox.backends.retries import pause


class _Selector(selectors.SelectSelector):
    """Waits for nothing: the time that a loop would sleep passes at once."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine[Any, Any, None]], float]:
    """Run a coroutine in simulated time; return the seconds that passed."""

    def run(work: Coroutine[Any, Any, None]) -> float:
        selector = _Selector()
        loop = asyncio.SelectorEventLoop(selector)
        monkeypatch.setattr(time, "monotonic", lambda: selector.now)
        try:
            loop.run_until_complete(work)
        finally:
            loop.close()
        return selector.now - 1000

    return run


class Bucket:
    """A server with a bucket of `burst` requests that is filled at `limit` a second."""

    def __init__(self, limit: float, burst: float, latency: float, after: float) -> None:
        self.limit, self.burst, self.latency, self.after = limit, burst, latency, after
        self.left, self.filled = burst, 1000.0
        self.refused = 0
        self.address = Address("http://a", 64)
        self.address.gate.begin_narrow()
        self.chance = random.Random(7)

    async def call(self) -> None:
        """Send one call until it is answered, as a backend and its layers do."""
        failures = 0
        while not await self._answers():
            failures += 1
            await asyncio.sleep(max(self.after, pause(min(failures, 3), self.chance)))

    async def _answers(self) -> bool:
        while not await self.address.enter(0):
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.01)
        now = time.monotonic()
        self.left = min(self.burst, self.left + (now - self.filled) * self.limit)
        self.filled = now
        if self.left < 1:
            self.refused += 1
            self.address.gate.leave()
            self.address.limited(self.after)
            self.address.failed("429", self.after)
            return False
        self.left -= 1
        await asyncio.sleep(self.latency * self.chance.uniform(0.5, 1.5))
        self.address.gate.leave()
        self.address.gate.succeeded()
        self.address.pace.answered()
        self.address.answered()
        return True


@pytest.mark.parametrize(
    ("limit", "burst", "latency", "after"),
    [
        (3, 10, 0.01, 1),
        (3, 10, 0.01, 0.333),
        (3, 10, 0.01, 0),
        (3, 10, 2, 1),
        (3, 10, 5, 0),
        (1, 10, 0.5, 1),
        (10, 60, 1, 1),
        (30, 60, 1, 2),
    ],
)
def test_a_limit_is_used_up_with_few_refusals(
    limit: float,
    burst: float,
    latency: float,
    after: float,
    simulate: Callable[[Coroutine[Any, Any, None]], float],
) -> None:
    count = 600
    bucket = Bucket(limit, burst, latency, after)

    async def play() -> None:
        await asyncio.gather(*(bucket.call() for _ in range(count)))

    seconds = simulate(play())
    assert seconds < 1.05 * (count - burst) / limit + 3 * latency + 5, "the limit is used up"
    assert bucket.refused < 0.45 * count, "and few are refused"
