"""A backend that spreads calls over replicas.

Calls of one episode go to one replica, whose prefix cache then has what they share, unless that
replica is much busier than another. Calls that wait for one replica are sent together. A replica
that dies is started again; its calls are unavailable, so that the layers above ask them again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from agents.plugins import exception_line
from sandbox.backends.addresses import SPARE_CALLS
from sandbox.backends.base import (
    Backend,
    BackendDown,
    Call,
    CallFailed,
    ModelSettings,
    Reply,
    Resting,
    Unavailable,
)
from sandbox.backends.replicas.host import Died, Host, Placement
from sandbox.backends.replicas.messages import Result, decode_results, encode_batch
from sandbox.backends.replicas.processes import Processes
from sandbox.backends.replicas.server import Started
from storage.errors import InputError

REST_SECONDS = 1.0
"""How long a call waits before it looks again for a replica, where all are being started."""

_TELL_SECONDS = 10.0

_log = logging.getLogger(__name__)


class State(Enum):
    """What a replica does."""

    WAITING = auto()  # for its place
    LOADING = auto()
    READY = auto()
    LOST = auto()


class Replica:
    """A replica as the pool sees it: its state, and the calls that it has.

    Args:
        number: its number, from 0.
        host: how it is reached.

    Attributes:
        number, host: the same.
        state: what it does.
        started: what it has told of itself; None before it is ready.
        error: why it is lost.
        in_flight: what its callers wait for, by the number of the call.
    """

    def __init__(self, number: int, host: Host) -> None:
        self.number = number
        self.host = host
        self.state = State.WAITING
        self.started: Started | None = None
        self.error: BackendDown | InputError | None = None
        self.in_flight: dict[int, asyncio.Future[Reply]] = {}
        self._waiting: dict[int, Call] = {}
        self._cancelled: list[int] = []
        self._wake = asyncio.Event()

    async def ask(self, number: int, call: Call) -> Reply:
        """Send a call with the next batch, and wait for its reply.

        Args:
            number: of the call, not used before.
            call: the call.

        Raises:
            Exception: what the backend of the replica raised, or `fail` was given.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.in_flight[number] = future
        self._waiting[number] = call
        self._wake.set()
        try:
            return await future
        except asyncio.CancelledError:
            if self._waiting.pop(number, None) is None:
                self._cancelled.append(number)
                self._wake.set()
            raise
        finally:
            self.in_flight.pop(number, None)

    async def exchange(self) -> None:
        """Send calls and hand out results.

        Raises:
            Died: the process of the replica has ended.
            BackendDown: its backend can answer no further call.
        """
        sending = asyncio.ensure_future(self._send())
        try:
            while True:
                for number, result in decode_results(await self.host.receive()).items():
                    self._settle(number, result)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self) -> None:
        """Send all calls that wait together, one batch after the other."""
        with suppress(Died):  # which `receive` finds, too
            while True:
                await self._wake.wait()
                self._wake.clear()
                calls, self._waiting = self._waiting, {}
                cancelled, self._cancelled = self._cancelled, []
                try:
                    batch = encode_batch(calls, cancelled)
                except Exception as error:  # a world's shapes can be anything
                    self._refuse(calls, CallFailed(f"the call cannot be sent: {error}"))
                else:
                    await self.host.send(batch)

    def _refuse(self, numbers: Iterable[int], error: Exception) -> None:
        for number in numbers:
            self._settle(number, error)

    def _settle(self, number: int, result: Result) -> None:
        """Give a caller its result; nobody waits for one that was cancelled."""
        if isinstance(result, BackendDown):
            raise result
        future = self.in_flight.pop(number, None)
        if future is None or future.done():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Let all calls in flight fail."""
        self._waiting.clear()
        self._cancelled.clear()
        for future in self.in_flight.values():
            if not future.done():
                future.set_exception(error)


class ReplicaPool:
    """Spreads calls over replicas.

    Args:
        local: the same backend in this process, which is not started: it knows the model's name.
        placement: where the replicas run.
        what: names the replicas in messages.
    """

    def __init__(self, local: Backend, placement: Placement, what: str) -> None:
        self.model = local.model
        self.keeps_timeout = bool(getattr(local, "keeps_timeout", False))
        self._placement = placement
        self._what = what
        self._replicas: list[Replica] = []
        self._ready: list[Replica] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._down: BackendDown | InputError | None = None

    async def start(self) -> None:
        """Start the replicas that have a place; others join when they get one.

        Raises:
            BackendDown: the place cannot be reached, or a replica cannot be started.
            InputError: there is no room for the replicas, or their settings are refused.
        """
        self._down = None
        await self._placement.open()
        self._replicas = [
            Replica(number, host) for number, host in enumerate(self._placement.hosts())
        ]
        self._tasks = [asyncio.ensure_future(self._keep(one)) for one in self._replicas]
        self._tasks.append(asyncio.ensure_future(self._watch()))
        began = time.monotonic()
        _log.info("%s: starting %d replicas", self._what, len(self._replicas))
        while not self._has_started():
            self._changed.clear()
            try:
                async with asyncio.timeout(_TELL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                self._tell(time.monotonic() - began)

    def _has_started(self) -> bool:
        """Whether all replicas that have a place are ready, and there is one."""
        error = self._down or next((one.error for one in self._replicas if one.error), None)
        if error is not None:
            raise error
        loading = any(one.state is State.LOADING for one in self._replicas)
        return bool(self._ready) and not loading

    def _tell(self, seconds: float) -> None:
        states = [one.state for one in self._replicas]
        _log.info(
            "%s: %d replicas ready, %d loading, %d without a place after %.0f s",
            self._what,
            *map(states.count, (State.READY, State.LOADING, State.WAITING)),
            seconds,
        )

    async def _keep(self, replica: Replica) -> None:
        """Start a replica, exchange batches with it, and start it again when it has died."""
        while True:
            try:
                self._change(replica, State.WAITING)
                await replica.host.place()
                self._change(replica, State.LOADING)
                replica.started = await replica.host.start()
                self._change(replica, State.READY)
                await replica.exchange()
            except Died as error:
                problem = f"{self._what}: replica {replica.number} died: {error}"
                _log.warning("%s; it is started again, its calls are asked again", problem)
                self._change(replica, State.WAITING)
                replica.fail(Unavailable(problem))
            except (BackendDown, InputError) as error:
                self._lose(replica, error)
                return
            except Exception as error:  # such as a result that cannot be read here
                self._lose(replica, BackendDown(f"{self._what}: {exception_line(error)}"))
                return

    def _change(self, replica: Replica, state: State) -> None:
        replica.state = state
        self._ready = [one for one in self._replicas if one.state is State.READY]
        self._changed.set()

    def _lose(self, replica: Replica, error: BackendDown | InputError) -> None:
        """Go on without a replica; without any, no further call can be answered."""
        replica.error = error
        self._change(replica, State.LOST)
        if all(one.state is State.LOST for one in self._replicas):
            self._down = error
            replica.fail(error)
        else:
            _log.warning("%s: replica %d is lost: %s", self._what, replica.number, error)
            replica.fail(Unavailable(f"{self._what}: replica {replica.number} is lost: {error}"))

    async def _watch(self) -> None:
        """Let all calls fail when the place of the replicas is gone."""
        self._down = await self._placement.gone()
        for replica in self._replicas:
            self._change(replica, State.LOST)
            replica.fail(self._down)

    async def answer(self, call: Call) -> Reply:
        """Answer one call by a replica.

        Raises:
            CallFailed: the backend refuses this call.
            Unavailable: the replica has died, or its backend says so.
            Resting: no replica is ready.
            BackendDown: there is no replica left.
        """
        return await self._choose(call.name.episode).ask(next(self._numbers), call)

    def _choose(self, episode: int) -> Replica:
        """Choose the replica of an episode, or the least busy one if that is much less busy."""
        if self._down is not None:
            raise self._down
        if not self._ready:
            raise Resting(f"{self._what}: no replica is ready", REST_SECONDS)
        pinned = self._ready[episode % len(self._ready)]
        if len(pinned.in_flight) <= SPARE_CALLS:
            return pinned
        least_busy = min(self._ready, key=lambda one: len(one.in_flight))
        overloaded = len(pinned.in_flight) > 2 * len(least_busy.in_flight) + SPARE_CALLS
        return least_busy if overloaded else pinned

    def started(self) -> list[Started]:
        """Return what the replicas that are or were ready have told of themselves."""
        return [one.started for one in self._replicas if one.started is not None]

    async def environment(self) -> dict[str, Any]:
        """Tell the number of replicas, their machines, and what answers in them."""
        told = self.started()
        first, *others = [one.environment for one in told]
        different = [
            one for number, one in enumerate(others) if one not in (first, *others[:number])
        ]
        return {
            "replicas": len(told),
            "nodes": sorted({one.node for one in told}),
            **first,
            **({"other replicas": different} if different else {}),
        }

    async def close(self) -> None:
        """Close the backends of all replicas, end their processes, and release their place."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = [one.host.close() for one in self._replicas]
        await asyncio.gather(*closing, return_exceptions=True)
        self._tasks, self._replicas, self._ready = [], [], []
        await self._placement.close()


def pool_of(settings: ModelSettings, local: Backend) -> ReplicaPool:
    """Make the replicas that a model's settings ask for; they are not started yet.

    Args:
        settings: with `on: processes` or `on: ray`.
        local: the backend of the same settings in this process, not started.
    """
    if settings.on == "ray":
        from sandbox.backends.replicas.actors import RayActors

        return ReplicaPool(local, RayActors(settings), f"ray: {local.model}")
    return ReplicaPool(local, Processes(settings), local.model)
