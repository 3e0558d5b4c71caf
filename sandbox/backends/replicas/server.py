"""What runs in a replica: a backend, and the calls that drivers have sent to it."""

from __future__ import annotations

import asyncio
import os
import pickle
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from agents.plugins import exception_line, load_file
from sandbox.backends import ModelConfig, backend_of
from sandbox.backends.base import (
    Backend,
    BackendDown,
    Call,
    CallFailed,
    ModelSettings,
    Unavailable,
)
from sandbox.backends.replicas.messages import decode_batch, encode_results
from sandbox.environment import told_by, versions
from storage.errors import InputError


class Order(NamedTuple):
    """What a replica needs to start.

    Attributes:
        settings: those of the backend, as JSON values.
        files: Python files whose classes calls may have: worlds and backends of the user's own.
    """

    settings: Mapping[str, Any]
    files: Sequence[str]


class Started(NamedTuple):
    """What a replica tells of itself once its backend is started.

    Attributes:
        node: the name of its machine.
        process: the number of its process.
        environment: what answers there; see `sandbox.environment`.
    """

    node: str
    process: int
    environment: Mapping[str, Any]


def decode_started(data: bytes) -> Started:
    """Decode what a replica has sent when it was started.

    Raises:
        BackendDown: its backend cannot be started.
        InputError: its settings are refused.
    """
    told: Started | BaseException = pickle.loads(data)
    if isinstance(told, BaseException):
        raise told
    return told


def order_of(settings: ModelSettings) -> Order:
    """Make the order for a replica of a backend.

    It names all files of worlds and backends that this process has loaded.
    """
    of_pool = {"replicas", "on", "ray"}
    modules = list(sys.modules.items())
    files = [str(one.__file__) for name, one in modules if name.startswith("sandbox_plugin_")]
    return Order(settings.model_dump(mode="json", exclude=of_pool), files)


class Server:
    """A backend within a replica.

    Args:
        order: what to start.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._backend: Backend | None = None

    async def start(self) -> Started:
        """Make and start the backend.

        Raises:
            BackendDown: it cannot be started.
            InputError: its settings are refused here.
        """
        try:
            for file in self._order.files:
                load_file(file)
            settings = TypeAdapter(ModelConfig).validate_python(self._order.settings)
            self._backend = backend_of(settings)
            await self._backend.start()
        except (BackendDown, InputError):
            raise
        except ValidationError as error:
            reason = " ".join(str(error).split())
            raise BackendDown(f"the settings are refused in a replica: {reason}") from None
        except Exception as error:  # the code of a backend can raise any exception
            reason = exception_line(error)
            raise BackendDown(f"the backend cannot be started: {reason}") from None
        environment = await told_by(self._backend)
        packages = ("sandbox-society", *(("ray",) if "ray" in sys.modules else ()))
        return Started(platform.node(), os.getpid(), {**environment, **versions(packages)})

    def session(self) -> Session:
        """Begin to answer the calls of a driver; the backend is started."""
        assert self._backend is not None
        return Session(self._backend)

    async def close(self) -> None:
        """Close the backend, if it was made."""
        if self._backend is not None:
            await self._backend.close()


class Session:
    """The calls of one driver.

    Args:
        backend: answers them.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._results: dict[int, Any] = {}
        self._ready = asyncio.Event()

    def take(self, data: bytes) -> None:
        """Begin with the calls of a batch, and cancel those that it cancels."""
        batch = decode_batch(data)
        for number in batch.cancelled:
            if number in self._tasks:
                self._tasks[number].cancel()
        for number, call in batch.calls.items():
            if isinstance(call, CallFailed):
                self._finish(number, call)
            else:
                self._tasks[number] = asyncio.ensure_future(self._answer(number, call))

    async def _answer(self, number: int, call: Call) -> None:
        try:
            self._finish(number, await _result(self._backend, call))
        finally:
            del self._tasks[number]

    def _finish(self, number: int, result: Any) -> None:
        self._results[number] = result
        self._ready.set()

    async def results(self) -> bytes:
        """Wait until calls are answered, and return the results of all that are."""
        await self._ready.wait()
        self._ready.clear()
        results, self._results = self._results, {}
        return encode_results(results)

    async def close(self) -> None:
        """Cancel all calls."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _result(backend: Backend, call: Call) -> Any:
    """Answer a call; errors that backends raise are returned, for the layers of the driver."""
    try:
        return await backend.answer(call)
    except (Unavailable, CallFailed, BackendDown, InputError) as error:
        return error
    except TimeoutError:
        return TimeoutError()
    except Exception as error:
        return CallFailed(f"the backend raised {exception_line(error)}")
