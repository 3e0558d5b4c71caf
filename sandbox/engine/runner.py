"""The main loop of a session: start episodes when they are ready, play them concurrently."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy.exc import DBAPIError

from agents.forms import Form
from agents.shapes import Line
from agents.stops import Stops, template_stops
from sandbox.backends.base import Backend, ModelSettings
from sandbox.concurrency import Gate
from sandbox.config import Config
from sandbox.engine.bounds import Bounds
from sandbox.engine.calls import Caller, RoleModel
from sandbox.engine.episode import PlayedEpisode
from sandbox.engine.health import Health
from sandbox.engine.journal import Journal
from sandbox.engine.layers import Layer, layered
from sandbox.engine.limits import UNLIMITED, Budget, Limiter, Stopped
from sandbox.engine.roles import roles_of
from sandbox.engine.scheduler import Planned, Scheduler
from sandbox.engine.society import Society
from sandbox.engine.state import RunState, read_state
from sandbox.engine.stopping import pareto_rule
from sandbox.engine.world_faults import checked, reported
from sandbox.environment import environment_of
from sandbox.failing import token_limits
from sandbox.progress import Clock, Progress, waiting_json
from storage.errors import StorageFault
from storage.reader import Reader
from storage.writer import Writer
from worlds.base import Meeting

_TELL_SECONDS = 2.0


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Run the garbage collector less often, and exclude the society, which lives to the end.

    With the default thresholds and 10,000 agents, it takes a fifth of the time of a call.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _stops(forms: Mapping[str, Form[Any]]) -> dict[str, Stops]:
    """The stop strings of prose and lines, by prompt template: other replies end by their form."""
    templates = [form.user for form in forms.values()]
    return {
        name: template_stops(form.user, templates)
        for name, form in forms.items()
        if form.reply.regex is None or isinstance(form.reply, Line)
    }


class Runner:
    """Plays a run from its stored state until it is complete or has to stop.

    Args:
        state: the run as it is stored.
        writer: writes the run's rows.
        backends: the backend of each role.
        journal: the calls of earlier sessions.
        budget: limits of this session.
        before: seconds spent in earlier sessions.
        layers: additional layers around calls; see `sandbox.engine.layers`.

    Attributes:
        config, world, society: those of the run.
        backends: the backend of each role.
        clock: the time spent on the run.
        progress: updated while the run is played.
    """

    def __init__(
        self,
        state: RunState,
        writer: Writer,
        backends: Mapping[str, Backend],
        journal: Journal,
        *,
        budget: Budget = UNLIMITED,
        before: float = 0.0,
        layers: Sequence[Layer] = (),
    ) -> None:
        self.config = state.config
        self.world = state.world
        self.society = state.society
        self.backends = backends
        self.clock = Clock(before=before)
        self._state = state
        self._bounds = None if state.policy is None else Bounds(state.policy)
        self._writer = writer
        self._limiter = Limiter(budget, self.clock)
        self._caller = self._make_caller(journal, layers)
        self._scheduler = self._make_scheduler()
        self._stop_rule = pareto_rule(self.config.stop, self.world) if self.config.stop else None
        self._restore_stop_rule()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._working = False
        self.progress = Progress(
            self.config.name,
            len(self.society.agents),
            self.config.rounds,
            self.config.rounds * state.per_round,
            self._limiter.counts,
            self.clock,
            limits=token_limits(self.config.model_dump(mode="json")),
            episodes=sum(state.recorded.values()),
            episodes_failed=state.failed,
        )

    @classmethod
    def load(
        cls,
        reader: Reader,
        writer: Writer,
        backends: Mapping[str, Backend],
        journal: Journal,
        *,
        budget: Budget = UNLIMITED,
        before: float = 0.0,
        layers: Sequence[Layer] = (),
        config: Config | None = None,
    ) -> Runner:
        """Read the state of a run and make its runner.

        Args:
            reader: the run.
            writer: writes the run's rows.
            backends: the backend of each role.
            journal: the calls of earlier sessions.
            budget: limits of this session.
            before: seconds spent in earlier sessions.
            layers: additional layers around calls; see `sandbox.engine.layers`.
            config: the run's config, if the caller has loaded files that it names.
        """
        state = read_state(reader, config or Config.from_json(reader.run.config))
        return cls(state, writer, backends, journal, budget=budget, before=before, layers=layers)

    def _make_caller(self, journal: Journal, layers: Sequence[Layer]) -> Caller:
        gate = Gate(self.config.schedule.max_in_flight)
        jitter = random.Random(self.config.seed)
        shared: dict[tuple[int, str], Health] = {}

        def health(role: str, settings: ModelSettings) -> Health:
            backend = self.backends[role]
            key = (id(backend), settings.model_dump_json())
            return shared.setdefault(key, Health(backend, settings))

        models = {
            role: RoleModel(
                layered(
                    health(role, settings),
                    journal,
                    self._writer.delete_call,
                    gate,
                    self._limiter,
                    jitter,
                    layers,
                ),
                self._state.model_ids[role],
                settings.max_tokens,
                settings.temperature,
                None if settings.stop is None else Stops(settings.stop),
            )
            for role, settings in self.config.models.roles()
        }
        of_agents = [models[role] for role in roles_of(self.config, self.society.agents)]
        return Caller(
            seed=self.config.seed,
            writer=self._writer,
            forms=self._state.form_ids,
            stops=_stops(self._state.forms),
            shorten=self.config.truncated == "sentence",
            models=lambda agent: models["social"] if agent is None else of_agents[agent],
            observer=models["observer"],
            journal=journal,
            counts=self._limiter.counts,
        )

    def _make_scheduler(self) -> Scheduler:
        per_round, rounds = self._state.per_round, self.config.rounds
        complete = [0] * rounds
        for number, observed in self._state.recorded.items():
            complete[number // per_round] += observed
        start = next((r for r, count in enumerate(complete) if count < per_round), rounds)
        return Scheduler(
            self.config.schedule,
            self._meetings,
            per_round,
            start,
            rounds,
        )

    def _restore_stop_rule(self) -> None:
        if self._stop_rule is None:
            return
        for sums in self._state.rating_sums:
            self._stop_rule.score(*sums)
        for round in range(self._scheduler.first_unplayed):
            self._stop_rule.mark_complete(round)
        self._apply_stop_rule()

    def _apply_stop_rule(self) -> None:
        """Pass the rule's decisions on to the scheduler."""
        if self._stop_rule is None:
            return
        self._scheduler.horizon = self._stop_rule.horizon
        if self._stop_rule.stopped_after is not None:
            self._scheduler.end = min(self._scheduler.end, self._stop_rule.stopped_after + 1)

    def _meetings(self, round: int) -> Sequence[Meeting]:
        kind, agents = self.config.world.kind, self.society.agents
        with reported(kind, f"meet, round {round}"):
            meetings = list(self.world.meet(agents, round))
        return checked(meetings, kind, round, self._state.per_round, len(agents))

    async def work(self) -> None:
        """Play every episode that is not complete.

        Raises:
            BackendDown: a model or the database is no longer available.
            InputError: the journal does not match the run.
            Stopped: the budget is spent, or `stop` was called.
            asyncio.CancelledError: the caller cancelled it.
        """
        self._working = True
        describing = asyncio.create_task(self._tell_environment())
        telling = asyncio.create_task(self._tell_waiting())
        try:
            with _rare_garbage_collection():
                self._start_ready_episodes()
                while not self._scheduler.over:
                    if not self._tasks:
                        raise Stopped(self._limiter.stopping or "no episode can start")
                    await self._wait_for_progress()
                    self._start_ready_episodes()
        finally:
            telling.cancel()
            await self._cancel()
            await asyncio.gather(describing, telling, return_exceptions=True)

    async def _tell_environment(self) -> None:
        """Store with the session what it is played with."""
        if self._caller.journal.copy:
            return
        found = await environment_of(self.backends)
        with suppress(DBAPIError, StorageFault):
            self._writer.store_environment(json.dumps(found, ensure_ascii=False))

    async def _tell_waiting(self) -> None:
        """Store every few seconds what the session waits for, for those who look at the run."""
        told = None
        try:
            while not self._caller.journal.copy:
                await asyncio.sleep(_TELL_SECONDS)
                waiting = waiting_json(self._limiter.counts.waiting())
                if waiting != told:
                    self._writer.store_waiting(waiting)
                    told = waiting
        except (DBAPIError, StorageFault):
            pass  # the next commit of a call reports that the database cannot be written
        finally:
            if told is not None:
                with suppress(DBAPIError, StorageFault):
                    self._writer.store_waiting(None)

    def _start_ready_episodes(self) -> None:
        while not self._limiter.stopping and len(self._tasks) < 2 * self._max_in_flight:
            planned = self._scheduler.next()
            if planned is None:
                return
            self._start(planned)

    @property
    def _max_in_flight(self) -> int:
        return self.config.schedule.max_in_flight

    async def _wait_for_progress(self) -> None:
        """Wait until an episode has been played or has ended, or the run is to stop."""
        await self._wake.wait()
        self._wake.clear()
        if self._failure is not None:
            raise self._failure

    def _start(self, planned: Planned) -> None:
        """Start an episode, or skip it if it is complete already."""
        self.progress.round = max(self.progress.round, planned.round + 1)
        recorded = planned.number in self._state.recorded
        if recorded:
            self._scheduler.mark_played(planned)
        if self._state.recorded.get(planned.number):
            self._mark_complete(planned)
            return
        task = asyncio.create_task(self._play(planned, recorded))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _play(self, planned: Planned, recorded: bool) -> None:
        """Play a scheduled episode, and report to the scheduler and the stopping rule."""

        def on_played() -> None:
            if not recorded:
                self._scheduler.mark_played(planned)
                self._start_ready_episodes()

        episode = await self.play_episode(planned, recorded=recorded, on_played=on_played)
        self.progress.end(planned.number, episode.failed_at)
        if self._stop_rule is not None:
            for stage, scale, rating in episode.scores():
                self._stop_rule.score(planned.round, stage, scale, rating)
        self._mark_complete(planned)

    async def play_episode(
        self,
        planned: Planned,
        society: Society | None = None,
        *,
        recorded: bool = False,
        on_played: Callable[[], None] = lambda: None,
    ) -> PlayedEpisode:
        """Play one episode and wait for its observations.

        Args:
            planned: the episode.
            society: the agents as they take part in it; the run's own by default.
            recorded: the episode is stored already, and only observations may be missing.
            on_played: called before the observations are waited for.
        """
        journal = self._caller.journal
        await journal.open(planned.number)
        episode = PlayedEpisode(
            planned,
            self.world,
            society or self.society,
            self._caller,
            self._writer,
            self._state.forms,
            self.config.attempts,
            recorded,
            bounds=self._bounds,
        )
        try:
            await episode.play()
            on_played()
            await episode.finish_observations()
            for call_id in journal.superfluous(planned.number):
                self._writer.delete_call(call_id)
        except Stopped:
            await episode.drain()
            raise
        finally:
            episode.cancel()
            journal.close(planned.number)
        return episode

    def _mark_complete(self, planned: Planned) -> None:
        round_complete = self._scheduler.mark_complete(planned)
        if not round_complete:
            return
        if self._stop_rule is not None:
            self._stop_rule.mark_complete(planned.round)
            self._apply_stop_rule()
        for agent in self.society.agents:
            agent.memory.prune(self._scheduler.first_incomplete)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Handle the end of an episode's task: complete, stopped or failed."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Stopped):
            self._failure = self._failure or error
        self._wake.set()

    def interrupt(self) -> bool:
        """Stop because of a signal; returns False if `work` has not begun, and need not end."""
        if self._working:
            self.stop("interrupted")
        return self._working

    def close(self) -> None:
        """Write what is waiting to be written, and nothing more, even if a task does not end."""
        self._writer.close()

    def stop(self, reason: str) -> None:
        """Send no further call; `work` ends once the calls in flight are journalled."""
        self._limiter.stop(reason)
        self.progress.stopping = True
        self._wake.set()

    @property
    def ended_early(self) -> str | None:
        """Why the run ended before its last round; None if it did not."""
        last = self._stop_rule.stopped_after if self._stop_rule else None
        if self._stop_rule is None or last is None or last + 1 >= self.config.rounds:
            return None
        return f"stopped after round {last}: {' x '.join(self._stop_rule.names)} no longer rises"

    def check(self) -> None:
        """Raise Stopped if no call may be sent, so that no backend has to start."""
        self._limiter.check()

    async def flush(self) -> None:
        """Commit everything that is waiting to be written."""
        await self._caller.flush()

    async def _cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
