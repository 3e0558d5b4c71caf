"""Replicas on a Ray cluster: each is an actor, which Ray places, and places again when it dies."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any
from uuid import uuid4

from sandbox.backends.base import BackendDown, ModelSettings
from sandbox.backends.replicas import cluster
from sandbox.backends.replicas.host import Died, Host
from sandbox.backends.replicas.server import (
    Order,
    Server,
    Session,
    Started,
    decode_started,
    order_of,
)
from storage.errors import InputError

POLL_SECONDS = 10.0
"""Longest time that an actor keeps a driver waiting for results."""

SILENT_SECONDS = 60.0
"""A driver that has not asked for results for this long is gone."""

CLOSE_SECONDS = 20.0
"""How long a backend may take to close; then its actor is killed."""

_RESTART_SECONDS = 1.0
_OF_DRIVER = ("retries", "patience")  # settings that replicas do not know


class ReplicaActor:
    """What runs in an actor: a server, and a session for each driver.

    Args:
        order: what to start, pickled.
        linger: for a replica that runs share, how many seconds it outlives the last; None for one
            that ends with its driver.
    """

    def __init__(self, order: bytes, linger: float | None) -> None:
        self._order = order
        self._linger = linger
        self._server: Server | None = None
        self._starting = asyncio.Lock()
        self._told: Started | BaseException | None = None
        self._sessions: dict[str, Session] = {}
        self._heard: dict[str, float] = {}
        self._busy = time.monotonic()
        self._guard: asyncio.Task[None] | None = None

    async def place(self) -> None:
        """Do nothing: whoever waits for this knows that the actor has its place."""
        if self._linger is not None and self._guard is None:
            self._guard = asyncio.ensure_future(self._end_when_idle(self._linger))

    async def start(self, driver: str) -> bytes:
        """Start the backend unless it is started, and a session for a driver.

        Returns:
            What it tells of itself, or the error with which it did not start; pickled.
        """
        self._heard[driver] = time.monotonic()
        async with self._starting:
            if not isinstance(self._told, Started):
                self._server = Server(pickle.loads(self._order))
                try:
                    self._told = await self._server.start()
                except (BackendDown, InputError) as error:
                    self._told = error
        if isinstance(self._told, Started):
            assert self._server is not None
            self._sessions[driver] = self._server.session()
        self._heard[driver] = time.monotonic()
        return pickle.dumps(self._told)

    async def send(self, driver: str, batch: bytes) -> None:
        """Begin with the calls of a batch."""
        self._sessions[driver].take(batch)

    async def receive(self, driver: str) -> bytes | None:
        """Wait for results; None if there are none for a while."""
        self._heard[driver] = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                return await self._sessions[driver].results()
        return None

    async def leave(self, driver: str) -> None:
        """End the session of a driver; close the backend if no other can come."""
        self._heard.pop(driver, None)
        self._busy = time.monotonic()
        session = self._sessions.pop(driver, None)
        if session is not None:
            await session.close()
        if self._linger is None and self._server is not None:
            await self._server.close()

    async def _end_when_idle(self, linger: float) -> None:
        """End the actor when no driver has used it for a while."""
        import ray

        while self._heard or time.monotonic() < self._busy + linger:
            await asyncio.sleep(min(1.0, linger + 0.1))
            now = time.monotonic()
            for driver in [one for one, at in self._heard.items() if now - at > SILENT_SECONDS]:
                if not self._starting.locked():
                    await self.leave(driver)
        if self._server is not None:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._server.close()
        ray.kill(ray.get_runtime_context().current_actor)


class ActorReplica:
    """A replica in an actor.

    Args:
        number: its number, from 0.
        place: makes the actor, or finds the one that runs share, and says whether one may be made
            again after its death; Ray itself restarts one that ends with its driver.
    """

    def __init__(self, number: int, place: RayActors) -> None:
        self._number = number
        self._place = place
        self._driver = uuid4().hex
        self._actor: Any = None
        self._made = 0

    async def place(self) -> None:
        """Wait until the actor has its place, and Ray has started it.

        Raises:
            BackendDown: it has died too often.
        """
        from ray.exceptions import ActorDiedError, ActorUnavailableError

        while True:
            if self._actor is None:
                self._actor = self._place.actor(self._number)
                self._made += 1
            try:
                await self._actor.place.remote()
                return
            except ActorUnavailableError:  # it is being restarted
                await asyncio.sleep(_RESTART_SECONDS)
            except ActorDiedError as error:
                if not self._place.may_make(self._made):
                    raise BackendDown(f"its actor died too often: {_reason(error)}") from None
                self._actor = None
                await asyncio.sleep(_RESTART_SECONDS)

    async def start(self) -> Started:
        """Start the backend in the actor.

        Raises:
            Died: the actor has died.
            BackendDown: the backend cannot be started.
            InputError: its settings are refused.
        """
        return decode_started(await self._reply("start"))

    async def send(self, batch: bytes) -> None:
        """Send a batch.

        Raises:
            Died: the actor has died.
        """
        await self._reply("send", batch)

    async def receive(self) -> bytes:
        """Wait for results.

        Raises:
            Died: the actor has died.
        """
        while True:
            results: bytes | None = await self._reply("receive")
            if results is not None:
                return results

    async def _reply(self, method: str, *arguments: Any) -> Any:
        from ray.exceptions import RayActorError, RayTaskError

        try:
            return await getattr(self._actor, method).remote(self._driver, *arguments)
        except (RayActorError, RayTaskError) as error:
            raise Died(_reason(error)) from None

    async def close(self) -> None:
        """Leave the actor; end it unless other runs may use it."""
        from ray import kill
        from ray.exceptions import RayError

        if self._actor is None:
            return
        with suppress(RayError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._actor.leave.remote(self._driver)
        if not self._place.is_shared:
            kill(self._actor)


def _reason(error: Exception) -> str:
    """What Ray tells of an error, without its advice and identifiers."""
    from ray.exceptions import ActorUnavailableError

    if isinstance(error, ActorUnavailableError):
        return "its process has ended, or cannot be reached"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


class RayActors:
    """A Ray cluster as the place of replicas.

    Args:
        settings: those of the model.

    Attributes:
        is_shared: runs share the replicas, which outlive each of them.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._ray = settings.ray
        self.is_shared = settings.ray.pool is not None
        self._order = b""
        self._pool = ""
        self._is_open = False

    async def open(self) -> None:
        """Connect to the cluster, and check that it has room.

        Raises:
            BackendDown: it cannot be reached.
            InputError: it has no room for the replicas.
        """
        try:
            await asyncio.to_thread(cluster.connect, self._ray)
        except cluster.NoCluster as error:
            raise BackendDown(f"models: {error}") from None
        cluster.use()
        self._is_open = True
        try:
            await asyncio.to_thread(_check_fit, self._settings)
        except ValueError as error:
            raise InputError(f"models: {error}") from None
        order = order_of(self._settings)
        self._order = pickle.dumps(order)
        self._pool = f"{self._ray.pool}-{_fingerprint(order)}"

    def hosts(self) -> Sequence[Host]:
        """Return the replicas, also those that the cluster may get room for."""
        count = self._ray.max_replicas or self._settings.replicas
        return [ActorReplica(number, self) for number in range(count)]

    def actor(self, number: int) -> Any:
        """Make the actor of a replica, or find the one that runs share.

        Returns:
            Its handle; Ray places it when there is room.
        """
        import ray

        needs = resources(self._settings)
        options: dict[str, Any] = {
            "num_cpus": needs.pop("CPU"),
            "num_gpus": needs.pop("GPU"),
            "resources": needs,
            "max_restarts": self._ray.max_restarts,
        }
        if self.is_shared:
            options |= {
                "name": f"{self._pool}-{number}",
                "namespace": self._ray.namespace,
                "get_if_exists": True,
                "lifetime": "detached",
            }
        linger = self._ray.linger if self.is_shared else None
        return ray.remote(ReplicaActor).options(**options).remote(self._order, linger)

    def may_make(self, made: int) -> bool:
        """Whether an actor may be made again that Ray does not restart: only a shared one.

        Args:
            made: how often it was made.
        """
        return self.is_shared and made <= self._ray.max_restarts

    async def gone(self) -> BackendDown:
        """Wait until the cluster does not answer any more."""
        place = await cluster.gone()
        return BackendDown(f"ray: the cluster at {place} is gone")

    async def close(self) -> None:
        """Close the connection after its last user."""
        if self._is_open:
            self._is_open = False
            await cluster.release()


