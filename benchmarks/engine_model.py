"""Simulate a society on a server in virtual time, for several orders of work.

There is no model and no waiting: lengths of prompts and replies are drawn from the seed, a
simulation of servers with continuous batching decides when each call finishes, and the real
`sandbox.engine.scheduler.Scheduler` decides what may start. All times are seconds of virtual time.

The servers are those of `sandbox.study.engine_model`. Up to `knee` calls of a server decode at
`decode_rate` each; beyond that, the sum of their rates is constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from agents.chance import seed_of
from sandbox.config import Schedule
from sandbox.engine.scheduler import Planned, Scheduler
from sandbox.study.engine_model import Engine, Needs
from worlds.base import Meeting

Order = Literal["out_of_order", "lock_step", "by_phases"]
Floats = NDArray[np.float64]

# The positions of the calls of an episode; ratings follow from `RATE` on.
DRAFT, REVISE, OBSERVE_DRAFT, OBSERVE_REVISION, RATE = 0, 1, (2, 3), (4, 5), 6


class FormModel(BaseModel, extra="forbid", frozen=True):
    """Lengths of the prompts and replies of a form, in tokens.

    Attributes:
        prompt: length of a prompt.
        per_rater: additional length for each rater of the episode.
        cached: share of the prompt in the server's prefix cache.
        median, sigma: the log-normal distribution of the lengths of replies.
        max_tokens: the token limit of a reply.
    """

    prompt: int = Field(ge=0)
    per_rater: int = Field(default=0, ge=0)
    cached: float = Field(default=0, ge=0, le=1)
    median: float = Field(gt=0)
    sigma: float = Field(default=0, ge=0)
    max_tokens: int = Field(ge=1)


class EngineModel(BaseModel, extra="forbid", frozen=True):
    """The simulated machine and the lengths of its calls.

    Attributes:
        servers: GPUs with a copy of the model each.
        prefill_rate: prompt tokens per second of a server.
        decode_rate: tokens per second of one call, with up to `knee` running calls.
        knee: running calls from which on the sum of their rates is constant.
        bend: `sharp`, or `gradual`: the sum approaches this limit and is half of it at `knee`.
        max_batch: maximum number of running calls of a server; others wait in order of arrival.
        kv_tokens: capacity of a server's cache in tokens; calls that do not fit wait.
    """

    servers: int = Field(default=1, ge=1)
    prefill_rate: float = Field(default=20_000, gt=0)
    decode_rate: float = Field(default=30, gt=0)
    knee: int = Field(default=128, ge=1)
    bend: Literal["sharp", "gradual"] = "sharp"
    max_batch: int = Field(default=256, ge=1)
    kv_tokens: int = Field(default=400_000, ge=1)
    draft: FormModel = FormModel(prompt=350, cached=0.15, median=140, sigma=0.35, max_tokens=512)
    rate: FormModel = FormModel(prompt=550, cached=0.5, median=45, sigma=0.35, max_tokens=160)
    revise: FormModel = FormModel(
        prompt=370, per_rater=45, cached=0.15, median=150, sigma=0.35, max_tokens=512
    )
    observe: FormModel = FormModel(prompt=310, cached=0.5, median=45, sigma=0.35, max_tokens=160)

    @property
    def full(self) -> int:
        """Number of running calls at which a server decodes at its maximum rate."""
        return self.max_batch if self.bend == "gradual" else min(self.knee, self.max_batch)

    def speed(self, running: int) -> float:
        """Tokens per second of each of `running` calls on a server."""
        if self.bend == "gradual":
            return self.decode_rate * self.knee / (self.knee + running - 1)
        return self.decode_rate * min(1.0, self.knee / running)

    @property
    def best(self) -> float:
        """Maximum decoding rate of a server, in tokens per second."""
        return self.full * self.speed(self.full)

    def forms(self, raters: int) -> list[FormModel]:
        """The form of each call of an episode, by its position."""
        return [self.draft, self.revise, *[self.observe] * 4, *[self.rate] * raters]


class Workload:
    """All calls of a run with their lengths, which do not depend on the order of work.

    Args:
        plan: the meetings of each round.
        engine: the distributions of lengths.
        seed: of the lengths.

    Attributes:
        raters: maximum number of raters of an episode.
        stride: calls per episode; the number of a call is ``episode * stride + position``.
        prompts: tokens of prompt by place.
        pauses: seconds that reading it in takes, by place.
        replies: tokens of reply [round, episode, place]; 0 where an episode has fewer raters.
    """

    def __init__(self, plan: Sequence[Sequence[Meeting]], engine: EngineModel, seed: int) -> None:
        self.plan = plan
        self.engine = engine
        self.per_round = len(plan[0])
        self.raters = max(len(meeting.peers) for round in plan for meeting in round)
        self.stride = RATE + self.raters
        forms = engine.forms(self.raters)
        self.prompts = [form.prompt + form.per_rater * self.raters for form in forms]
        self.pauses = [
            prompt * (1 - form.cached) / engine.prefill_rate
            for prompt, form in zip(self.prompts, forms, strict=True)
        ]
        self.replies = self._replies(forms, np.random.default_rng(seed_of(seed, "engine model")))
        longest = max(map(sum, zip(self.prompts, (form.max_tokens for form in forms), strict=True)))
        if longest > engine.kv_tokens:
            raise ValueError(f"kv_tokens: found {engine.kv_tokens}, a call may need {longest}")

    def _replies(self, forms: list[FormModel], draw: np.random.Generator) -> NDArray[np.int64]:
        shape = len(self.plan), self.per_round, self.stride
        spread = draw.standard_normal(shape) * [form.sigma for form in forms]
        tokens = np.rint(np.exp(spread) * [form.median for form in forms]).astype(np.int64)
        rated = np.array([[len(meeting.peers) for meeting in round] for round in self.plan])
        made = np.arange(self.stride) < RATE + rated[:, :, None]
        return np.where(made, np.clip(tokens, 1, [form.max_tokens for form in forms]), 0)

    @cached_property
    def members(self) -> list[NDArray[np.int64]]:
        """For each round the author and raters of each episode, padded with the author."""
        filler = [(self.raters - len(m.peers), m) for round in self.plan for m in round]
        rows = [(m.author, *m.peers, *(m.author,) * missing) for missing, m in filler]
        return list(np.array(rows).reshape(len(self.plan), self.per_round, -1))

    @cached_property
    def _output(self) -> list[int]:
        return self.replies.ravel().tolist()

    @property
    def servers(self) -> int:
        """Number of servers."""
        return self.engine.servers

    @property
    def max_batch(self) -> int:
        """Maximum number of running calls of a server."""
        return self.engine.max_batch

    @property
    def kv_tokens(self) -> int:
        """Capacity of a server's cache in tokens."""
        return self.engine.kv_tokens

    def speed(self, running: int) -> float:
        """Tokens per second of each of `running` calls on a server."""
        return self.engine.speed(running)

    def needs(self, call: int) -> Needs:
        """What a call needs."""
        position, steps = call % self.stride, self._output[call]
        return Needs(self.prompts[position] + steps, self.pauses[position], steps)

    def alone(self) -> Floats:
        """Seconds of each call [round, episode, position] on an otherwise idle server."""
        prefill = np.where(self.replies > 0, self.pauses, 0)
        return prefill + self.replies / self.engine.decode_rate


