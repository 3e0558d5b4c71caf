"""Working on a run: episodes are started as they become ready, and played side by side."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select

from agents.forms import Form
from sandbox.backends.base import Backend
from sandbox.concurrency import Gate
from sandbox.config import Config
from sandbox.engine.calls import Caller, Speaker
from sandbox.engine.episode import PlayedEpisode
from sandbox.engine.journal import Journal
from sandbox.engine.layers import Layer, layered
from sandbox.engine.limits import UNLIMITED, Budget, Limiter, Stopped
from sandbox.engine.roles import roles_of
from sandbox.engine.scheduler import Planned, Scheduler
from sandbox.engine.society import read_society
from sandbox.engine.stopping import ParetoRule, pareto_rule
from sandbox.progress import Clock, Progress
from storage import tables
from storage.reader import Reader
from storage.writer import Writer


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for cyclic garbage less often, and not in the society, which lives to the end.

    In a society of 10,000 the usual thresholds cost a fifth of the time of a call.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


class Runner:
    """Works on a run that is in the database, until it is over or has to stop.

    Args:
        reader: the run, as it stands.
        writer: writes it.
        backends: who answers in each role.
        journal: the calls that are there already.
        budget: what this sitting may spend.
        before: seconds at work in earlier sittings.
        layers: further layers that calls go through; see `sandbox.engine.layers`.
        config: the run's config, if its caller has loaded files that it names.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        backends: Mapping[str, Backend],
        journal: Journal,
        budget: Budget = UNLIMITED,
        before: float = 0.0,
        layers: Sequence[Layer] = (),
        config: Config | None = None,
    ) -> None:
        config = config or Config.from_json(reader.run.config)
        self.config = config
        self.reader = reader
        self.writer = writer
        self.clock = Clock(before=before)
        self.backends = backends
        self._world = config.build_world()
        self._society = read_society(reader, config.memory.limit)
        self._forms = {
            row.name: Form(row.name, row.system, row.template, self._shape(row.name))
            for row in self._form_rows()
        }
        self._limiter = Limiter(budget, self.clock)
        self._caller = self._make_caller(journal, layers)
        self._done = self._recorded_episodes()
        self._scheduler = self._make_scheduler()
        self._stop = pareto_rule(config.stop, self._world) if config.stop else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] | None = None
        self.progress = Progress(
            config.name,
            len(self._society.agents),
            config.rounds,
            config.rounds * reader.run.per_round,
            self._limiter.counts,
            self.clock,
            episodes=sum(self._done.values()),
        )

    def _form_rows(self) -> list[Any]:
        f = tables.forms
        query = select(f).where(f.c.run_id == self.reader.run.id).order_by(f.c.id)
        return list(self.reader.rows(query))

    def _shape(self, name: str) -> Any:
        return next(form.reply for form in self._world.forms if form.name == name)

    def _make_caller(self, journal: Journal, layers: Sequence[Layer]) -> Caller:
        m = tables.models
        rows = self.reader.rows(select(m).where(m.c.run_id == self.reader.run.id))
        ids = {row.role: row.id for row in rows}
        gate = Gate(self.config.schedule.max_in_flight)
        jitter = random.Random(self.config.seed)
        speakers = {
            role: Speaker(
                layered(
                    self.backends[role],
                    settings,
                    journal,
                    self.writer.delete_call,
                    gate,
                    self._limiter,
                    jitter,
                    layers,
                ),
                ids[role],
                settings.max_tokens,
                settings.temperature,
            )
            for role, settings in self.config.models.roles()
        }
        agents = [speakers[role] for role in roles_of(self.config, self._society.agents)]
        return Caller(
            seed=self.config.seed,
            writer=self.writer,
            forms={row.name: row.id for row in self._form_rows()},
            speakers=lambda agent: speakers["social"] if agent is None else agents[agent],
            observer=speakers["observer"],
            journal=journal,
            counts=self._limiter.counts,
        )

    def _recorded_episodes(self) -> dict[int, bool]:
        """Episode number: whether it is complete, observations included."""
        e = tables.episodes
        query = select(e.c.id, e.c.observed).where(self.reader.belongs_to_run(e.c.id))
        return {row.id - self.reader.base: row.observed for row in self.reader.rows(query)}

    def _make_scheduler(self) -> Scheduler:
        per_round = self.reader.run.per_round
        complete = [0] * self.config.rounds
        for number, observed in self._done.items():
            complete[number // per_round] += observed
        start = next((r for r, n in enumerate(complete) if n < per_round), self.config.rounds)
        meet = self._world.meet
        return Scheduler(
            self.config.schedule,
            lambda round: meet(self._society.agents, round),
            per_round,
            start,
            self.config.rounds,
        )

    async def work(self) -> None:
        """Play every episode that is not complete.

        Raises:
            BackendDown: the model, or the database, is gone.
            InputError: the journal does not fit the run any more.
            Stopped: the budget is spent, or `stop` was called.
            asyncio.CancelledError: the caller wants it to stop.
        """
        self._over = asyncio.get_running_loop().create_future()
        self._restore_stop()
        try:
            with _rare_collections():
                self._start_episodes()
                await self._over
        finally:
            await self._cancel()

    def _restore_stop(self) -> None:
        if self._stop is None:
            return
        e, o = tables.episodes, tables.observations
        query = (
            select(e.c.round, o.c.stage, o.c.scale, func.sum(o.c.rating), func.count(o.c.rating))
            .join(o, o.c.episode_id == e.c.id)
            .where(self.reader.belongs_to_run(e.c.id), o.c.rating.is_not(None))
            .group_by(e.c.round, o.c.stage, o.c.scale)
        )
        for round, stage, scale, total, count in self.reader.rows(query):
            self._stop.score(round, stage, scale, float(total), count)
        for round in range(self._scheduler.floor):
            self._stop.round_over(round)
        self._apply_stop(self._stop)

    def _apply_stop(self, stop: ParetoRule) -> None:
        self._scheduler.horizon = stop.horizon
        if stop.stopped_after is not None:
            self._scheduler.end = min(self._scheduler.end, stop.stopped_after + 1)

    def _start_episodes(self) -> None:
        over = self._over
        if over is None or over.done() or self._limiter.stopping:
            return
        while len(self._tasks) < 2 * self._width:
            planned = self._scheduler.next()
            if planned is None:
                break
            self._start(planned)
        if self._scheduler.over:
            over.set_result(None)

    @property
    def _width(self) -> int:
        return self.config.schedule.max_in_flight

    def _start(self, planned: Planned) -> None:
        self.progress.round = max(self.progress.round, planned.round + 1)
        recorded = self._done.get(planned.number)
        if recorded is not None:
            self._scheduler.settled(planned)
        if recorded:
            self._complete(planned)
            return
        task = asyncio.create_task(self._play(planned, recorded is not None))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def _play(self, planned: Planned, recorded: bool) -> None:
        journal = self._caller.journal
        journal.open(planned.number)
        episode = PlayedEpisode(
            planned,
            self._world,
            self._society,
            self._caller,
            self.writer,
            self._forms,
            self.config.attempts,
            recorded,
        )
        try:
            await episode.play()
            if not recorded:
                self._scheduler.settled(planned)
                self._start_episodes()
            await episode.observed()
        except Stopped:
            await episode.drain()
            raise
        finally:
            episode.cancel()
            journal.close(planned.number)
        self._observed(planned, episode)

    def _observed(self, planned: Planned, episode: PlayedEpisode) -> None:
        self.progress.episodes += 1
        if self._stop is not None:
            for stage, scale, rating in episode.scores():
                self._stop.score(planned.round, stage, scale, rating)
        self._complete(planned)

    def _complete(self, planned: Planned) -> None:
        if not self._scheduler.observed(planned):
            return
        if self._stop is not None:
            self._stop.round_over(planned.round)
            self._apply_stop(self._stop)
        for agent in self._society.agents:
            agent.memory.prune(self._scheduler.over_before)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        over = self._over
        error = None if task.cancelled() else task.exception()
        if over is None or over.done() or task.cancelled():
            return
        if error is not None and not isinstance(error, Stopped):
            over.set_exception(error)
        else:
            self._go_on(over)

    def _go_on(self, over: asyncio.Future[None]) -> None:
        self._start_episodes()
        if self._limiter.stopping and not self._tasks and not over.done():
            over.set_exception(Stopped(self._limiter.stopping))

    def stop(self, reason: str) -> None:
        """Make no further call; `work` ends once those under way are in the journal."""
        self._limiter.stop(reason)
        self.progress.stopping = True
        if self._over is not None and not self._over.done():
            self._go_on(self._over)

    @property
    def ended_early(self) -> str | None:
        """Why the run has fewer rounds than asked for, if it has."""
        last = self._stop.stopped_after if self._stop else None
        if self._stop is None or last is None or last + 1 >= self.config.rounds:
            return None
        return f"stopped after round {last}: {' x '.join(self._stop.names)} no longer rises"

    async def flush(self) -> None:
        """Commit what is still waiting to be written."""
        await self._caller.flush()

    async def _cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
