"""Playing a sweep: runs side by side in workers, those with equal engines in one.

The databases hold all that a sweep has done: it goes on by playing the runs that are not done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby

from sandbox.backends.replicas import cluster
from sandbox.interrupts import run_coroutine
from sandbox.reading.runs import open_run, outcome, status_now
from sandbox.sweep.plan import (
    NOT_CREATED,
    Plan,
    PlannedRun,
    changed_settings,
    check_ready,
    created,
    writing_to,
)
from sandbox.sweep.processes import ProcessWorker
from sandbox.sweep.progress import PLAYING, WAITING, Played, RunProgress, SweepProgress
from sandbox.sweep.ray_workers import RayWorker, connect
from sandbox.sweep.results import EngineUse, Sweep, SweepRun
from sandbox.sweep.worker import Job
from storage.database import absolute, claim, place_of, writing
from storage.files import locked
from storage.secrets import hide_secrets

RunWorker = ProcessWorker | RayWorker
"""Plays runs somewhere: both kinds have the same methods."""

SweepWatch = Callable[[SweepProgress], None]
"""Called once with the progress of a sweep before it starts."""


def run_sweep(plan: Plan, watch: SweepWatch = lambda _: None) -> Sweep:
    """Play all runs of a study that are not done; a run that is done stays as it is.

    At the first signal the runs stop after their calls in flight; a second one stops at once.

    Args:
        plan: the study.
        watch: called once with the progress.

    Returns:
        The sweep; its status says whether all runs are done.

    Raises:
        InputError: another process plays the study, an input is invalid, or the study says
            something else than a stored run.
        KeyboardInterrupt: a second signal stopped it at once.
    """
    with _locked(plan):
        states = states_of(plan)
        todo = [run for run in plan.runs if states[run.name].status != "done"]
        jobs = {run.name: _job(plan, run, states[run.name].status) for run in plan.runs}
        if plan.settings.on == "ray":
            connect(plan.settings.ray, plan.source)
        check_ready(todo, plan.source)
        progress = SweepProgress(
            plan.settings.name,
            {
                name: RunProgress("done" if state.status == "done" else WAITING)
                for name, state in states.items()
            },
        )
        watch(progress)
        playing = _Playing(plan, progress, jobs)
        run_coroutine(playing.play(todo), playing.stop)
        return _result(plan, progress, playing.engines)


@contextmanager
def _locked(plan: Plan) -> Iterator[None]:
    """Lock the study, so that two sweeps never play it at once."""
    with ExitStack() as stack:
        if plan.url is None:
            folder = absolute(plan.place)
            with writing_to(plan, folder):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder / "sweep", f"{plan.source}: {folder}"))
        else:
            engine = stack.enter_context(writing(plan.url))
            stack.enter_context(claim(engine, f"sweep {plan.settings.name}"))
        yield


def states_of(plan: Plan) -> dict[str, SweepRun]:
    """The runs of a study as they are stored, by name, in the order of the study."""
    there = created(plan)
    return {run.name: _state(run, run.name in there) for run in plan.runs}


def _state(run: PlannedRun, is_created: bool) -> SweepRun:
    place = place_of(run.address.url)
    if not is_created:
        return SweepRun(run=run.name, db=place, settings=run.own, status=NOT_CREATED)
    with open_run(run.address) as reader:
        known = outcome(reader, run.address)
        status = status_now(reader, run.address.url)
    return SweepRun(
        run=run.name,
        db=place,
        settings=run.own,
        status=status,
        message=known.message,
        episodes=known.episodes,
        episodes_failed=known.episodes_failed,
        calls=known.calls,
        calls_failed=known.calls_failed,
        seconds=known.seconds,
        digest=known.digest,
        warnings=known.warnings,
    )


def _job(plan: Plan, run: PlannedRun, status: str) -> Job:
    """What a worker is told of a run; a stored one must be as the study says."""
    changes = [] if status == NOT_CREATED else changed_settings(plan, run)
    return Job(run.name, run.db, run.config.as_json(), changes, [str(file) for file in run.files()])


class _Playing:
    """Plays the runs of a sweep in workers.

    Attributes:
        engines: how busy the shared engines of the workers were that have ended.
    """

    def __init__(self, plan: Plan, progress: SweepProgress, jobs: Mapping[str, Job]) -> None:
        self._plan, self._progress, self._jobs = plan, progress, jobs
        self._workers: set[RunWorker] = set()
        self.engines: list[EngineUse] = []

    async def play(self, todo: Sequence[PlannedRun]) -> None:
        """Play runs: first those without shared engines, then those of each set of engines."""
        try:
            await self._play_all(todo)
        finally:
            if self._plan.settings.on == "ray":
                await cluster.release()

    async def _play_all(self, todo: Sequence[PlannedRun]) -> None:
        ordered = sorted(todo, key=lambda run: run.engines)
        for engines, runs in groupby(ordered, key=lambda run: run.engines):
            await self._play_together(deque(runs), shared=bool(engines))

    async def _play_together(self, todo: deque[PlannedRun], shared: bool) -> None:
        """Play runs side by side: in one worker if they share engines, else in one each."""
        count = min(len(todo), self._plan.settings.side_by_side)
        workers = 1 if shared else count
        slots = [_Slot(self._start) for _ in range(workers)] * (count // workers)
        try:
            async with asyncio.TaskGroup() as group:
                for slot in slots:
                    group.create_task(self._play_one_by_one(todo, slot))
        finally:
            for uses in await asyncio.gather(*(slot.end() for slot in set(slots))):
                self.engines += uses

    async def _play_one_by_one(self, todo: deque[PlannedRun], slot: _Slot) -> None:
        while todo and not self._progress.stopping:
            run = todo.popleft()
            one = self._progress.runs[run.name]
            one.status = PLAYING
            end = await (await slot.worker()).play(self._jobs[run.name])
            one.played = Played(*end["played"])
            one.status, one.message = end["status"], end["message"]
            if one.status != "failed" or one.retried == self._plan.settings.retries:
                continue
            if not self._progress.stopping:
                one.status, one.retried = WAITING, one.retried + 1
                one.calls_before, one.played = one.calls, Played()
                todo.append(run)

    async def _start(self) -> RunWorker:
        kind = RayWorker if self._plan.settings.on == "ray" else ProcessWorker
        worker: RunWorker = await kind.start(self._tell)
        self._workers.add(worker)
        if self._progress.stopping:
            worker.stop()
        return worker

    def _tell(self, name: str, played: Played) -> None:
        self._progress.runs[name].played = played

    def stop(self) -> bool:
        """Begin no further run, and let those that are played stop after the calls in flight."""
        self._progress.stopping = True
        for worker in self._workers:
            worker.stop()
        return True


class _Slot:
    """Where runs are played one after another, or several at once: a worker, replaced if it dies.

    Args:
        start: starts a worker.
    """

    def __init__(self, start: Callable[[], Awaitable[RunWorker]]) -> None:
        self._start = start
        self._worker: RunWorker | None = None
        self._lock = asyncio.Lock()

    async def worker(self) -> RunWorker:
        """The worker, which is started if there is none that lives."""
        async with self._lock:
            if self._worker is None or not self._worker.alive:
                self._worker = await self._start()
            return self._worker

    async def end(self) -> list[EngineUse]:
        """End the worker, and say how busy its engines were."""
        return [] if self._worker is None else await self._worker.end()


def _result(plan: Plan, progress: SweepProgress, engines: Sequence[EngineUse]) -> Sweep:
    runs = []
    for run in states_of(plan).values():
        one = progress.runs[run.run]
        message = one.message if one.status == "failed" else run.message
        status = "failed" if one.status == "failed" else run.status
        runs.append(replace(run, status=status, message=message, retried=one.retried))
    good = all(run.good for run in runs)
    return Sweep(
        name=plan.settings.name,
        place=hide_secrets(plan.place),
        status="interrupted" if progress.stopping else "done" if good else "failed",
        runs=runs,
        engines=engines,
        seconds=round(progress.seconds, 3),
        calls=progress.calls,
    )
