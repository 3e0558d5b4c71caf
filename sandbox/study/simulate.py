"""How long a run takes on a calibrated engine: its sampled episodes, played in virtual time.

The real scheduler decides which episode may start, the meetings are those of the run's own world,
and `sandbox.study.engine_model` when each call ends. The calls of an episode, and which of them
wait for others, are those of a sampled episode of the same part of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agents.agent import Agent
from agents.chance import seed_of
from sandbox.config import Schedule
from sandbox.engine.scheduler import Planned, Scheduler
from sandbox.study.engine_model import Engine, Needs
from sandbox.study.rates import EngineRates
from worlds.base import Meeting, World

_UNLIMITED = float("inf")


class SampledCall(NamedTuple):
    """A call of a sampled episode.

    Attributes:
        level: the number of calls of its episode that came one after the other before it.
        observing: nothing waits for it.
        uncached, cached: the tokens of its prompt.
        written: the tokens of its reply.
        constrained: those of them that are constrained.
    """

    level: int
    observing: bool
    uncached: int
    cached: int
    written: int
    constrained: int


class SampledEpisode(NamedTuple):
    """A sampled episode: its round, and its calls by level."""

    round: int
    calls: tuple[SampledCall, ...]


class Simulated(NamedTuple):
    """A simulated run.

    Attributes:
        seconds: its time.
        calls: their number.
        busy: the used share of the engines' capacity.
    """

    seconds: float
    calls: int
    busy: float


class SampledLoad:
    """The calls of a run, drawn from sampled episodes; a `sandbox.study.engine_model.Load`.

    A call has the number ``episode * stride + position``.

    Args:
        sample: episodes of the first round and of later ones.
        rates: of each server.
        servers: their number.
        episodes: the number of episodes of the run.
        per_round: those of a round.
        seed: of the draws.
    """

    def __init__(
        self,
        sample: Sequence[SampledEpisode],
        rates: EngineRates,
        servers: int,
        episodes: int,
        per_round: int,
        seed: int,
    ) -> None:
        self.servers = servers
        self.max_batch = rates.max_running
        self.kv_tokens = _UNLIMITED if rates.kv_tokens is None else float(rates.kv_tokens)
        self.stride = max(len(episode.calls) for episode in sample)
        self._rates = rates
        self._calls = [episode.calls for episode in sample]
        self._needs = [[_needs(rates, one) for one in calls] for calls in self._calls]
        first = [index for index, episode in enumerate(sample) if episode.round == 0]
        later = [index for index, episode in enumerate(sample) if episode.round > 0]
        draw = np.random.default_rng(seed_of(seed, "simulate"))
        start = min(per_round, episodes)
        self._drawn: list[int] = [
            *draw.choice(first or later, start).tolist(),
            *draw.choice(later or first, episodes - start).tolist(),
        ]

    def calls(self, episode: int) -> tuple[SampledCall, ...]:
        """The calls of an episode."""
        return self._calls[self._drawn[episode]]

    def speed(self, running: int) -> float:
        """Tokens per second of each of `running` calls on a server."""
        return 1 / self._rates.step(running)

    def needs(self, call: int) -> Needs:
        """What a call needs; its first token comes with its prompt."""
        episode, position = divmod(call, self.stride)
        return self._needs[self._drawn[episode]][position]

    def priority(self, call: int, per_round: int) -> float:
        """Dispatch priority of a call, as in `sandbox.engine.calls`."""
        episode, position = divmod(call, self.stride)
        one = self.calls(episode)[position]
        return 1000 * (episode // per_round + one.observing) + min(one.level, 999)


def _needs(rates: EngineRates, call: SampledCall) -> Needs:
    prefill = rates.prefill(call.uncached, call.cached, call.constrained)
    return Needs(call.uncached + call.cached + call.written, prefill, max(0, call.written - 1))


class _Open:
    """An episode in progress.

    Attributes:
        planned: the episode.
        left: calls that have not ended.
        level: up to which calls have been sent, exclusive.
        waited: by level, calls that have not ended and that later levels wait for.
    """

    def __init__(self, planned: Planned, calls: Sequence[SampledCall]) -> None:
        self.planned = planned
        self.left = len(calls)
        self.level = 0
        self.played = False
        self.waited = [0] * (max((one.level for one in calls), default=0) + 1)
        for one in calls:
            self.waited[one.level] += not one.observing


class _Player:
    """Plays the episodes of a scheduler, as `sandbox.engine.runner` does."""

    def __init__(self, load: SampledLoad, engine: Engine, scheduler: Scheduler, width: int) -> None:
        self._load = load
        self._engine = engine
        self._scheduler = scheduler
        self._width = 2 * width
        self._open: dict[int, _Open] = {}

    def play(self) -> int:
        """Play the run; returns the number of calls."""
        ended = 0
        self._start()
        while not self._scheduler.over:
            number, position = divmod(self._engine.next(), self._load.stride)
            self._ended(self._open[number], self._load.calls(number)[position])
            ended += 1
        return ended

    def _start(self) -> None:
        while len(self._open) < self._width:
            planned = self._scheduler.next()
            if planned is None:
                return
            episode = _Open(planned, self._load.calls(planned.number))
            self._open[planned.number] = episode
            self._go_on(episode)

    def _go_on(self, episode: _Open) -> None:
        """Send the calls of all levels that wait for nothing more."""
        number = episode.planned.number
        while episode.level < len(episode.waited) and not any(episode.waited[: episode.level]):
            for position, one in enumerate(self._load.calls(number)):
                if one.level == episode.level:
                    self._engine.submit(number * self._load.stride + position)
            episode.level += 1
        if not episode.played and not any(episode.waited):
            episode.played = True
            self._scheduler.mark_played(episode.planned)

    def _ended(self, episode: _Open, call: SampledCall) -> None:
        episode.left -= 1
        if not call.observing:
            episode.waited[call.level] -= 1
            self._go_on(episode)
        if not episode.left:
            del self._open[episode.planned.number]
            self._scheduler.mark_complete(episode.planned)
        self._start()


MOST_CALLS = 1_000_000
"""Calls of the longest run that is simulated whole; of a longer one, its first rounds are."""


def simulate(
    sample: Sequence[SampledEpisode],
    world: World,
    agents: Sequence[Agent],
    rounds: int,
    schedule: Schedule,
    rates: EngineRates,
    servers: int,
    seed: int,
) -> Simulated:
    """Simulate a run in virtual time.

    Of a run with more than `MOST_CALLS` calls, the first rounds are simulated, at least two; each
    further round takes as long as the last of them.

    Args:
        sample: episodes of the first round and of later ones, with at least one call each.
        world: that of the run.
        agents: its society.
        rounds: their number.
        schedule: order of work, and calls in flight.
        rates: the speed of a server.
        servers: copies of the model.
        seed: of what is drawn.
    """
    mean = sum(len(episode.calls) for episode in sample) / len(sample)
    per_round = world.per_round(agents)
    whole = max(2, int(MOST_CALLS / (mean * per_round)))
    meetings: dict[int, Sequence[Meeting]] = {}

    def played(count: int) -> Simulated:
        load = SampledLoad(sample, rates, servers, count * per_round, per_round, seed)
        return _played(load, world, agents, meetings, schedule, per_round, count)

    if rounds <= whole:
        return played(rounds)
    most, fewer = played(whole), played(whole - 1)
    more = rounds - whole
    return Simulated(
        most.seconds + more * (most.seconds - fewer.seconds),
        most.calls + more * (most.calls - fewer.calls),
        most.busy,
    )


def _played(
    load: SampledLoad,
    world: World,
    agents: Sequence[Agent],
    meetings: dict[int, Sequence[Meeting]],
    schedule: Schedule,
    per_round: int,
    rounds: int,
) -> Simulated:
    def meet(round: int) -> Sequence[Meeting]:
        if round not in meetings:
            meetings[round] = world.meet(agents, round)
        return meetings[round]

    engine = Engine(load, schedule.max_in_flight, lambda call: load.priority(call, per_round))
    scheduler = Scheduler(schedule, meet, per_round, 0, rounds)
    calls = _Player(load, engine, scheduler, schedule.max_in_flight).play()
    capacity = engine.now * load.servers
    return Simulated(engine.now, calls, 1 - engine.idle() / capacity if capacity else 0.0)
