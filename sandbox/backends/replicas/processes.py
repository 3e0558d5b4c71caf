"""Replicas in child processes of this one."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from sandbox.backends.base import BackendDown, ModelSettings
from sandbox.backends.replicas.child import CLOSE_SECONDS
from sandbox.backends.replicas.frames import BUFFERED, read_frame, write_frame
from sandbox.backends.replicas.host import Died, Host
from sandbox.backends.replicas.server import Order, Started, decode_started, order_of
from sandbox.environment import child_variables


class ProcessReplica:
    """A replica in a child process.

    Args:
        number: its number, from 0.
        order: what it starts.
        max_restarts: how often it is started again after its death.
    """

    def __init__(self, number: int, order: Order, max_restarts: int) -> None:
        self._number = number
        self._order = order
        self._lives = 1 + max_restarts
        self._deaths = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def place(self) -> None:
        """Start the process.

        Raises:
            BackendDown: it has died too often, or cannot be started.
        """
        if self._deaths == self._lives:
            raise BackendDown(f"the process of replica {self._number} died {self._deaths} times")
        ours, theirs = socket.socketpair()
        module = [sys.executable, "-m", "sandbox.backends.replicas.child", str(theirs.fileno())]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *module,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=child_variables(),
                start_new_session=True,  # a Ctrl-C reaches this process alone
            )
        except OSError as error:
            ours.close()
            raise BackendDown(f"a process cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=BUFFERED)

    async def start(self) -> Started:
        """Start the backend in the process.

        Raises:
            Died: the process has ended.
            BackendDown: the backend cannot be started.
            InputError: its settings are refused.
        """
        await self.send(pickle.dumps(self._order))
        return decode_started(await self.receive())

    async def send(self, batch: bytes) -> None:
        """Send a batch.

        Raises:
            Died: the process has ended.
        """
        try:
            await write_frame(self._writer, batch)
        except ConnectionError:
            raise Died("its process has ended") from None

    async def receive(self) -> bytes:
        """Wait for results.

        Raises:
            Died: the process has ended.
        """
        try:
            return await read_frame(self._reader)
        except (EOFError, ConnectionError):
            self._deaths += 1
            raise Died(await self._end()) from None

    async def _end(self) -> str:
        """End the process and those that it has started; return how it ended."""
        assert self._process is not None
        self._writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS + 5):
                await self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = await self._process.wait()
        self._process = None
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"its process was ended {how}"

    async def close(self) -> None:
        """Let the process close its backend and end."""
        if self._process is not None:
            await self._end()


class Processes:
    """Child processes as the place of replicas.

    Args:
        settings: those of the model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings

    async def open(self) -> None:
        """Do nothing: there is room as long as the machine has memory."""

    def hosts(self) -> Sequence[Host]:
        """Return the replicas."""
        order, most = order_of(self._settings), self._settings.ray.max_restarts
        return [ProcessReplica(number, order, most) for number in range(self._settings.replicas)]

    async def gone(self) -> BackendDown:
        """Wait forever: this machine is lost only with this process."""
        never: asyncio.Future[BackendDown] = asyncio.get_running_loop().create_future()
        return await never

    async def close(self) -> None:
        """Do nothing: each replica has ended its process."""
