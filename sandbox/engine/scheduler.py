"""The scheduler: decides which episode may start. Pure bookkeeping: no clock, no I/O, no tasks.

Memory is read as of the end of the previous round. So an episode of round r may start as soon as
its author and peers have finished round r - 1, whatever the other agents are doing.
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
    """An episode to play. Numbers continue through all rounds: round * per_round + slot."""

    round: int
    number: int
    meeting: Meeting


class Scheduler:
    """Hands out episodes as soon as their dependencies allow.

    Args:
        schedule: `order` is out_of_order (as above), lock_step (a round starts when the previous
            one is complete, observations included) or sequential (one episode at a time).
        plan: returns the meetings of a round; they depend on the seed only.
        per_round: number of episodes in a round.
        start: the first round that is not complete.
        end: the number of rounds.

    Attributes:
        end: the number of rounds; a stopping rule may lower it.
        horizon: rounds from this one on must not be planned yet.
        first_unplayed: the first round with episodes that are not played.
        first_incomplete: the first round with episodes that are not complete.
    """

    def __init__(
        self, schedule: Schedule, plan: Plan, per_round: int, start: int, end: int
    ) -> None:
        self._order = schedule.order
        self._max_ahead = schedule.max_ahead if schedule.order == "out_of_order" else 1
        self._plan = plan
        self._per_round = per_round
        self.end = end
        self.horizon = end
        self.first_unplayed = start
        self.first_incomplete = start
        self._next = start  # the first round that is not planned
        self._incomplete = 0  # episodes that were handed out and are not complete
        self._ready: list[Planned] = []
        self._blocked: dict[int, Planned] = {}  # by episode number
        self._blockers: dict[int, int] = {}  # episode number: number of episodes it waits for
        self._dependents: defaultdict[int, list[int]] = defaultdict(list)  # by episode number
        self._unplayed: set[int] = set()
        self._latest: dict[int, int] = {}  # agent: its latest planned episode as author
        self._played: defaultdict[int, int] = defaultdict(int)  # round: number of episodes
        self._complete: defaultdict[int, int] = defaultdict(int)  # round: number of episodes

    @property
    def over(self) -> bool:
        """Whether every episode is complete."""
        return self.first_incomplete >= self.end

    def next(self) -> Planned | None:
        """Return the next episode that may start, earliest first; None if there is none yet."""
        if self._order == "sequential" and self._incomplete:
            return None
        self._plan_ahead()
        if not self._ready:
            return None
        self._incomplete += 1
        return heapq.heappop(self._ready)

    def mark_played(self, episode: Planned) -> None:
        """Mark an episode as played: its author's memory for this round is final."""
        self._played[episode.round] += 1
        self._unplayed.discard(episode.number)
        for number in self._dependents.pop(episode.number, ()):
            self._blockers[number] -= 1
            if not self._blockers[number]:
                del self._blockers[number]
                heapq.heappush(self._ready, self._blocked.pop(number))
        while self._played.get(self.first_unplayed) == self._per_round:
            del self._played[self.first_unplayed]
            self.first_unplayed += 1

    def mark_complete(self, episode: Planned) -> bool:
        """Mark an episode as complete, observations included.

        Returns:
            Whether all episodes of its round are now complete.
        """
        self._incomplete -= 1
        self._complete[episode.round] += 1
        round_complete = self._complete[episode.round] == self._per_round
        while self._complete.get(self.first_incomplete) == self._per_round:
            del self._complete[self.first_incomplete]
            self.first_incomplete += 1
        return round_complete

    def _plan_ahead(self) -> None:
        while self._next < min(self.end, self.horizon) and self._may_plan():
            first = self._next * self._per_round
            meetings = self._plan(self._next)
            for number, meeting in enumerate(meetings, first):
                self._add(Planned(self._next, number, meeting))
            for number, meeting in enumerate(meetings, first):
                self._unplayed.add(number)
                if meeting.author is not None:
                    self._latest[meeting.author] = number
            self._next += 1

    def _may_plan(self) -> bool:
        if self._order == "out_of_order":
            return self._next <= self.first_unplayed + self._max_ahead
        return self._next == self.first_incomplete

    def _add(self, episode: Planned) -> None:
        """Add a planned episode: ready, or blocked by the latest episodes of its agents."""
        author, peers, _ = episode.meeting
        agents = peers if author is None else (author, *peers)
        latest = {self._latest[agent] for agent in agents if agent in self._latest}
        blockers = latest & self._unplayed
        for number in blockers:
            self._dependents[number].append(episode.number)
        if blockers:
            self._blockers[episode.number] = len(blockers)
            self._blocked[episode.number] = episode
        else:
            heapq.heappush(self._ready, episode)
