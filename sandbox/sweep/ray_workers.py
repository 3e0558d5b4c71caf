"""A worker of a sweep in an actor of Ray, which may be on any node of a cluster."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox.backends.replicas import cluster
from sandbox.backends.replicas.settings import RaySettings
from sandbox.sweep.processes import Tell
from sandbox.sweep.results import EngineUse
from sandbox.sweep.worker import TELL_SECONDS, Job, Worker
from storage.errors import InputError

_MOST_THREADS = 1003
"""Of an actor: the most runs side by side, and those that ask for progress or stop them."""


def connect(address: str | None, source: Path) -> None:
    """Connect to the cluster, or start one on this machine where there is none.

    Args:
        address: of the cluster.
        source: the file of the study, for error messages.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        cluster.connect(RaySettings(address=address))
    except cluster.NoCluster as error:
        message = str(error).replace("ray.address:", "ray:", 1)  # the key of a model
        raise InputError(f"{source}: {message}") from None
    cluster.use()


class RayWorker:
    """An actor that plays runs; it ends when this process does.

    Attributes:
        alive: whether it can play further runs.
    """

    def __init__(self, actor: Any, tell: Tell) -> None:
        self.alive = True
        self._actor = actor
        self._playing = 0
        self._telling = asyncio.ensure_future(self._poll(tell))

    @classmethod
    async def start(cls, tell: Tell) -> RayWorker:
        """Make the actor; Ray places it."""
        import ray

        kind = ray.remote(Worker).options(max_concurrency=_MOST_THREADS)
        return cls(kind.remote(), tell)

    async def play(self, job: Job) -> dict[str, Any]:
        """Play a run; see `sandbox.sweep.worker.Worker.play`."""
        from ray.exceptions import RayError

        self._playing += 1
        try:
            return dict(await self._actor.play.remote(job))
        except RayError:
            self.alive = False
            return {"status": "failed", "message": "its Ray actor has ended", "played": []}
        finally:
            self._playing -= 1

    async def _poll(self, tell: Tell) -> None:
        """Tell the progress of the runs, until the actor ends."""
        from ray.exceptions import RayError

        with suppress(RayError):
            while True:
                await asyncio.sleep(2 * TELL_SECONDS)
                for name, played in (await self._actor.progress.remote()).items():
                    tell(name, played)

    def stop(self) -> None:
        """Ask all runs to stop, after the calls in flight."""
        self._actor.stop.remote()

    async def end(self) -> list[EngineUse]:
        """End the actor, at once if it still has runs, and say how busy its engines were."""
        import ray
        from ray.exceptions import RayError

        self._telling.cancel()
        uses: list[EngineUse] = []
        if self.alive and not self._playing:
            with suppress(RayError):
                uses = [EngineUse(**use) for use in await self._actor.end.remote()]
        ray.kill(self._actor)
        return uses
