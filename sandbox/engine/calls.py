"""Calls on behalf of episodes: named, answered through the layers, journalled, and parsed.

A call is named before it is made, and its seed follows from its name. Its reply is in the journal
before anything that depends on it is asked. On resume, a call with the same name and the same
prompt is replayed; the same name with another prompt is an error, for something has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from sandbox.backends.base import Call, Reply
from sandbox.engine.journal import GroupCommit, Journal
from sandbox.engine.layers import Answer, Result
from sandbox.progress import Counts
from storage import tables
from storage.writer import Writer

T = TypeVar("T")


class Speaker(NamedTuple):
    """A model in a role.

    Attributes:
        answer: the layers around its backend.
        model_id: its row in the database.
        max_tokens, temperature: how it is sampled.
    """

    answer: Answer
    model_id: int
    max_tokens: int
    temperature: float


class Answered(NamedTuple, Generic[T]):
    """A call that is in the journal: what was read from its reply, and its row there."""

    parsed: Parsed[T]
    call_id: int


class Caller:
    """Asks models on behalf of episodes. All calls of a run go through one instance.

    Args:
        seed: the run's seed.
        writer: where replies are journalled.
        forms: the rows of the forms in the database, by name.
        speakers: the speaker for an agent, by its number; for None, the one who is nobody in
            particular.
        observer: the speaker for the observer.
        journal: the calls of earlier sittings.
        counts: what the run has done in this sitting.
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
        counts: Counts,
    ) -> None:
        self.journal = journal
        self.counts = counts
        self._seed = seed
        self._writer = writer
        self._forms = forms
        self._speakers = speakers
        self._observer = observer
        self._group = GroupCommit(writer)

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
            depth: how many calls of its episode have been answered.
            observing: the observer answers.

        Raises:
            InputError: the journal holds this call with another prompt.
            BackendDown: no call can be answered, or journalled, any more.
            Stopped: no further call is to be made.
        """
        speaker = self._observer if observing else self._speakers(name.agent)
        shape = form.reply
        call = Call(
            name,
            seed_of(self._seed, name),
            prompt.system,
            prompt.user,
            shape,
            shape.max_tokens or speaker.max_tokens,
            speaker.temperature,
            _priority(name.round + observing, depth),
            adapter,
        )
        result = await speaker.answer(call)
        if result.call_id is not None:
            reply = result.reply
            text, cut = (None, False) if reply is None else (reply.text, reply.cut)
            return Answered(_parse(form, text, cut), result.call_id)
        answered = self._record(call, form, prompt, past, speaker.model_id, result)
        if not self.journal.copy:
            await self._group.written(hurry=self.counts.in_flight == 0)
        return answered

    def _record(
        self,
        call: Call,
        form: Form[T],
        prompt: Prompt,
        past: Recalled | None,
        model_id: int,
        result: Result,
    ) -> Answered[T]:
        """Parse a reply, and hand the call over to the writer."""
        writer, name = self._writer, call.name
        reply = _NO_REPLY if result.reply is None else result.reply
        text = None if result.reply is None else clean(reply.text)
        thinking = reply.thinking and clean(reply.thinking)
        parsed = _parse(form, text, reply.cut)
        if past is not None:
            writer.cache_text(past.answer, past.text_id)
        call_id = writer.base + writer.new_id(tables.calls)
        status = parsed.status if parsed.value is None else Status.OK
        writer.add(
            tables.calls,
            {
                "id": call_id,
                "episode_id": writer.base + name.episode,
                "form_id": self._forms[name.form],
                "agent": name.agent,
                "turn": name.turn,
                "attempt": name.attempt,
                "model_id": model_id,
                "prompt": writer.text_list(prompt.segments),
                "prompt_hash": prompt_hash(call.system, call.user),
                "reply": None if text is None else writer.text_list(_pieces(text, parsed)),
                "thinking": thinking and writer.text_list((thinking,)),
                "cut": reply.cut,
                "status": status.value,
                "error": result.error,
                "tokens_in": reply.tokens_in,
                "tokens_out": reply.tokens_out,
                "cached_tokens": reply.cached_tokens,
                "expected": reply.expected,
                "started": result.started,
                "took": result.took,
                "memory_id": past and past.memory_id,
                "distance": past and past.distance,
            },
        )
        self._count(status, reply)
        return Answered(parsed, call_id)

    def _count(self, status: Status, reply: Reply) -> None:
        counts = self.counts
        counts.calls += 1
        counts.failed += status is Status.FAILED
        counts.unparsed += status in UNPARSED
        counts.tokens_in += reply.tokens_in or 0
        counts.tokens_out += reply.tokens_out or 0
        counts.tokens_cached += reply.cached_tokens or 0

    async def flush(self) -> None:
        """Commit what is still waiting."""
        await self._group.written(hurry=True)


_NO_REPLY = Reply("")


def _priority(round: int, depth: int) -> int:
    """Order the calls that wait, the lowest first, so that whoever is behind catches up.

    Args:
        round: of the call. Nobody waits for a score, so a score counts as of the round after.
        depth: how many calls of its episode have been answered: drafts go before ratings, ratings
            before revisions, and of scenes those with the longest way to go.
    """
    return 1000 * round + min(depth, 999)


def _parse(form: Form[T], text: str | None, cut: bool) -> Parsed[T]:
    return Parsed(None, Status.FAILED) if text is None else form.reply.parse(text, cut)


def _pieces(reply: str, parsed: Parsed[Any]) -> tuple[str, ...]:
    """Split a reply into the pieces in which it is stored, so that a reason is stored once."""
    value = parsed.value
    if isinstance(value, Judgement) and value.reason and reply.endswith(value.reason):
        return reply[: -len(value.reason)], value.reason
    return (reply,)
