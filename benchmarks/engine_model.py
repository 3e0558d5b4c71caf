"""An engine in virtual time: how long would a society take on a server, in this order or that?

No model answers and nothing sleeps: lengths of prompts and replies are drawn from the seed, a
stand-in for servers with continuous batching says when each call is done, and the real
`sandbox.engine.scheduler.Scheduler` says what may start. All times are seconds of virtual time.

A call is read in (prefill), then it decodes. Reading in takes the whole server, and what decodes
there stands still meanwhile, as a step of an engine takes longer by what it reads in. Up to `knee`
calls decode at `decode_rate` each; beyond, their sum stays the same. All decode at one rate, so a
clock of tokens and a heap of the readings at which calls are done suffice for a server.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
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
from worlds.base import Meeting

Order = Literal["out_of_order", "lock_step", "by_phases"]
Floats = NDArray[np.float64]

# The calls of an episode, by their place in it; its ratings follow.
DRAFT, REVISE, OBSERVE_DRAFT, OBSERVE_REVISION, RATE = 0, 1, (2, 3), (4, 5), 6


class FormModel(BaseModel, extra="forbid", frozen=True):
    """How long the prompts and replies of a form are, in tokens.

    Attributes:
        prompt: length of a prompt.
        per_rater: what a rater of the episode adds to it.
        cached: share of the prompt that the server has read before (its prefix cache).
        median, sigma: the log-normal distribution of replies.
        max_tokens: where a reply is cut.
    """

    prompt: int = Field(ge=0)
    per_rater: int = Field(default=0, ge=0)
    cached: float = Field(default=0, ge=0, le=1)
    median: float = Field(gt=0)
    sigma: float = Field(default=0, ge=0)
    max_tokens: int = Field(ge=1)


class EngineModel(BaseModel, extra="forbid", frozen=True):
    """A machine and what it is asked.

    Attributes:
        servers: GPUs with a copy of the model each. A call goes to the one with the fewest calls
            and stays there, as behind the usual router; it cannot move, for its cache cannot.
        prefill_rate: tokens of prompt that a server reads in a second.
        decode_rate: tokens a second of one call, up to `knee` running ones.
        knee: calls on a server from which on the sum of their rates stays constant.
        bend: `gradual`: the sum only comes near to that of `knee` calls, and is half at `knee`.
        max_batch: calls that a server runs at once; others wait there, first come, first served.
        kv_tokens: tokens of prompt and reply that a server holds; a call that would not fit waits.
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
        """Calls at which a server decodes as fast as it can."""
        return self.max_batch if self.bend == "gradual" else min(self.knee, self.max_batch)

    def speed(self, running: int) -> float:
        """Tokens a second of each of so many calls on a server, at least one."""
        if self.bend == "gradual":
            return self.decode_rate * self.knee / (self.knee + running - 1)
        return self.decode_rate * min(1.0, self.knee / running)

    @property
    def best(self) -> float:
        """Tokens a second that a server decodes at most."""
        return self.full * self.speed(self.full)

    def forms(self, raters: int) -> list[FormModel]:
        """The form of each call of an episode, by its place in it."""
        return [self.draft, self.revise, *[self.observe] * 4, *[self.rate] * raters]


class Workload:
    """Every call of a run, with its lengths: the same ones in whatever order they are made.

    Args:
        plan: the meetings of each round.
        engine: how long prompts and replies are.
        seed: which lengths are drawn.

    Attributes:
        raters: the most that an episode has.
        stride: places for calls in an episode; a call's number is ``episode * stride + place``.
        prompts: tokens of prompt by place.
        prefill: seconds that reading it in takes, by place.
        output: tokens of reply [round, episode, place]; 0 where an episode has fewer raters.
    """

    def __init__(self, plan: Sequence[Sequence[Meeting]], engine: EngineModel, seed: int) -> None:
        self.plan = plan
        self.engine = engine
        self.per_round = len(plan[0])
        self.raters = max(len(meeting.peers) for round in plan for meeting in round)
        self.stride = RATE + self.raters
        forms = engine.forms(self.raters)
        self.prompts = [form.prompt + form.per_rater * self.raters for form in forms]
        self.prefill = [
            prompt * (1 - form.cached) / engine.prefill_rate
            for prompt, form in zip(self.prompts, forms, strict=True)
        ]
        self.output = self._replies(forms, np.random.default_rng(seed_of(seed, "engine model")))
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
        """By round: author and raters of each episode, filled up with the author."""
        filler = [(self.raters - len(m.peers), m) for round in self.plan for m in round]
        rows = [(m.author, *m.peers, *(m.author,) * missing) for missing, m in filler]
        return list(np.array(rows).reshape(len(self.plan), self.per_round, -1))

    def alone(self) -> Floats:
        """Seconds of each call [round, episode, place] on a server that does nothing else."""
        prefill = np.where(self.output > 0, self.prefill, 0)
        return prefill + self.output / self.engine.decode_rate


