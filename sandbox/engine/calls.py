"""Calls of episodes: named, sent through the layers, journalled, and parsed.

A call is named before it is sent, and its seed follows from its name. Its reply is in the journal
before anything that depends on it is requested. On resume, a call with the same name and the same
prompt is replayed; the same name with another prompt is an error, since something has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from agents.chance import seed_of
from agents.forms import (
    READ,
    UNPARSED,
    CallName,
    Form,
    Judgement,
    Parsed,
    Prompt,
    Status,
    clean,
    parse_reply,
    prompt_hash,
)
from agents.memory import Recalled
from agents.stops import NO_STOPS, Stops
from sandbox.backends.base import Call, Reply
from sandbox.engine.journal import GroupCommit, Journal
from sandbox.engine.layers import Answer, Result
from sandbox.progress import Counts
from storage import tables
from storage.writer import Writer

T = TypeVar("T")


class RoleModel(NamedTuple):
    """The model of a role.

    Attributes:
        answer: its backend with the layers around it.
        model_id: its row in the database.
        max_tokens, temperature: its sampling parameters.
        stop: its stop strings; None for those of the prompt templates.
    """

    answer: Answer
    model_id: int
    max_tokens: int
    temperature: float
    stop: Stops | None = None


class Answered(NamedTuple, Generic[T]):
    """A journalled call: its parsed reply and its row."""

    parsed: Parsed[T]
    call_id: int


class Caller:
    """Sends the calls of all episodes of a run.

    Args:
        seed: the run's seed.
        writer: writes the journal.
        forms: the rows of the prompt templates, by name.
        stops: the stop strings that follow from the prompt templates of prose and lines, by name.
        shorten: keep truncated prose to its last whole sentence.
        models: the model of an agent, by its number; for None, the model of the role `social`.
        observer: the model of the observer.
        journal: the calls of earlier sessions.
        counts: counters of this session.
    """

    def __init__(
        self,
        *,
        seed: int,
        writer: Writer,
        forms: Mapping[str, int],
        stops: Mapping[str, Stops],
        shorten: bool,
        models: Callable[[int | None], RoleModel],
        observer: RoleModel,
        journal: Journal,
        counts: Counts,
    ) -> None:
        self.journal = journal
        self.counts = counts
        self._seed = seed
        self._writer = writer
        self._forms = forms
        self._stops = stops
        self._shorten = shorten
        self._models = models
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
        """Send a call, and return once its reply is in the journal.

        Args:
            name: the name of the call.
            form: the prompt template.
            prompt: the template, rendered.
            past: the memory that the prompt shows.
            adapter: the LoRA adapter that the agent's persona names.
            depth: number of calls of its episode that have been answered.
            observing: send it to the observer.

        Raises:
            InputError: the journal has this call with another prompt.
            BackendDown: no further call can be answered or journalled.
            Stopped: the session is stopped.
        """
        model = self._observer if observing else self._models(name.agent)
        shape = form.reply
        call = Call(
            name,
            seed_of(self._seed, name),
            prompt.system,
            prompt.user,
            shape,
            shape.max_tokens or model.max_tokens,
            model.temperature,
            _priority(name.round + observing, depth),
            adapter,
            self._stop(form, model),
        )
        result = await model.answer(call)
        if result.call_id is not None:
            reply = result.reply
            text, cut = (None, False) if reply is None else (reply.text, reply.cut)
            if past is not None and self.journal.asked_again is not None:
                self._writer.refer(
                    result.call_id, past.memory_id, past.distance, self._further(past)
                )
            parsed = self._parse(form, text, cut, result.status)
            return Answered(parsed, result.call_id)
        answered = self._record(call, form, prompt, past, model.model_id, result)
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
        """Parse a reply, and pass the call to the writer."""
        writer, name = self._writer, call.name
        reply = _NO_REPLY if result.reply is None else result.reply
        text = None if result.reply is None else clean(reply.text)
        thinking = reply.thinking and clean(reply.thinking)
        parsed = self._parse(form, text, reply.cut, result.status, reply.constrained)
        for memory in () if past is None else past.all:
            writer.cache_text(memory.answer, memory.text_id)
        call_id = writer.base + writer.new_id(tables.calls)
        status = _status(parsed)
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
                "raw": reply.raw and clean(reply.raw),
                "started": result.started,
                "took": result.took,
                "memory_id": past and past.memory_id,
                "distance": past and past.distance,
                "further": past and self._further(past),
            },
        )
        self._count(name, status, reply, result.error or text or "")
        return Answered(parsed, call_id)

    def _stop(self, form: Form[Any], model: RoleModel) -> Stops:
        """The stop strings of a call; none where replies end by their form."""
        of_form = self._stops.get(form.name, NO_STOPS)
        return of_form if model.stop is None or of_form is NO_STOPS else model.stop

    def _parse(
        self,
        form: Form[T],
        text: str | None,
        cut: bool,
        known: str | None,
        constrained: bool = False,
    ) -> Parsed[T]:
        """Parse a reply; one that is replayed is read as it was read when it was new."""
        if text is None:
            return Parsed(None, Status.FAILED)
        shorten = self._shorten if known is None else known == Status.SHORTENED
        reply = parse_reply(form.reply, text, cut, constrained or known == Status.OK, shorten)
        if reply.status is Status.LENIENT and known in UNPARSED:
            return Parsed(None, Status(known))
        return reply

    def _further(self, past: Recalled) -> str | None:
        """The memories after the first, as the column `further` has them."""
        base = self._writer.base
        pairs = [f"{memory.memory_id - base}:{memory.distance}" for memory in past.further]
        return ",".join(pairs) or None

    def _count(self, name: CallName, status: Status, reply: Reply, example: str) -> None:
        counts, of_form = self.counts, self.counts.forms[name.form]
        of_form.calls += 1
        if status not in READ:
            of_form.failed += status is Status.FAILED
            of_form.unparsed += status in UNPARSED
            of_form.missing[status] += 1
            of_form.example = example
        counts.calls += 1
        counts.open[name.episode] += 1
        counts.failed += status is Status.FAILED
        counts.unparsed += status in UNPARSED
        counts.tokens_in += reply.tokens_in or 0
        counts.tokens_out += reply.tokens_out or 0
        counts.tokens_cached += reply.cached_tokens or 0

    async def flush(self) -> None:
        """Commit everything that is waiting to be written."""
        await self._group.written(hurry=True)


_NO_REPLY = Reply("")


def _priority(round: int, depth: int) -> int:
    """Dispatch priority; lower runs first, so lagging episodes catch up.

    Args:
        round: the round of the call; for an observation the next one, since no episode waits for
            it.
        depth: number of calls of its episode that have been answered: drafts run before ratings,
            ratings before revisions, and early acts of a scene before late ones.
    """
    return 1000 * round + min(depth, 999)


def _status(parsed: Parsed[Any]) -> Status:
    """The status of a call: a truncated reply that has a value is ok."""
    if parsed.value is None or parsed.status in (Status.LENIENT, Status.SHORTENED):
        return parsed.status
    return Status.OK


def _pieces(reply: str, parsed: Parsed[Any]) -> tuple[str, ...]:
    """Split a reply into the texts that are stored, so that a reason is stored once."""
    value = parsed.value
    if isinstance(value, Judgement) and value.reason and reply.endswith(value.reason):
        return reply[: -len(value.reason)], value.reason
    return (reply,)
