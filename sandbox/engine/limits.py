"""Limits: how many calls go on at once, and how many a sitting may make."""

from __future__ import annotations

import asyncio
import heapq
from typing import NamedTuple


class Turn(NamedTuple):
    """When a call goes, the lowest first: whoever is behind catches up.

    Attributes:
        round: of the call; since nobody waits for a score, it counts as of the round after.
        depth: how many calls its episode has had answered: drafts go before ratings, these before
            revisions, and of scenes those with the longest way to go.
        episode: its number.
    """

    round: int
    depth: int
    episode: int

    @property
    def priority(self) -> int:
        """The same order for an engine's own queue, as one number."""
        return 1000 * self.round + min(self.depth, 999)


class Gate:
    """Lets so many calls through at once; of those that wait, the one with the lowest turn."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._queue: list[tuple[Turn, int, asyncio.Future[None]]] = []
        self._arrivals = 0

    async def enter(self, place: Turn) -> None:
        """Wait for a place. Whoever is cancelled while waiting takes none."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._queue, (place, self._arrivals, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        while self._queue:
            turn = heapq.heappop(self._queue)[-1]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Budget(NamedTuple):
    """What one sitting may spend; None is no limit. What is replayed costs nothing."""

    calls: int | None = None
    tokens: int | None = None
    hours: float | None = None

    def spent(self, calls: int, tokens: int, seconds: float) -> str | None:
        """Which limit is reached, in words."""
        if self.calls is not None and calls >= self.calls:
            return f"the limit of {self.calls:,} calls is reached"
        if self.tokens is not None and tokens >= self.tokens:
            return f"the limit of {self.tokens:,} tokens is reached"
        if self.hours is not None and seconds >= self.hours * 3600:
            return f"the limit of {self.hours:g} hours is reached"
        return None


UNLIMITED = Budget()