class Bounds(NamedTuple):
    """Two times that no schedule can beat, in seconds.

    Attributes:
        path: the longest chain of calls that wait for each other, each as fast as if it were alone.
            On one server nothing decodes while any prompt is read in, so there they all count.
        work: everything, on servers that are never less than full.
    """

    path: float
    work: float

    @property
    def oracle(self) -> float:
        """What an order of work that knew everything before could at best reach."""
        return max(self)


def bounds(load: Workload) -> Bounds:
    """The lower bounds of a run's time, whatever the order of work."""
    engine = load.engine
    decode = load.output / engine.decode_rate
    prefill = load.alone() - decode
    held = (load.output + np.array(load.prompts)) * decode
    room = max(load.output.sum() / engine.best, held.sum() / engine.kv_tokens)
    path = longest_path(load, load.alone())
    if engine.servers == 1:
        path = max(path, longest_path(load, decode) + float(prefill.sum()))
    return Bounds(path, float(prefill.sum() + room) / engine.servers)


def longest_path(load: Workload, seconds: Floats) -> float:
    """The longest chain through a run.

    Args:
        load: who waits for whom.
        seconds: of each call [round, episode, place].
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


class Server:
    """One copy of the model. `due` is when it will next be done with a call, in seconds.

    Attributes:
        idle: seconds of its full capacity that it has left unused.
        started: the sum of the times at which its calls were started.
    """

    def __init__(self, work: Workload, output: Sequence[int]) -> None:
        engine = work.engine
        self.due = math.inf
        self.idle = 0.0
        self.started = 0.0
        self._work = work
        self._output = output
        counts = range(engine.max_batch + 1)
        self._rates = [engine.speed(max(1, n)) for n in counts]  # of one call, with n running
        self._unused = [max(0.0, 1 - n * self._rates[n] / engine.best) for n in counts]
        self._clock = 0.0  # decoding is accounted for up to here; later than now: it stands still
        self._tokens = 0.0  # that a call running all the time would have decoded
        self._room = engine.kv_tokens
        self._running: list[tuple[float, int]] = []  # the reading of `_tokens` when done, call
        self._queue: deque[int] = deque()

    def add(self, call: int, now: float) -> None:
        """Take a call over."""
        self._queue.append(call)
        if len(self._queue) == 1:
            self._admit(now)

    def finish(self) -> int:
        """Move on to `due`, and be done with the call of that time."""
        now = self.due
        self.advance(now)
        self._tokens, call = heapq.heappop(self._running)
        self._room += self._size(call)
        self._admit(now)
        return call

    def advance(self, now: float) -> None:
        """Account for the time up to now."""
        passed = now - self._clock
        if passed > 0:
            running = len(self._running)
            self._tokens += passed * self._rates[running]
            self.idle += passed * self._unused[running]
            self._clock = now

    def _size(self, call: int) -> int:
        return self._work.prompts[call % self._work.stride] + self._output[call]

    def _admit(self, now: float) -> None:
        """Start those that fit, in the order in which they came."""
        queue, running = self._queue, self._running
        most = len(self._rates) - 1
        while queue and len(running) < most and (size := self._size(queue[0])) <= self._room:
            self.advance(now)
            call = queue.popleft()
            self._room -= size
            self.started += now
            self._clock += self._work.prefill[call % self._work.stride]
            heapq.heappush(running, (self._tokens + self._output[call], call))
        rest = running[0][0] - self._tokens if running else math.inf
        self.due = self._clock + rest / self._rates[len(running)]


class Engine:
    """The machine: a gate as that of `sandbox.engine.calls`, and servers behind it.

    Args:
        work: the calls.
        width: how many calls may be past the gate.
        keys: what goes first of the calls at the gate, the smallest; by the number of the call.
            None: the earliest episode, as in a run.
    """

    def __init__(self, work: Workload, width: int, keys: Sequence[float] | None = None) -> None:
        output = work.output.ravel().tolist()
        self.now = 0.0  # seconds
        self.servers = [Server(work, output) for _ in range(work.engine.servers)]
        self._keys = keys
        self._stride = work.stride
        self._free = width
        self._due = [math.inf] * work.engine.servers
        self._loads = [0] * work.engine.servers
        self._gate: list[tuple[float, int, int]] = []
        self._arrivals = 0
        self._submitted = 0.0  # the sum of the times at which calls were submitted
        self._finished = 0.0  # the sum of the times at which they were done

    def waited(self) -> float:
        """Seconds that calls have waited before they were started, in all, once all are done."""
        return sum(server.started for server in self.servers) - self._submitted

    def took(self) -> float:
        """Seconds that calls have taken, waiting included, in all, once all are done."""
        return self._finished - self._submitted

    def idle(self) -> float:
        """Seconds of a server's full capacity that were left unused until now, in all."""
        for server in self.servers:
            server.advance(self.now)
        return sum(server.idle for server in self.servers)

    def submit(self, call: int) -> None:
        """Have a call made, once it is its turn."""
        self._submitted += self.now
        if self._free:
            self._free -= 1
            self._route(call)
            return
        self._arrivals += 1
        key = self._keys[call] if self._keys else call // self._stride
        heapq.heappush(self._gate, (key, self._arrivals, call))

    def _route(self, call: int) -> None:
        loads = self._loads
        at = loads.index(min(loads))
        loads[at] += 1
        self.servers[at].add(call, self.now)
        self._due[at] = self.servers[at].due

    def next(self) -> int:
        """Move on to when the next call is done, and say which it is."""
        self.now = min(self._due)
        at = self._due.index(self.now)
        call = self.servers[at].finish()
        self._due[at] = self.servers[at].due
        self._loads[at] -= 1
        self._finished += self.now
        if self._gate:
            self._route(heapq.heappop(self._gate)[-1])
        else:
            self._free += 1
        return call


