"""The progress of a sweep, which the live display reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Played(NamedTuple):
    """What a run has done in this sitting.

    Attributes:
        episodes, episodes_total: the number of complete episodes, and of all.
        calls, failed: the number of new calls, and of those without a reply.
        in_flight: the number of calls in flight.
    """

    episodes: int = 0
    episodes_total: int = 0
    calls: int = 0
    failed: int = 0
    in_flight: int = 0


WAITING, PLAYING = "waiting", "playing"


@dataclass
class RunProgress:
    """The progress of one run.

    Attributes:
        status: `waiting`, `playing`, or how it ended: `done`, `failed` or `interrupted`.
        message: why it ended so.
        retried: how often it was resumed after a failure.
        played: what it has done since it was last begun.
        calls_before: its calls earlier in this sitting.
    """

    status: str = WAITING
    message: str | None = None
    retried: int = 0
    played: Played = field(default_factory=Played)
    calls_before: int = 0

    @property
    def calls(self) -> int:
        """The number of new calls in this sitting."""
        return self.calls_before + self.played.calls


@dataclass
class SweepProgress:
    """The progress of a sweep.

    Attributes:
        name: of the study.
        runs: by name.
        began: on the monotonic clock.
        stopping: no further run is begun.
    """

    name: str
    runs: Mapping[str, RunProgress]
    began: float = field(default_factory=time.monotonic)
    stopping: bool = False

    @property
    def seconds(self) -> float:
        """The length of this sitting so far."""
        return time.monotonic() - self.began

    @property
    def calls(self) -> int:
        """The number of new calls in this sitting."""
        return sum(run.calls for run in self.runs.values())

    def by_status(self) -> Counter[str]:
        """The number of runs by status."""
        return Counter(run.status for run in self.runs.values())
