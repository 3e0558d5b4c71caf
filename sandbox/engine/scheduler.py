"""Which episode may start, and when. Pure bookkeeping: no clock, no I/O, no tasks.

Memory is read as of the end of the round before. So an episode of round r may start as soon as
those who take part in it have finished round r - 1, whatever everybody else is doing.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sandbox.config import Schedule
from worlds.base import Meeting

Plan = Callable[[int], Sequence[Meeting]]


class Planned(NamedTuple):
    """An episode to play. `number` counts through all rounds: round * per_round + slot."""

    round: int
    number: int
    meeting: Meeting


class Scheduler:
    """Hands out episodes in an order that never waits for more than it must.

    Args:
        schedule: `order` out_of_order (as above), lock_step (a round starts when the one before is
            over, its observations included) or sequential (one episode at a time).
        plan: who meets in a round, known from the seed alone.
        per_round: episodes a round.
        start: the first round that is not over yet.
        end: the number of rounds; `limit` can lower it as the run goes on.
    """

    def __init__(
        self, schedule: Schedule, plan: Plan, per_round: int, start: int, end: int
    ) -> None:
        self._order = schedule.order
        self._max_ahead = schedule.max_ahead if schedule.order == "out_of_order" else 1
        self._plan = plan
        self._per_round = per_round
        self.end = end
        self.horizon = end  # rounds from this one on may not be planned yet
        self.floor = start  # the first round that has episodes to settle
        self.over_before = start  # the first round that has episodes to observe
        self._next = start  # the first round that is not planned
        self._open = 0
        self._ready: list[Planned] = []
        self._missing: dict[int, int] = {}  # episode number: how many it still waits for
        self._planned: dict[int, Planned] = {}
        self._waiting: defaultdict[int, list[int]] = defaultdict(list)  # by what is waited for
        self._unsettled: set[int] = set()
        self._latest: dict[int, int] = {}  # agent: its latest episode, of a round planned before
        self._settled: defaultdict[int, int] = defaultdict(int)  # round: episodes
        self._observed: defaultdict[int, int] = defaultdict(int)  # round: episodes

    @property
    def over(self) -> bool:
        """Whether every episode is played and observed."""
        return self.over_before >= self.end

    def next(self) -> Planned | None:
        """The next episode that may start: of the earliest round, in its order. None for now."""
        if self._order == "sequential" and self._open:
            return None
        self._plan_ahead()
        if not self._ready:
            return None
        self._open += 1
        return heapq.heappop(self._ready)

    def settled(self, episode: Planned) -> None:
        """Tell that an episode is played: its author's memory of the round is complete."""
        self._settled[episode.round] += 1
        self._unsettled.discard(episode.number)
        for number in self._waiting.pop(episode.number, ()):
            self._missing[number] -= 1
            if not self._missing[number]:
                del self._missing[number]
                heapq.heappush(self._ready, self._planned.pop(number))
        while self._settled.get(self.floor) == self._per_round:
            del self._settled[self.floor]
            self.floor += 1

    def observed(self, episode: Planned) -> bool:
        """Tell that nothing of an episode is outstanding; whether its round is now over."""
        self._open -= 1
        self._observed[episode.round] += 1
        over = self._observed[episode.round] == self._per_round
        while self._observed.get(self.over_before) == self._per_round:
            del self._observed[self.over_before]
            self.over_before += 1
        return over

    def _plan_ahead(self) -> None:
        while self._next < min(self.end, self.horizon) and self._may_plan():
            first = self._next * self._per_round
            meetings = self._plan(self._next)
            for number, meeting in enumerate(meetings, first):
                self._enter(Planned(self._next, number, meeting))
            for number, meeting in enumerate(meetings, first):
                self._unsettled.add(number)
                if meeting.author is not None:
                    self._latest[meeting.author] = number
            self._next += 1

    def _may_plan(self) -> bool:
        if self._order == "out_of_order":
            return self._next <= self.floor + self._max_ahead
        return self._next == self.over_before

    def _enter(self, episode: Planned) -> None:
        author, peers, _ = episode.meeting
        people = peers if author is None else (author, *peers)
        latest = {self._latest[agent] for agent in people if agent in self._latest}
        before = latest & self._unsettled
        for number in before:
            self._waiting[number].append(episode.number)
        missing = len(before)
        if missing:
            self._missing[episode.number] = missing
            self._planned[episode.number] = episode
        else:
            heapq.heappush(self._ready, episode)