class Bounds(NamedTuple):
    """Two lower bounds of the time of a run, in seconds.

    Attributes:
        path: the longest chain of dependent calls, each as fast as if it ran alone. On one server
            decoding pauses during each prefill, so all prefills are added.
        work: all calls, on servers that are always full.
    """

    path: float
    work: float

    @property
    def oracle(self) -> float:
        """The larger bound: no order of work can be faster."""
        return max(self)


def bounds(load: Workload) -> Bounds:
    """Compute the lower bounds of a run's time."""
    engine = load.engine
    decode = load.replies / engine.decode_rate
    prefill = load.alone() - decode
    held = (load.replies + np.array(load.prompts)) * decode
    room = max(load.replies.sum() / engine.best, held.sum() / engine.kv_tokens)
    path = longest_path(load, load.alone())
    if engine.servers == 1:
        path = max(path, longest_path(load, decode) + float(prefill.sum()))
    return Bounds(path, float(prefill.sum() + room) / engine.servers)


def longest_path(load: Workload, seconds: Floats) -> float:
    """Compute the longest chain of dependent calls of a run.

    Args:
        load: the calls and their dependencies.
        seconds: the time of each call [round, episode, position].
    """
    settled = np.zeros(1 + max(int(members.max()) for members in load.members))
    end = 0.0
    for members, took in zip(load.members, seconds, strict=True):
        drafted = settled[members].max(axis=1) + took[:, DRAFT]
        revised = drafted + took[:, RATE:].max(axis=1, initial=0) + took[:, REVISE]
        scored = drafted + took[:, OBSERVE_DRAFT].max(axis=1)
        end = max(end, scored.max(), (revised + took[:, OBSERVE_REVISION].max(axis=1)).max())
        settled[members[:, 0]] = revised
    return float(end)


class Result(NamedTuple):
    """The result of a simulated run.

    Attributes:
        makespan: seconds until the end.
        calls: number of calls.
        tokens: number of reply tokens.
        busy: share of the servers' capacity that was used.
        starved: unused share of capacity while there were episodes left to start.
        tail: unused share of capacity after the last episode had started.
        waited: mean seconds that a call waited before it started.
        stretch: how many times as long as alone the calls took, waiting included, all together.
    """

    makespan: float
    calls: int
    tokens: int
    busy: float
    starved: float
    tail: float
    waited: float
    stretch: float


