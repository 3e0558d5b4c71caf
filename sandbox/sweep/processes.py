"""A worker of a sweep in a process of this machine."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sandbox.environment import child_variables
from sandbox.sweep.progress import Played
from sandbox.sweep.results import EngineUse
from sandbox.sweep.worker import STOP, Job

Tell = Callable[[str, Played], None]
"""Called with the name of a run and what it has done so far."""

_LONGEST_LINE = 2**24
_END_SECONDS = 60.0
"""How long a worker has to close its engines."""


class ProcessWorker:
    """A process that plays runs; it ends when this one does, however that happens.

    Attributes:
        alive: whether it can play further runs.
    """

    def __init__(self, process: asyncio.subprocess.Process, tell: Tell) -> None:
        self._process = process
        self.alive = True
        self._tell = tell
        self._ends: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._engines: list[EngineUse] = []
        self._reading = asyncio.gather(self._read(), self._pass_on_errors())

    @classmethod
    async def start(cls, tell: Tell) -> ProcessWorker:
        """Start the process."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandbox.sweep.worker_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_variables(),
            start_new_session=True,  # a Ctrl-C reaches the sweep alone, which stops its workers
            limit=_LONGEST_LINE,
        )
        return cls(process, tell)

    async def play(self, job: Job) -> dict[str, Any]:
        """Play a run; see `sandbox.sweep.worker.Worker.play`."""
        end: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._ends[job.name] = end
        self._write(json.dumps(asdict(job)))
        return await end

    def stop(self) -> None:
        """Ask all runs to stop, after the calls in flight."""
        self._write(json.dumps(STOP))

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        if self.alive:
            self._process.stdin.write(f"{line}\n".encode())

    async def _read(self) -> None:
        """Handle what the process says until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "end" in message:
                self._ends.pop(message["run"]).set_result(message["end"])
            elif "engines" in message:
                self._engines = [EngineUse(**use) for use in message["engines"]]
            for name, played in message.get("progress", {}).items():
                self._tell(name, Played(*played))
        await self._process.wait()
        self._fail()

    def _fail(self) -> None:
        """Report that the process has ended before its runs."""
        self.alive = False
        status = self._process.returncode or 0
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        failed = {"status": "failed", "message": f"its process ended with {how}", "played": []}
        for end in self._ends.values():
            end.set_result(failed)
        self._ends.clear()

    async def _pass_on_errors(self) -> None:
        """Print what the process prints, where a live display may have replaced the stream."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            print(line.decode(errors="replace").rstrip("\n"), file=sys.stderr, flush=True)

    async def end(self) -> list[EngineUse]:
        """End the process, at once if it still has runs, and say how busy its engines were."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._reading), _END_SECONDS)
        except (asyncio.CancelledError, TimeoutError):
            self._process.kill()
            raise
        return self._engines
