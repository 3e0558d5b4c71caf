"""The one way to a model: replay from the journal, else ask the backend, then commit.

A call is named before it is made, and its seed follows from its name. Its reply is in the journal
before anything that depends on it is asked. On resume, a call with the same name and the same
prompt is replayed; the same name with another prompt is an error, for something has changed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from agents.chance import seed_of
from agents.forms import (
    UNPARSED,
    CallName,
    Form,
    Judgement,
    Parsed,
    Prompt,
    Status,
    clean,
    prompt_hash,
)
from agents.memory import Recalled
from sandbox.backends.base import Backend, BackendDown, Call, CallFailed, Reply, Unavailable
from sandbox.engine.journal import GroupCommit, Journal
from sandbox.engine.limits import Budget, Gate, Turn
from sandbox.progress import Clock, Counts
from storage import tables
from storage.errors import InputError
from storage.reader import Journalled
from storage.writer import Writer

T = TypeVar("T")


class Stopped(Exception):
    """No further call is made in this sitting; those under way are waited for."""


class Speaker(NamedTuple):
    """A model in a role: who answers, its number in the database, and how it is asked.

    `timeout` is in seconds; `retries` counts how often the same call is asked again, with the same
    seed, while the backend is only unavailable.
    """

    backend: Backend
    model_id: int
    max_tokens: int
    temperature: float
    timeout: float | None
    retries: int


class Answered(NamedTuple, Generic[T]):
    """A call that is in the journal: what was read from its reply, and its number there."""

    parsed: Parsed[T]
    call_id: int


class _Asked(NamedTuple, Generic[T]):
    """A call on its way."""

    name: CallName
    form: Form[T]
    prompt: Prompt
    past: Recalled | None
    speaker: Speaker
    adapter: str | None
    turn: Turn
    digest: bytes


class Caller:
    """Asks models on behalf of episodes. All calls of a run go through one instance.

    Args:
        seed: the run's seed.
        writer: where replies are journalled.
        forms: the numbers of the forms in the database, by name, in the world's order.
        speakers: who answers for an agent, given its number; given None, for nobody in particular.
        observer: who answers for the observer.
        journal: what was answered before.
        gate: how many calls may be at the backends at once.
        clock: time at work.
        budget: what this sitting may spend.
    """

    def __init__(
        self,
        *,
        seed: int,
        writer: Writer,
        forms: Mapping[str, int],
        speakers: Callable[[int | None], Speaker],
        observer: Speaker,
        journal: Journal,
        gate: Gate,
        clock: Clock,
        budget: Budget,
    ) -> None:
        self.counts = Counts()
        self.journal = journal
        self.stopping: str | None = None
        self._seed = seed
        self._writer = writer
        self._forms = forms
        self._speakers = speakers
        self._observer = observer
        self._gate = gate
        self._clock = clock
        self._budget = budget
        self._group = GroupCommit(writer)
        self._asked = 0
        self._jitter = random.Random(seed)
        self._stop = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Make no further call."""
        self.stopping = self.stopping or reason
        self._stop.set()

    async def call(
        self,
        name: CallName,
        form: Form[T],
        prompt: Prompt,
        past: Recalled | None,
        adapter: str | None,
        depth: int,
        observing: bool,
    ) -> Answered[T]:
        """Have a form filled in, and return once the reply is in the journal.

        Args:
            name: which call it is.
            form: what is asked.
            prompt: the form, rendered.
            past: the memory that the prompt shows.
            adapter: the LoRA adapter that the speaker's persona names.
            depth: how many calls its episode has had answered.
            observing: the observer answers.

        Raises:
            InputError: the journal holds this call with another prompt.
            BackendDown: no call can be answered, or journalled, any more.
            Stopped: no further call is to be made.
        """
        speaker = self._observer if observing else self._speakers(name.agent)
        turn = Turn(name.round + observing, depth, name.episode)
        asked = _Asked(name, form, prompt, past, speaker, adapter, turn, prompt_hash(prompt))
        known = self.journal.find(name)
        if known is not None and self._still_holds(asked, known):
            return self._replay(asked, known)
        row = await self._ask(asked)
        answer = self._enter(asked, row)
        await self._group.written(hurry=self.counts.in_flight == 0)
        return answer

    def _still_holds(self, asked: _Asked[T], known: Journalled) -> bool:
        """Whether a journalled call can be replayed; one that was given up is crossed out."""
        if known.prompt_hash == asked.digest:
            return True
        if not self.journal.accept_changes:
            raise InputError(
                f"call {asked.name}: the journal holds another prompt for it; expected the form "
                f"{asked.name.form}, the personas and the memories that the run was started with "
                "(--accept-changes asks it anew)"
            )
        self._writer.delete_call(known.call_id)
        return False

    def _replay(self, asked: _Asked[T], known: Journalled) -> Answered[T]:
        self.counts.replayed += 1
        if self.journal.copy:
            return self._enter(asked, {column: getattr(known, column) for column in _COPIED})
        return Answered(_parse(asked.form, known.reply, known.cut), known.call_id)

    async def _ask(self, asked: _Asked[T]) -> dict[str, Any]:
        """Ask the backend when it is this call's turn; returns the columns of what came back."""
        self._check()
        await self._gate.enter(asked.turn)
        self.counts.in_flight += 1
        try:
            self._check()
            self._asked += 1
            started = self._clock.milliseconds()
            try:
                reply = await self._answer(asked)
            except CallFailed as failure:
                row: dict[str, Any] = {**_NO_REPLY, "error": str(failure) or "failed"}
            else:
                row = {**reply._asdict(), "error": None}
                row["reply"] = clean(row.pop("text"))
                row["thinking"] = row["thinking"] and clean(row["thinking"])
        finally:
            self.counts.in_flight -= 1
            self._gate.leave()
        row.update(started=started, took=self._clock.milliseconds() - started)
        return row

    def _check(self) -> None:
        counts = self.counts
        spent = self._budget.spent(
            self._asked, counts.tokens_in + counts.tokens_out, self._clock.sitting()
        )
        if spent:
            self.stop(spent)
        if self.stopping:
            raise Stopped(self.stopping)

    async def _answer(self, asked: _Asked[T]) -> Reply:
        speaker, shape = asked.speaker, asked.form.reply
        call = Call(
            asked.name,
            seed_of(self._seed, asked.name),
            asked.prompt.system,
            asked.prompt.user,
            shape,
            shape.max_tokens or speaker.max_tokens,
            speaker.temperature,
            asked.turn.priority,
            asked.adapter,
        )
        after = 0.0
        for attempt in range(speaker.retries + 1):
            if attempt:
                await self._pause(max(after, pause(attempt, self._jitter)))
            try:
                async with asyncio.timeout(speaker.timeout):
                    return await speaker.backend.answer(call)
            except Unavailable as error:
                problem, after = str(error), error.after
            except TimeoutError:
                after = 0.0
                problem = f"no reply within {speaker.timeout:g} seconds"
        raise BackendDown(f"call {asked.name}: {problem}, {speaker.retries + 1} times")

    async def _pause(self, seconds: float) -> None:
        """Wait before a call is asked again, unless no further call is to be made."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        self._check()

    def _enter(self, asked: _Asked[T], row: dict[str, Any]) -> Answered[T]:
        """Hand a call over to the writer."""
        writer, name, past = self._writer, asked.name, asked.past
        reply: str | None = row["reply"]
        parsed = _parse(asked.form, reply, row["cut"])
        if past is not None:
            writer.known(past.answer, past.text_id)
        call_id = writer.base + writer.new_id(tables.calls)
        row.update(
            id=call_id,
            episode_id=writer.base + name.episode,
            form_id=self._forms[name.form],
            agent=name.agent,
            turn=name.turn,
            attempt=name.attempt,
            model_id=asked.speaker.model_id,
            prompt=writer.text_list(asked.prompt.segments),
            prompt_hash=asked.digest,
            reply=None if reply is None else writer.text_list(_pieces(reply, parsed)),
            thinking=row["thinking"] and writer.text_list((row["thinking"],)),
            status=(parsed.status if parsed.value is None else Status.OK).value,
            memory_id=past and past.memory_id,
            distance=past and past.distance,
        )
        writer.add(tables.calls, row)
        self._count(row)
        return Answered(parsed, call_id)

    def _count(self, row: Mapping[str, Any]) -> None:
        counts = self.counts
        counts.calls += 1
        counts.failed += row["status"] == Status.FAILED
        counts.unparsed += row["status"] in UNPARSED
        counts.tokens_in += row["tokens_in"] or 0
        counts.tokens_out += row["tokens_out"] or 0
        counts.tokens_cached += row["cached_tokens"] or 0

    async def flush(self) -> None:
        """Commit what is still waiting."""
        await self._group.written(hurry=True)


def pause(attempt: int, jitter: random.Random) -> float:
    """Seconds before a call is asked again: twice as long each time, at most a minute or so."""
    return min(60.0, 2.0**attempt) * jitter.uniform(0.5, 1.0)


_SAID = ("tokens_in", "tokens_out", "cached_tokens", "thinking", "expected")
_COPIED = ("reply", "cut", "error", *_SAID, "started", "took")
_NO_REPLY = {"reply": None, "cut": False} | dict.fromkeys(_SAID)


def _parse(form: Form[T], reply: str | None, cut: bool) -> Parsed[T]:
    return Parsed(None, Status.FAILED) if reply is None else form.reply.parse(reply, cut)


def _pieces(reply: str, parsed: Parsed[Any]) -> tuple[str, ...]:
    """A reply in the pieces in which it is stored, so that a reason is stored once."""
    value = parsed.value
    if isinstance(value, Judgement) and value.reason and reply.endswith(value.reason):
        return reply[: -len(value.reason)], value.reason
    return (reply,)