def resources(settings: ModelSettings) -> dict[str, float]:
    """Return what a replica needs of the cluster that this process is connected to.

    Returns:
        Amounts by Ray's names of resources; those of `CPU` and `GPU` are always there.
    """
    ray, gpus = settings.ray, settings.ray.num_gpus
    if gpus is None:
        gpus = settings.gpus() if cluster.gpus() else 0
    cpus = ray.num_cpus if ray.num_cpus is not None else float(not gpus)
    return {**ray.resources, "CPU": cpus, "GPU": gpus}


def check_room(settings: ModelSettings) -> None:
    """Connect to the cluster, and check that it has room for the replicas.

    Raises:
        ValueError: it has not, or there is no cluster; the message begins with a key.
    """
    try:
        cluster.connect(settings.ray)
    except cluster.NoCluster as error:
        raise ValueError(str(error)) from None
    _check_fit(settings)


def _check_fit(settings: ModelSettings) -> None:
    """Compare the replicas with the whole cluster, unless it is said to grow.

    What other programs use of it does not count: replicas wait until that is free.

    Raises:
        ValueError: there is no room for them.
    """
    if settings.ray.max_replicas is not None:
        return
    needs = resources(settings)
    room = cluster.room_for(needs)
    if room is None or room >= settings.replicas:
        return
    each = " and ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)
    raise ValueError(
        f"replicas: found {settings.replicas} of {each} each, and {cluster.described()}; expected "
        f"at most {room}, or ray.max_replicas for a cluster that grows"
    )


def _fingerprint(order: Order) -> str:
    """A name of the settings that replicas have in common."""
    shared = {key: value for key, value in order.settings.items() if key not in _OF_DRIVER}
    return blake2b(repr(sorted(shared.items())).encode(), digest_size=8).hexdigest()
