"""Helpers around asyncio: a gate with priorities, and coroutines run from synchronous code."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

Priority = int | tuple[int, ...]
"""Orders the callers that wait at a gate, lowest first. All callers of one gate use one form."""


class Gate:
    """Admits a limited number of callers at once; of those that wait, the lowest priority first.

    Args:
        width: how many may be inside at once.

    Attributes:
        width: the same; it may be changed, and is rounded down.
        inside: how many are inside.
    """

    def __init__(self, width: float) -> None:
        self.width = width
        self.inside = 0
        self._arrivals = 0
        self._queue: list[tuple[Any, int, asyncio.Future[None]]] = []

    def load(self) -> int:
        """Count the callers that are inside or wait."""
        return self.inside + len(self._queue)

    async def enter(self, priority: Priority) -> None:
        """Wait for a place. A caller that is cancelled while it waits takes none."""
        if self.inside < int(self.width):
            self.inside += 1
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._queue, (priority, self._arrivals, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.inside -= 1
        self.admit()

    def admit(self) -> None:
        """Let waiting callers in, as far as there are places."""
        while self._queue and self.inside < int(self.width):
            admitted = heapq.heappop(self._queue)[-1]
            if not admitted.done():
                self.inside += 1
                admitted.set_result(None)


def run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; in a thread where a loop is running already (a notebook's)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
