"""The one way to a model: replay from the journal, else ask the backend, then commit.

A call is named before it is made, and its seed follows from its name. Its reply is in the journal
before anything that depends on it is asked. On resume, a call with the same name and the same
prompt is replayed; the same name with another prompt is an error, for something has changed.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy.exc import DBAPIError

from agents.chance import seed_of
from agents.forms import Form, Judgement, Parsed, Prompt, Status, clean
from agents.memory import Recalled
from sandbox.backends.base import Backend, BackendDown, Call, CallFailed, CallName, Reply
from storage import tables
from storage.database import one_line
from storage.errors import InputError
from storage.reader import Journalled, Reader
from storage.writer import Writer

T = TypeVar("T")

_GROUP_SECONDS = 0.005  # how long a reply waits for others to be committed with


class Speaker(NamedTuple):
    """A model in a role: who answers, its number in the database, and how it is asked."""

    backend: Backend
    model_id: int
    max_tokens: int
    temperature: float


class Answered(NamedTuple, Generic[T]):
    """A call that is in the journal: what was read from its reply, and its number there."""

    parsed: Parsed[T]
    call_id: int


@dataclass
class Counts:
    """What a run has done in this sitting; the live display reads it."""

    calls: int = 0
    replayed: int = 0
    failed: int = 0
    unparsed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    in_flight: int = 0


@dataclass
class Clock:
    """Time at work: it goes on from where an earlier sitting stopped."""

    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Seconds at work, over all sittings."""
        return self.before + time.monotonic() - self.began

    def milliseconds(self) -> int:
        """The same in whole milliseconds."""
        return int(self.seconds() * 1000)


class Gate:
    """Lets so many calls through at once; of those that wait, the earliest round goes first."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._queue: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._arrivals = 0

    async def enter(self, name: CallName) -> None:
        """Wait for a place. Whoever is cancelled while waiting takes none."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._queue, (name.round, name.episode, self._arrivals, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        while self._queue:
            turn = heapq.heappop(self._queue)[-1]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class GroupCommit:
    """Commits what the writer holds, for all that wait for it at once."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._group: list[asyncio.Future[None]] = []

    def written(self, hurry: bool) -> asyncio.Future[None]:
        """Done once everything that the writer holds now is committed.

        Args:
            hurry: nobody else is on the way, so there is nothing to wait for.
        """
        loop = asyncio.get_running_loop()
        if not self._group:
            loop.call_later(0 if hurry else _GROUP_SECONDS, self._commit)
        waiting = loop.create_future()
        self._group.append(waiting)
        return waiting

    def _commit(self) -> None:
        group, self._group = self._group, []
        failure = None
        try:
            self._writer.commit()
        except DBAPIError as error:
            failure = BackendDown(f"the database cannot be written: {one_line(error)}")
        for waiting in group:
            if waiting.done():
                continue
            if failure is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(failure)


class Journal:
    """The calls of earlier sittings, at hand for the episodes that are being played.

    Args:
        reader: the run that they are read from.
        copy: write what is replayed again (into another database).
    """

    def __init__(self, reader: Reader, copy: bool = False) -> None:
        self._reader = reader
        self.copy = copy
        self._begun = reader.begun_episodes(all_of_them=copy)
        self._calls: dict[int, dict[tuple[object, ...], Journalled]] = {}

    def open(self, episode: int) -> None:
        """Load the calls of an episode, where it has any."""
        if episode in self._begun:
            rows = self._reader.journal(episode)
            self._calls[episode] = {row.key: row for row in rows}

    def close(self, episode: int) -> None:
        """Let go of an episode's calls."""
        self._calls.pop(episode, None)

    def find(self, name: CallName) -> Journalled | None:
        """The call of this name, if it was made before."""
        calls = self._calls.get(name.episode)
        return calls.get((name.form, name.agent, name.turn, name.attempt)) if calls else None


def prompt_hash(prompt: Prompt) -> bytes:
    """16 bytes of BLAKE2b over the system message, a zero byte, and the user message."""
    return blake2b(f"{prompt.system}\0{prompt.user}".encode(), digest_size=16).digest()


