"""A semaphore with priorities for asyncio."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

Priority = int | tuple[int, ...]
"""Dispatch priority; lower runs first. All callers of one gate use the same type."""


class Gate:
    """A semaphore with priorities: waiting callers are admitted lowest priority first.

    Args:
        width: maximum number of callers inside.

    Attributes:
        width: the same; it may be changed, and is rounded down.
        inside: number of callers inside.
    """

    def __init__(self, width: float) -> None:
        self.width = width
        self.inside = 0
        self._arrivals = 0
        self._queue: list[tuple[Any, int, asyncio.Future[None]]] = []

    def load(self) -> int:
        """Return the number of callers inside or waiting."""
        return self.inside + len(self._queue)

    async def enter(self, priority: Priority) -> None:
        """Wait to be admitted. A caller that is cancelled while it waits is not inside."""
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
        """Leave the gate, which admits the next caller."""
        self.inside -= 1
        self.admit()

    def admit(self) -> None:
        """Admit waiting callers while the gate is not full."""
        while self._queue and self.inside < int(self.width):
            admitted = heapq.heappop(self._queue)[-1]
            if not admitted.done():
                self.inside += 1
                admitted.set_result(None)