@dataclass
class _Open:
    """An episode in progress, with the number of pending ratings and scores."""

    planned: Planned
    ratings: int
    scores: int = 4


class Player:
    """Plays the episodes of a scheduler, as `sandbox.engine.runner` does.

    Args:
        work: the calls.
        engine: the simulated machine.
        scheduler: decides which episode may start.
        width: half of the number of episodes that may be open at once.
    """

    def __init__(self, work: Workload, engine: Engine, scheduler: Scheduler, width: int) -> None:
        self.idle_before_tail = 0.0
        self._engine = engine
        self._scheduler = scheduler
        self._stride = work.stride
        self._to_start = len(work.plan) * work.per_round
        self._width = 2 * width
        self._open: dict[int, _Open] = {}

    def play(self) -> Iterator[int]:
        """Play the run; yields calls as they finish."""
        self._start()
        while not self._scheduler.over:
            call = self._engine.next()
            number, place = divmod(call, self._stride)
            self._done(self._open[number], number * self._stride, place)
            yield call

    def _start(self) -> None:
        while len(self._open) < self._width:
            planned = self._scheduler.next()
            if planned is None:
                return
            self._open[planned.number] = _Open(planned, len(planned.meeting.peers))
            self._engine.submit(planned.number * self._stride + DRAFT)
            self._to_start -= 1
            if not self._to_start:
                self.idle_before_tail = self._engine.idle()

    def _done(self, episode: _Open, base: int, place: int) -> None:
        if place >= RATE:
            episode.ratings -= 1
            if not episode.ratings:
                self._engine.submit(base + REVISE)
        elif place == DRAFT:
            ratings = range(RATE, RATE + episode.ratings)
            self._submit(base, (*OBSERVE_DRAFT, *(ratings or (REVISE,))))
        elif place == REVISE:
            self._submit(base, OBSERVE_REVISION)
            self._scheduler.mark_played(episode.planned)
            self._start()
        else:
            self._scored(episode)

    def _submit(self, base: int, places: Sequence[int]) -> None:
        for place in places:
            self._engine.submit(base + place)

    def _scored(self, episode: _Open) -> None:
        episode.scores -= 1
        if not episode.scores:
            del self._open[episode.planned.number]
            self._scheduler.mark_complete(episode.planned)
            self._start()


def play_by_phases(work: Workload, engine: Engine) -> Iterator[int]:
    """All drafts of a round, then all ratings, then all revisions, then all scores."""
    phases = (DRAFT,), range(RATE, work.stride), (REVISE,), OBSERVE_DRAFT + OBSERVE_REVISION
    made = work.replies > 0
    for round in range(len(work.plan)):
        for places in phases:
            slots, which = np.nonzero(made[round][:, list(places)])
            numbers = round * work.per_round + slots
            calls = (numbers * work.stride + np.array(places, dtype=np.int64)[which]).tolist()
            for call in calls:
                engine.submit(call)
            for _ in calls:
                yield engine.next()


def simulate(
    work: Workload,
    order: Order = "out_of_order",
    max_in_flight: int = 1024,
    max_ahead: int = 4,
    keys: Sequence[float] | None = None,
) -> Result:
    """Simulate a run in virtual time.

    Args:
        work: its calls.
        order: `by_phases` is lock_step with a barrier between the phases of a round as well.
        max_in_flight: as in a config's `schedule`.
        max_ahead: as there.
        keys: dispatch priorities by number of call, lower first; None: the earliest episode.
    """
    engine = Engine(
        work, max_in_flight, keys.__getitem__ if keys else lambda call: call // work.stride
    )
    if order == "by_phases":
        calls = sum(1 for _ in play_by_phases(work, engine))
        return _result(work, engine, calls, engine.idle())
    schedule = Schedule(order=order, max_in_flight=max_in_flight, max_ahead=max_ahead)
    scheduler = Scheduler(schedule, work.plan.__getitem__, work.per_round, 0, len(work.plan))
    player = Player(work, engine, scheduler, max_in_flight)
    calls = sum(1 for _ in player.play())
    return _result(work, engine, calls, player.idle_before_tail)


def _result(work: Workload, engine: Engine, calls: int, idle_before_tail: float) -> Result:
    capacity = engine.now * work.engine.servers
    idle = engine.idle()
    return Result(
        makespan=engine.now,
        calls=calls,
        tokens=int(work.replies.sum()),
        busy=1 - idle / capacity,
        starved=idle_before_tail / capacity,
        tail=(idle - idle_before_tail) / capacity,
        waited=engine.waited() / calls,
        stretch=engine.took() / float(work.alone().sum()),
    )
