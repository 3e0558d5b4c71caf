"""The results of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.reading.records import Record


@dataclass(frozen=True, kw_only=True)
class SweepRun(Record):
    """One run of a sweep.

    Attributes:
        run, db: its name and database.
        settings: those that differ between the runs of the study, by dotted key.
        status, message: as `status` shows them; `not created` before it is begun.
        retried: how often it was resumed after a failure, in this sitting.
        episodes, episodes_failed: the number of complete episodes, and of those that failed.
        calls, calls_failed: the number of calls in the journal, and of those without a reply.
        seconds: of work in all sessions.
        digest: of a finished run.
        warnings: as the run has them; the first says why its episodes fail, if most do.
    """

    run: str
    db: str
    settings: Mapping[str, Any]
    status: str
    message: str | None = None
    retried: int = 0
    episodes: int = 0
    episodes_failed: int = 0
    calls: int = 0
    calls_failed: int = 0
    seconds: float = 0.0
    digest: str | None = None
    warnings: Sequence[str] = ()

    @property
    def good(self) -> bool:
        """Whether it is done, and not all of its episodes failed."""
        return self.status == "done" and not 0 < self.episodes == self.episodes_failed


@dataclass(frozen=True, kw_only=True)
class EngineUse(Record):
    """How busy an engine was that runs shared.

    Attributes:
        model: its name.
        calls: the number of calls that it was sent.
        seconds: from when it was ready to its last reply.
        busy_share: the share of this time with at least one call in flight; None without a call.
        mean_in_flight: the mean number of calls in flight over this time; None without a call.
    """

    model: str
    calls: int
    seconds: float
    busy_share: float | None
    mean_in_flight: float | None


@dataclass(frozen=True, kw_only=True)
class Sweep(Record):
    """A sweep, after one sitting.

    Attributes:
        name, place: of the study, and the folder or the URL with its runs.
        status: `done`, `failed` if a run has failed for good, or `interrupted`.
        runs: in the order of the study.
        engines: those that runs shared in this sitting.
        seconds, calls: of this sitting: its length, and the number of new calls.
    """

    name: str
    place: str
    status: str
    runs: Sequence[SweepRun]
    engines: Sequence[EngineUse]
    seconds: float
    calls: int
