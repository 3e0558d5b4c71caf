"""The progress of a run: counters that the engine updates and the live display reads."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sandbox.text import clock_time, short

LONG_WAIT = 5.0
"""Waits of fewer seconds, in a session that is answered, are not worth a word."""


class Wait(NamedTuple):
    """A call that waits before it is sent again.

    Attributes:
        problem: why it has no reply.
        since: when the wait began, in seconds since 1970.
        seconds: its length.
    """

    problem: str
    since: float
    seconds: float

    @property
    def until(self) -> float:
        """When the call is sent again, in seconds since 1970."""
        return self.since + self.seconds


class Waiting(NamedTuple):
    """Calls that wait for the same reason.

    Attributes:
        problem: the reason.
        until: when the first of them is sent again, in seconds since 1970.
        calls: their number.
    """

    problem: str
    until: float
    calls: int

    def words(self) -> str:
        """The same in words: waiting for http://...: 429 ... until 14:05:00 (3 calls)."""
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        return f"waiting: {short(self.problem, 160)}; until {clock_time(self.until)} ({calls})"


def waiting_json(waiting: Sequence[Waiting]) -> str | None:
    """Return what calls wait for as it is stored; None where none waits."""
    return json.dumps([row._asdict() for row in waiting]) if waiting else None


def parse_waiting(text: str | None) -> list[Waiting]:
    """Parse what `waiting_json` returned."""
    return [Waiting(**row) for row in json.loads(text or "[]")]


MISSING_AFTER, MISSING_SHARE, ALL_MISSING = 20, 0.5, 4
"""A prompt template is warned about after this many calls, if this share of its replies is missing,
whatever the reason; and after `ALL_MISSING` calls if all are."""


@dataclass
class FormCounts:
    """Counters of the calls of one prompt template in a session.

    Attributes:
        calls, failed, unparsed: the number of calls, of those without a reply, and of those whose
            reply could not be parsed.
        example: the latest error, or the latest reply that could not be parsed.
    """

    calls: int = 0
    failed: int = 0
    unparsed: int = 0
    example: str = ""


def mostly_missing(calls: int, missing: int) -> bool:
    """Whether a prompt template has so many missing replies that a warning is due."""
    after = ALL_MISSING if missing == calls else MISSING_AFTER
    return calls >= after and missing >= MISSING_SHARE * calls


def warning(form: str, calls: int, failed: int, unparsed: int, example: str) -> str:
    """Word the warning that most replies of a prompt template are missing.

    Args:
        form: its name.
        calls: the number of its calls.
        failed: the number of those without a reply.
        unparsed: the number of those whose reply could not be parsed.
        example: an error or a reply of these.
    """
    said = short(example, 120) or "no text at all"
    if failed >= unparsed:
        return (
            f"{failed:,} of {calls:,} calls of {form} failed, the last one: {said}; "
            "expected few: check the server and the settings of the model"
        )
    return (
        f"{unparsed:,} of {calls:,} replies of {form} are unparseable, empty or truncated, "
        f"such as: {said}; expected few: read some of them, and try the model's chat template, "
        "max_tokens, constrained replies, or another wording of the prompt template"
    )


@dataclass
class Counts:
    """Counters of a session.

    Attributes:
        calls, failed, unparsed: the number of new calls, of those without a reply, and of those
            whose reply could not be parsed.
        replayed: the number of calls from the journal.
        tokens_in, tokens_out, tokens_cached: of prompts, of replies, and of prompts from the cache.
        in_flight: the number of calls that have been sent or wait to be sent again.
        waits: the calls that wait to be sent again.
        forms: counters by prompt template.
    """

    calls: int = 0
    replayed: int = 0
    failed: int = 0
    unparsed: int = 0
    lenient: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    in_flight: int = 0
    waits: dict[Hashable, Wait] = field(default_factory=dict)
    forms: defaultdict[str, FormCounts] = field(default_factory=lambda: defaultdict(FormCounts))

    def waiting(self) -> list[Waiting]:
        """The calls that wait for long, by reason; most calls first."""
        by_problem: defaultdict[str, list[float]] = defaultdict(list)
        for wait in list(self.waits.values()):  # a display reads it in another thread
            if wait.seconds >= LONG_WAIT:
                by_problem[wait.problem].append(wait.until)
        rows = [Waiting(problem, min(ends), len(ends)) for problem, ends in by_problem.items()]
        return sorted(rows, key=lambda row: -row.calls)

    def warnings(self) -> dict[str, str]:
        """Warnings about prompt templates, by name."""
        return {
            name: warning(name, form.calls, form.failed, form.unparsed, form.example)
            for name, form in list(self.forms.items())
            if mostly_missing(form.calls, form.failed + form.unparsed)
        }


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