class Result(NamedTuple):
    """How a run went.

    Attributes:
        makespan: seconds until everything was done.
        calls: calls made.
        tokens: tokens of reply.
        busy: share of the servers' capacity that was used.
        starved: share of it that was left unused while there were episodes yet to start.
        tail: the same after the last one had started.
        waited: seconds that a call waited before it was started, on average.
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
    """An episode that is being played: what it still waits for."""

    planned: Planned
    ratings: int
    scores: int = 4


class Player:
    """Plays the episodes that a scheduler hands out, as `sandbox.engine.runner` does.

    Args:
        work: the calls.
        engine: who makes them.
        scheduler: which episode may start.
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
        """Play everything; yields calls as they are done."""
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
            self._scheduler.settled(episode.planned)
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
            self._scheduler.observed(episode.planned)
            self._start()


def play_by_phases(work: Workload, engine: Engine) -> Iterator[int]:
    """All drafts of a round, then all ratings, then all revisions, then all scores."""
    phases = (DRAFT,), range(RATE, work.stride), (REVISE,), OBSERVE_DRAFT + OBSERVE_REVISION
    made = work.output > 0
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
    """Play a run in virtual time.

    Args:
        work: its calls.
        order: `by_phases` is lock_step with a barrier between the phases of a round as well.
        max_in_flight: as in a config's `schedule`.
        max_ahead: as there.
        keys: as in `Engine`.
    """
    engine = Engine(work, max_in_flight, keys)
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
        tokens=int(work.output.sum()),
        busy=1 - idle / capacity,
        starved=idle_before_tail / capacity,
        tail=(idle - idle_before_tail) / capacity,
        waited=engine.waited() / calls,
        stretch=engine.took() / float(work.alone().sum()),
    )
