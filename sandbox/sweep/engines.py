"""Engines that several runs of one process share, and how busy they are."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from sandbox.backends import backend_of
from sandbox.backends.base import Backend, BackendDown, Call, ModelSettings, Reply
from sandbox.config import Config, role_key
from sandbox.environment import told_by
from sandbox.sweep.results import EngineUse

T = TypeVar("T")

_OF_EACH_PROCESS = ("scripted", "openai")
"""Backends that load no model: their runs have a process each."""

_ENGINES = ("vllm", "llama_cpp")
_OF_CALLS = {"max_tokens", "temperature", "stop", "timeout", "retries", "patience"}
"""Settings that these backends get with each call, or that are above them: models which differ only
in these share an engine."""


def engine_keys(config: Config) -> dict[str, str]:
    """The engine of each role that loads one in the process of the run, as a text.

    Runs with equal texts share an engine.
    """
    return {
        role: _engine_key(settings)
        for role, settings in config.models.roles()
        if settings.backend not in _OF_EACH_PROCESS and settings.on != "ray"
    }


def _engine_key(settings: ModelSettings) -> str:
    return settings.model_dump_json(exclude=_OF_CALLS if settings.backend in _ENGINES else None)


def on_ray(config: Config) -> dict[str, Any]:
    """The settings of the models whose replicas run on Ray, by the key of the config."""
    roles = config.models.roles()
    return {role_key(role): settings for role, settings in roles if settings.on == "ray"}


class SharedEngine:
    """A backend that runs in several threads share: calls are answered in one event loop.

    It is started by the first run that needs it; `end` closes it after the last one.

    Args:
        settings: of the model.
        loop: the event loop that it works in, which another thread runs.

    Attributes:
        down: it answers no further call; a run that is resumed gets another one.
        keeps_timeout: whether it limits the time of a reply itself: see `Backend`.
    """

    def __init__(self, settings: ModelSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._backend: Backend = backend_of(settings)
        self._loop = loop
        self._starting: asyncio.Task[None] | None = None
        self._use = _Use()
        self.down = False
        self.keeps_timeout = getattr(self._backend, "keeps_timeout", False)

    @property
    def model(self) -> str:
        """The name of the model in the journal."""
        return self._backend.model

    async def start(self) -> None:
        """Start the engine, or wait until it is started.

        Raises:
            BackendDown: it cannot be started.
        """
        await self._there(self._start())

    async def _start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._backend.start())
        await asyncio.shield(self._starting)
        self._use.begin()

    async def answer(self, call: Call) -> Reply:
        """Answer one call, as the backend does."""
        return await self._there(self._answer(call))

    async def _answer(self, call: Call) -> Reply:
        self._use.change(1)
        try:
            return await self._backend.answer(call)
        finally:
            self._use.change(-1)

    async def environment(self) -> dict[str, Any]:
        """Tell what the backend tells of itself."""
        return await self._there(told_by(self._backend))

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work in the loop of the engine."""
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        except BackendDown:
            self.down = True
            raise

    async def close(self) -> None:
        """Leave the engine to the other runs."""

    def end(self) -> EngineUse:
        """Close the engine, and say how busy it was."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        return self._use.result(self.model)

    async def _end(self) -> None:
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if self._starting is not None:
            await self._backend.close()


class _Use:
    """Counts calls in flight over time, in the thread of one loop."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._latest = 0.0
        self._in_flight = 0
        self._calls = 0
        self._busy = 0.0
        self._in_flight_seconds = 0.0

    def begin(self) -> None:
        """The engine is ready."""
        if self._began is None:
            self._began = self._latest = time.monotonic()

    def change(self, by: int) -> None:
        """A call begins (1) or ends (-1)."""
        now = time.monotonic()
        passed = now - self._latest
        self._busy += passed if self._in_flight else 0.0
        self._in_flight_seconds += passed * self._in_flight
        self._latest = now
        self._in_flight += by
        self._calls += by > 0

    def result(self, model: str) -> EngineUse:
        """The use from when the engine was ready to its latest reply."""
        seconds = 0.0 if self._began is None else self._latest - self._began
        return EngineUse(
            model=model,
            calls=self._calls,
            seconds=round(seconds, 3),
            busy_share=round(self._busy / seconds, 4) if seconds else None,
            mean_in_flight=round(self._in_flight_seconds / seconds, 2) if seconds else None,
        )


class Engines:
    """The shared engines of a process, and the thread with their event loop."""

    def __init__(self) -> None:
        self._engines: dict[str, SharedEngine] = {}
        self._down: list[SharedEngine] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def backends(self, config: Config) -> Mapping[str, Backend]:
        """The shared backends of a run by role, for `resume`; they are not started yet."""
        settings = dict(config.models.roles())
        with self._lock:
            if not self._thread.is_alive():
                self._thread.start()
            return {
                role: self._engine(key, settings[role]) for role, key in engine_keys(config).items()
            }

    def _engine(self, key: str, settings: ModelSettings) -> SharedEngine:
        engine = self._engines.get(key)
        if engine is None or engine.down:
            self._down += [engine] if engine else []
            engine = self._engines[key] = SharedEngine(settings, self._loop)
        return engine

    def end(self) -> list[EngineUse]:
        """Close all engines, and say how busy each was."""
        used = [engine.end() for engine in (*self._down, *self._engines.values())]
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        return used
