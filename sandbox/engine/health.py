"""The health of a backend: whether a call or its backend is to blame for a failure.

A call fails again and again for one of two reasons. Either the backend is away or overloaded: then
the call waits, for as long as the backend is not silent for longer than `patience`. Or the backend
cannot answer this prompt: then the call becomes a failed call, and the run goes on.

What tells them apart is whether the backend answers other calls between the failures of this one. A
failure after which it answered another call is a strike; if no other call was answered, a short
probe with another prompt finds out. A call has failed for good once it has more strikes than
`retries`, and so many that chance does not explain them, given how often calls fail that are
answered in the end. One strike is enough for a prompt that has failed for good before.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque

from agents.forms import FreeText, prompt_hash
from sandbox.backends.base import Backend, BackendDown, Call, ModelSettings, Resting, Unavailable
from sandbox.text import clock_time, duration

CHANCE = 1e-6
"""Strikes that are less probable than this are the fault of the call."""

RECENT = 100
"""The latest answered calls tell how often a call fails that is answered in the end."""

PROBE = "probe"
"""The name of the form of a probe, which is in no journal."""

PROBE_SECONDS = 30.0
"""How long a probe may take, and the least time between two that were not answered."""

FIRST_REFUSALS, LATER_REFUSALS = 12, 36
"""Equal refusals in a row after which a session stops: with no answer before them, and later."""


class Trouble:
    """The failures of one call.

    Attributes:
        failures: how often it was sent without getting a reply.
        strikes: how many of them came while its backend answered others.
        own_strikes: how many of these the backend did not explain with its load.
        since: when the first was, on the monotonic clock; None before.
        seen: the number of answers of the backend at the last strike.
    """

    def __init__(self, seen: int) -> None:
        self.failures = 0
        self.strikes = 0
        self.own_strikes = 0
        self.since: float | None = None
        self.seen = seen


class Health:
    """What has become of the calls to one backend in this session.

    Args:
        backend: the backend.
        settings: its patience, timeout and retries.

    Attributes:
        backend, settings: the same.
        answers: the number of replies, also to probes.
    """

    def __init__(self, backend: Backend, settings: ModelSettings) -> None:
        self.backend = backend
        self.settings = settings
        self.answers = 0
        self._patience = settings.patience
        self._probe_seconds = min(settings.timeout or PROBE_SECONDS, PROBE_SECONDS)
        self._silent_since: float | None = None
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._probing = asyncio.Lock()
        self._owed: int | None = None  # the number of answers when a probe became due
        self._next_probe = 0.0
        self._given_up: set[bytes] = set()  # hashes of prompts

    def answered(self, failures: int = 0) -> None:
        """Report a reply, and how often the call had failed before."""
        self.answers += 1
        self._silent_since = None
        self._recent.append(failures)

    def seconds_left(self) -> float:
        """Return the seconds until the patience ends, if nothing is answered until then."""
        if self._silent_since is None:
            return self._patience
        return self._patience - (time.monotonic() - self._silent_since)

    async def failed(self, call: Call, trouble: Trouble, error: Unavailable) -> bool:
        """Report that a call got no reply; return whether it has failed for good.

        Raises:
            BackendDown: the backend has been silent, or asks to wait, for longer than `patience`.
        """
        if error.after > 0 and not error.asked:
            self._owed = self.answers
        if isinstance(error, Resting):
            self._check_patience(error)
            return False
        trouble.failures += 1
        trouble.since = trouble.since or time.monotonic()
        if await self._answers_others(call, trouble):
            trouble.seen = self.answers
            trouble.strikes += 1
            trouble.own_strikes += not error.busy
        prompt = prompt_hash(call.system, call.user)
        if self._is_to_blame(trouble, prompt in self._given_up):
            self._given_up.add(prompt)
            return True
        self._check_patience(error)
        return False

    async def before_retry(self, call: Call) -> None:
        """Send a probe that was due while the backend rested, before the calls that may fail.

        All calls wait for it. Without it, calls that cannot be answered would each time let the
        backend rest again, and nobody would learn that it answers others.
        """
        if self._owed is not None:
            await self._probe(call, self._owed)
            self._owed = None

    def _check_patience(self, error: Unavailable) -> None:
        """Begin to count the silence of the backend, or end the session."""
        patience = f"(patience: {duration(self._patience)})"
        if error.asked and error.after > self._patience:
            until = clock_time(time.time() + error.after)
            raise BackendDown(f"{error}; it asks to wait until {until} {patience}")
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        if self.seconds_left() <= 0:
            silent = duration(time.monotonic() - self._silent_since)
            raise BackendDown(f"{error}; no call was answered for {silent} {patience}")

    def _is_to_blame(self, trouble: Trouble, given_up: bool) -> bool:
        """Whether a call has failed for good: at once, or for its load after the patience."""
        assert trouble.since is not None
        if given_up and trouble.own_strikes:
            return True
        strikes = trouble.own_strikes
        if time.monotonic() - trouble.since > self._patience:
            strikes = trouble.strikes
        failed = sum(self._recent)
        share = (failed + 1) / (failed + len(self._recent) + 2)
        return strikes > self.settings.retries and share**strikes < CHANCE

    async def _answers_others(self, call: Call, trouble: Trouble) -> bool:
        """Whether the backend has answered another call since the last strike of this one."""
        await self._probe(call, trouble.seen)
        return self.answers > trouble.seen

    async def _probe(self, call: Call, seen: int) -> None:
        """Send a short prompt on the way that a call takes, unless there were answers since `seen`.

        One probe at a time: it serves all calls that wait for it.
        """
        async with self._probing:
            if self.answers > seen or time.monotonic() < self._next_probe:
                return
            probe = call._replace(
                name=call.name._replace(form=PROBE),
                system="You are helpful.",
                user="Say yes.",
                shape=FreeText(),
                max_tokens=16,
            )
            try:
                async with asyncio.timeout(self._probe_seconds):
                    await self.backend.answer(probe)
            except Resting:
                self._owed = self.answers
            except Exception:  # the backend's code may be a user's own
                self._next_probe = time.monotonic() + PROBE_SECONDS
            else:
                self.answered()


class Refusals:
    """Counts equal refusals in a row of one role, so that a run in which nothing works stops.

    Args:
        model: the name of the model.
        asked_again: number of calls that failed in earlier sessions, and may do so again.
    """

    def __init__(self, model: str, asked_again: int = 0) -> None:
        self._model = model
        self._asked_again = asked_again
        self._answered = False
        self._words = ""
        self._count = 0

    def answered(self) -> None:
        """Report a reply."""
        self._answered = True
        self._count = 0

    def refused(self, reason: str) -> None:
        """Report a call that was refused.

        Raises:
            BackendDown: too many were refused in a row, for the same reason.
        """
        words = _VARYING.sub("#", reason)[:_COMPARED]
        self._count = self._count + 1 if words == self._words else 1
        self._words = words
        most = LATER_REFUSALS if self._answered else FIRST_REFUSALS
        if self._count >= most + self._asked_again:
            raise BackendDown(
                f"the model {self._model} refused {self._count} calls in a row, and answered none: "
                f"{reason}"
            )


_VARYING = re.compile(r"\b(?=\w*\d)[\w-]+")  # numbers and identifiers
_COMPARED = 200  # characters of a reason