class Caller:
    """Asks models on behalf of episodes. All calls of a run go through one instance.

    Args:
        seed: the run's seed.
        writer: where replies are journalled.
        forms: the numbers of the forms in the database, by name.
        social, observer: who answers for agents, and who for the observer.
        journal: what was answered before.
        gate: how many calls may be at the backends at once.
        clock: time at work.
    """

    def __init__(
        self,
        *,
        seed: int,
        writer: Writer,
        forms: Mapping[str, int],
        social: Speaker,
        observer: Speaker,
        journal: Journal,
        gate: Gate,
        clock: Clock,
    ) -> None:
        self.counts = Counts()
        self.journal = journal
        self._seed = seed
        self._writer = writer
        self._forms = forms
        self._social = social
        self._observer = observer
        self._gate = gate
        self._clock = clock
        self._group = GroupCommit(writer)

    async def call(
        self, name: CallName, form: Form[T], prompt: Prompt, past: Recalled | None
    ) -> Answered[T]:
        """Have a form filled in, and return once the reply is in the journal.

        Raises:
            InputError: the journal holds this call with another prompt.
            BackendDown: no call can be answered, or journalled, any more.
        """
        speaker = self._observer if name.agent is None else self._social
        digest = prompt_hash(prompt)
        known = self.journal.find(name)
        if known is not None:
            return self._replay(name, form, known, digest, prompt, past, speaker)
        call = Call(
            name,
            seed_of(self._seed, name),
            prompt.system,
            prompt.user,
            form.reply,
            form.reply.max_tokens or speaker.max_tokens,
            speaker.temperature,
        )
        await self._gate.enter(name)
        self.counts.in_flight += 1
        started = self._clock.milliseconds()
        reply: Reply | None = None
        error = None
        try:
            reply = await speaker.backend.answer(call)
        except CallFailed as failure:
            error = str(failure) or type(failure).__name__
        finally:
            self.counts.in_flight -= 1
            self._gate.leave()
        took = self._clock.milliseconds() - started
        answer = self._enter(
            name, form, prompt, digest, past, speaker, _row_of(reply, error, started, took)
        )
        await self._group.written(hurry=self.counts.in_flight == 0)
        return answer

    def _replay(
        self,
        name: CallName,
        form: Form[T],
        known: Journalled,
        digest: bytes,
        prompt: Prompt,
        past: Recalled | None,
        speaker: Speaker,
    ) -> Answered[T]:
        if known.prompt_hash != digest:
            raise InputError(
                f"call {name}: the journal holds another prompt for it; expected the form "
                f"{name.form}, the personas and the memories that the run was started with"
            )
        self.counts.replayed += 1
        if not self.journal.copy:
            return Answered(_parse(form, known.reply, known.cut), known.call_id)
        row = {column: getattr(known, column) for column in _COPIED}
        return self._enter(name, form, prompt, digest, past, speaker, row)

    def _enter(
        self,
        name: CallName,
        form: Form[T],
        prompt: Prompt,
        digest: bytes,
        past: Recalled | None,
        speaker: Speaker,
        row: dict[str, Any],
    ) -> Answered[T]:
        """Hand a call over to the writer."""
        writer = self._writer
        reply: str | None = row["reply"]
        parsed = _parse(form, reply, row["cut"])
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
            model_id=speaker.model_id,
            prompt=writer.text_list(prompt.segments),
            prompt_hash=digest,
            reply=None if reply is None else writer.text_list(_pieces(reply, parsed)),
            status=parsed.status.value,
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

    async def flush(self) -> None:
        """Commit what is still waiting."""
        await self._group.written(hurry=True)


UNPARSED = (Status.UNREADABLE, Status.EMPTY, Status.CUT)
"""Replies that do not say all that the form asks for."""

_COPIED = ("reply", "cut", "error", "tokens_in", "tokens_out", "cached_tokens", "started", "took")


def _row_of(reply: Reply | None, error: str | None, started: int, took: int) -> dict[str, Any]:
    row = {"error": error, "started": started, "took": took}
    if reply is None:
        return (
            row
            | dict.fromkeys(("reply", "tokens_in", "tokens_out", "cached_tokens"))
            | {"cut": False}
        )
    return row | reply._asdict() | {"reply": clean(reply.text)}


def _parse(form: Form[T], reply: str | None, cut: bool) -> Parsed[T]:
    return Parsed(None, Status.FAILED) if reply is None else form.reply.parse(reply, cut)


def _pieces(reply: str, parsed: Parsed[Any]) -> tuple[str, ...]:
    """A reply in the pieces in which it is stored, so that a reason is stored once."""
    value = parsed.value
    if isinstance(value, Judgement) and value.reason and reply.endswith(value.reason):
        return reply[: -len(value.reason)], value.reason
    return (reply,)
