"""A worker of a sweep as a process of its own; `processes` starts it.

It reads jobs from its standard input, one JSON object a line, and writes their progress and their
ends to its standard output. When its input ends before its runs, the sweep is dead, and it ends at
once: what was said is in the journals.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from sandbox.sweep.progress import Played
from sandbox.sweep.worker import STOP, TELL_SECONDS, Job, Worker


class _Process:
    """A worker as a process: lines in, lines out."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what libraries print is no message
        self._lock = threading.Lock()
        self._worker = Worker()
        self._ended = threading.Event()
        self._playing: set[str] = set()

    def serve(self) -> None:
        """Play the runs that the standard input names, until it ends."""
        self._begin(self._tell)
        for line in sys.stdin:
            message = json.loads(line)
            if message == STOP:
                self._worker.stop()
            else:
                job = Job(**message)
                self._playing.add(job.name)
                self._begin(partial(self._play, job))
        if self._playing:
            os._exit(1)
        self._ended.set()
        self._send({"engines": self._worker.end()})

    def _begin(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    def _play(self, job: Job) -> None:
        end = self._worker.play(job)
        self._playing.discard(job.name)
        self._send({"run": job.name, "end": end})

    def _tell(self) -> None:
        told: dict[str, Played] = {}
        while not self._ended.wait(TELL_SECONDS):
            now = self._worker.progress()
            if now != told:
                self._send({"progress": now})
                told = now

    def _send(self, message: dict[str, Any]) -> None:
        with self._lock:
            print(json.dumps(message), file=self._out, flush=True)


if __name__ == "__main__":
    _Process().serve()
