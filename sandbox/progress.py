"""The progress of a run: counters that the engine updates and the live display reads."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from agents.forms import Status
from sandbox.failing import Cause, failing, form_of
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
        missing: the number of replies without a value, by their status.
        example: the latest error, or the latest reply that could not be parsed.
    """

    calls: int = 0
    failed: int = 0
    unparsed: int = 0
    missing: Counter[Status] = field(default_factory=Counter)
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
        open: the number of new calls of each episode that has not ended, by its number.
    """

    calls: int = 0
    replayed: int = 0
    failed: int = 0
    unparsed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    in_flight: int = 0
    waits: dict[Hashable, Wait] = field(default_factory=dict)
    forms: defaultdict[str, FormCounts] = field(default_factory=lambda: defaultdict(FormCounts))
    open: Counter[int] = field(default_factory=Counter)

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


LEAST_ENDED, UNKNOWN_SHARE = 4, 0.1
"""Time left is estimated once this many episodes have ended in the session, and at most this share
of episodes needs more calls than any that ended: those that failed early end first."""


@dataclass
class Progress:
    """Progress of a run; the live display reads it while the run is played.

    Attributes:
        run, agents, rounds, episodes_total: the run's name, and how much it will have.
        counts: counters of the session.
        clock: the time spent on the run.
        limits: the limits of a reply's tokens, by config key.
        episodes, episodes_failed: the number of episodes that ended, and of those that failed.
        ended: how many episodes ended in the session, by their number of new calls.
        failed_at: prompt templates that episodes of the session failed for want of a reply to.
        round: the latest round that has begun, from 1.
        stopping: no further call is sent.
        finished: when the session had played, on the monotonic clock; None while it plays.
    """

    run: str
    agents: int
    rounds: int
    episodes_total: int
    counts: Counts
    clock: Clock
    limits: Mapping[str, int] = field(default_factory=dict)
    episodes: int = 0
    episodes_failed: int = 0
    ended: Counter[int] = field(default_factory=Counter)
    failed_at: set[str] = field(default_factory=set)
    round: int = 0
    stopping: bool = False
    finished: float | None = None

    def end(self, episode: int, failed_at: str | None) -> None:
        """Count an episode that has ended.

        Args:
            episode: its number.
            failed_at: what it failed for want of; None if it was played to its end.
        """
        self.episodes += 1
        self.ended[self.counts.open.pop(episode, 0)] += 1
        if failed_at is not None:
            self.episodes_failed += 1
            self.failed_at.add(form_of(failed_at))

    def calls_left(self) -> float | None:
        """Estimate the number of calls to come; None before there is enough to go by.

        How many calls an episode needs is estimated by Kaplan and Meier's method from those that
        ended and those that have begun, which need at least as many as they have had.
        """
        begun = Counter(list(self.counts.open.values()))  # a display reads it in another thread
        ended = self.ended.copy()
        going_on = 1.0  # the share of episodes that need more than `calls`
        shares: list[float] = []
        at_risk = ended.total() + begun.total()
        for calls in range(max([*ended, *begun], default=0) + 1):
            going_on *= 1 - ended[calls] / max(1, at_risk)
            shares.append(going_on)
            at_risk -= ended[calls] + begun[calls]
        if ended.total() < LEAST_ENDED or going_on > UNKNOWN_SHARE:
            return None
        after = [*accumulate(reversed(shares))][::-1]  # calls after so many, times their share
        unstarted = max(0, self.episodes_total - self.episodes - begun.total())
        known = (
            number * (after[calls] / shares[calls] if shares[calls] else 1.0)
            for calls, number in begun.items()
        )
        return unstarted * after[0] + sum(known)

    def failing(self) -> str | None:
        """Say that most episodes failed, why, and what to change; None if most did not."""
        forms = list(self.counts.forms.items())
        causes = [
            Cause(name, status, calls)
            for name, form in forms
            for status, calls in list(form.missing.items())
        ]
        examples = [form.example for name, form in forms if name in self.failed_at and form.failed]
        return failing(
            self.episodes,
            self.episodes_failed,
            causes,
            list(self.failed_at),
            self.limits,
            next(iter(examples), ""),
        )
