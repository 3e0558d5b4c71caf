"""A worker of a sweep: plays runs in threads of its process, which share engines."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.config import Config
from sandbox.engine.run import Change, Interrupted, create, prepare, resume
from sandbox.interrupts import interrupt_all
from sandbox.progress import Progress
from sandbox.sweep.engines import Engines
from sandbox.sweep.progress import Played
from storage.database import Address, exists, one_line, parse_url, run_names
from storage.secrets import hide_secrets

TELL_SECONDS = 0.5
"""How often progress is told."""

STOP = "stop"
"""The message that asks a worker to stop its runs, after the calls in flight."""


@dataclass(frozen=True)
class Job:
    """A run to play.

    Attributes:
        name: of the run.
        db: the URL or the path of its database.
        config: the config as JSON, which a new run is created from.
        settings: for `resume`, if it is there already.
        files: the files with Python code that may be loaded.
    """

    name: str
    db: str
    config: str
    settings: list[str]
    files: list[str]


class Worker:
    """Plays runs, each in a thread of the caller's."""

    def __init__(self) -> None:
        self._engines = Engines()
        self._progress: dict[str, Progress] = {}
        self._stopping = False
        self._loading = threading.Lock()  # a file with code is loaded once

    def play(self, job: Job) -> dict[str, Any]:
        """Create a run if it is not there, and play it to its end.

        Returns:
            Its `status` and `message`, and what it has `played`; a failure of any kind has the
            status `failed`.
        """
        try:
            end = self._play(job)
        except Interrupted as stopped:
            end = stopped.outcome.status, stopped.outcome.message
        except (Exception, KeyboardInterrupt) as error:  # the run's own code can raise any
            status = "interrupted" if self._stopping else "failed"
            end = status, hide_secrets(one_line(error))
        played = self.progress().get(job.name, Played())
        self._progress.pop(job.name, None)
        return {"status": end[0], "message": end[1], "played": played}

    def _play(self, job: Job) -> tuple[str, str | None]:
        allowed = [Path(file) for file in job.files]
        with self._loading:
            config = Config.from_json(job.config, allowed)
        address = Address(parse_url(job.db), job.name)
        backends = self._engines.backends(config)
        if not exists(address.url) or job.name not in run_names(address.url):
            create(prepare(config), job.db, backends)
        outcome = resume(
            address,
            lambda progress: self._watch(job.name, progress),
            change=Change(job.settings),
            backends=backends,
            allow=allowed,
        )
        return outcome.status, outcome.message

    def _watch(self, name: str, progress: Progress) -> None:
        """Keep the progress of a run that is about to begin, unless all are to stop."""
        self._progress[name] = progress
        if self._stopping:
            raise KeyboardInterrupt

    def progress(self) -> dict[str, Played]:
        """What each run that is played has done."""
        return {
            name: Played(
                one.episodes,
                one.episodes_total,
                one.counts.calls,
                one.counts.failed,
                one.counts.in_flight,
            )
            for name, one in list(self._progress.items())
        }

    def stop(self) -> None:
        """Ask all runs to stop, after the calls in flight."""
        self._stopping = True
        interrupt_all()

    def end(self) -> list[dict[str, Any]]:
        """Close the engines, and say how busy each was."""
        return [use.as_dict() for use in self._engines.end()]
