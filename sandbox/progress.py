"""The progress of a run: counters that the engine updates and the live display reads."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Counts:
    """Counters of a session."""

    calls: int = 0
    replayed: int = 0
    failed: int = 0
    unparsed: int = 0
    lenient: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    in_flight: int = 0


@dataclass
class Clock:
    """Time spent on a run; continues from the total of earlier sessions.

    Attributes:
        before: seconds spent in earlier sessions.
        began: start of this session, on the monotonic clock.
    """

    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def session_seconds(self) -> float:
        """Return the seconds spent in this session."""
        return time.monotonic() - self.began

    def seconds(self) -> float:
        """Return the seconds spent in all sessions."""
        return self.before + self.session_seconds()

    def milliseconds(self) -> int:
        """Return the same in milliseconds, rounded down."""
        return int(self.seconds() * 1000)


@dataclass
class Progress:
    """Progress of a run; the live display reads it while the run is played."""

    run: str
    agents: int
    rounds: int
    episodes_total: int
    counts: Counts
    clock: Clock
    episodes: int = 0
    round: int = 0
    stopping: bool = False
