"""The progress of a run: counters that the engine updates and a display reads meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Counts:
    """What a run has done in this sitting; the live display reads it."""

    calls: int = 0
    replayed: int = 0
    failed: int = 0
    unparsed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    in_flight: int = 0


@dataclass
class Clock:
    """Time at work: it goes on from where an earlier sitting stopped."""

    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def sitting(self) -> float:
        """Seconds at work in this sitting."""
        return time.monotonic() - self.began

    def seconds(self) -> float:
        """Seconds at work, over all sittings."""
        return self.before + self.sitting()

    def milliseconds(self) -> int:
        """The same in whole milliseconds."""
        return int(self.seconds() * 1000)


@dataclass
class Progress:
    """How far a run has got; the live display reads it while the run goes on."""

    run: str
    agents: int
    rounds: int
    episodes_total: int
    counts: Counts
    clock: Clock
    episodes: int = 0
    round: int = 0
    stopping: bool = False
