"""Calls: one call with its exact prompt, and lists in the order of the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from agents.chance import seed_of
from agents.forms import READ, CallName, Status, prompt_hash
from sandbox.reading.declaration import declaration_of
from sandbox.reading.records import PAGES_ONLY, Record
from storage import tables
from storage.errors import NotThere
from storage.reader import Journalled, Reader, parse_further
from storage.search import terms
from storage.tables import first_id

NOT_OK = "not ok"
STATUSES = (*(status.value for status in Status), NOT_OK)
"""The statuses that calls can be filtered by."""

PAGE = 50
"""Rows on a page of a list."""

_BATCH = 500  # calls per query


@dataclass(frozen=True, kw_only=True)
class CallFilter:
    """Which calls a list shows.

    Attributes:
        form: the name of a prompt template.
        agent: the number of the agent that the prompt is for.
        round: of the episode.
        status: one of `STATUSES`.
        tokens_in_min, tokens_in_max: limits of the tokens of the prompt.
        tokens_out_min, tokens_out_max: limits of the tokens of the reply.
        before, after: only calls with lower, with higher numbers.
    """

    form: str | None = None
    agent: int | None = None
    round: int | None = None
    status: str | None = None
    tokens_in_min: int | None = None
    tokens_in_max: int | None = None
    tokens_out_min: int | None = None
    tokens_out_max: int | None = None
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True, kw_only=True)
class CallRow(Record):
    """A call in a list, without its texts.

    Attributes:
        call: its number within the run.
        episode, round: of the episode that it belongs to.
        form, agent, turn, attempt: see `agents.forms.CallName`.
        status, error: of the reply.
        tokens_in, tokens_out, cached_tokens, seconds: its costs.
        distance: the cosine distance of the recalled memory.
        model: the name of the model.
    """

    call: int
    episode: int
    round: int
    form: str
    agent: int | None
    turn: int
    attempt: int
    status: str
    error: str | None
    tokens_in: int | None
    tokens_out: int | None
    cached_tokens: int | None
    seconds: float
    distance: float | None
    model: str


@dataclass(frozen=True, kw_only=True)
class Call(Record):
    """A call with its reply.

    Attributes:
        call: its number within the run.
        name: the name that its seed is derived from.
        cut: whether the token limit truncated the reply.
        reply: None where the call failed; then `error` says why.
        thinking: the reasoning before the answer.
        expected: the expected rating from the probabilities of the labels.
        raw: the response of the server, where it was not wholly understood.
        recalled: the number of the memory that the prompt shows.
        distance: its cosine distance from the question.
        further: the numbers of the memories that the prompt shows after it, nearest first.
        prompt: the user message.
    """

    call: int
    name: str
    model: str
    status: str
    cut: bool
    error: str | None
    reply: str | None
    thinking: str | None
    expected: float | None
    raw: str | None
    tokens_in: int | None
    tokens_out: int | None
    cached_tokens: int | None
    seconds: float
    recalled: int | None
    distance: float | None
    further: list[int]
    form: str = field(metadata=PAGES_ONLY)
    agent: int | None = field(metadata=PAGES_ONLY)
    turn: int = field(metadata=PAGES_ONLY)
    attempt: int = field(metadata=PAGES_ONLY)
    episode: int = field(metadata=PAGES_ONLY)
    round: int = field(metadata=PAGES_ONLY)
    prompt: str = field(metadata=PAGES_ONLY)


@dataclass(frozen=True, kw_only=True)
class CallDetail(Call):
    """One call with its exact prompt.

    Attributes:
        seed: the seed of the request.
        system, prompt: the messages.
        prompt_hash: as it is stored in the journal, in hexadecimal.
        hash_agrees: whether the prompt as rendered now has this hash.
        settings: those of the model, such as its temperature; a prompt template may allow fewer
            tokens than `max_tokens`.
    """

    episode: int
    seed: int
    system: str
    prompt: str
    prompt_hash: str
    hash_agrees: bool
    settings: Mapping[str, Any] = field(metadata=PAGES_ONLY)


class CallPage(NamedTuple):
    """A page of the journal.

    Attributes:
        rows: the calls, the latest first.
        before, after: filters for the pages of older and of newer calls; None: there are none.
    """

    rows: Sequence[CallRow]
    before: int | None
    after: int | None


def call_name(reader: Reader, call: Journalled, episode: int) -> str:
    """The name of a call, from which its seed is derived."""
    round = episode // reader.run.per_round
    name = CallName(round, episode, call.form, call.agent, call.turn, call.attempt)
    return str(name)


def _fields(reader: Reader, call: Journalled, episode: int) -> dict[str, Any]:
    return {
        "call": call.call_id - reader.base,
        "name": call_name(reader, call, episode),
        "model": call.model,
        "status": call.status,
        "cut": call.cut,
        "error": call.error,
        "reply": call.reply,
        "thinking": call.thinking,
        "expected": call.expected,
        "raw": call.raw,
        "tokens_in": call.tokens_in,
        "tokens_out": call.tokens_out,
        "cached_tokens": call.cached_tokens,
        "seconds": call.took / 1000,
        "recalled": None if call.memory_id is None else call.memory_id - reader.base,
        "distance": call.distance,
        "further": [memory for memory, _ in parse_further(call.further)],
        "form": call.form,
        "agent": call.agent,
        "turn": call.turn,
        "attempt": call.attempt,
        "episode": episode,
        "round": episode // reader.run.per_round,
        "prompt": call.prompt,
    }


def calls_of(reader: Reader, episodes: Sequence[int]) -> list[Call]:
    """The calls of the given episodes, in the order of the journal."""
    by_episode = reader.calls_of(episodes)
    unsorted = [
        Call(**_fields(reader, call, episode))
        for episode, calls in by_episode.items()
        for call in calls
    ]
    return sorted(unsorted, key=lambda call: call.call)


def calls(
    reader: Reader,
    search: str | None = None,
    round: int | None = None,
    failures: bool = False,
    limit: int | None = None,
    status: str | None = None,
) -> list[Call]:
    """List calls in the order of the journal.

    Args:
        reader: the run.
        search: only calls whose reply or error contains this; see `storage.search.terms`.
        round: only calls of this round.
        failures: only calls without a usable reply.
        limit: the maximum number; None: all.
        status: only calls with this status.
    """
    searched = terms(search or "")
    matches = (
        call
        for call in _stream(reader, round, NOT_OK if failures else status)
        if all(term.pattern.search(call.reply or call.error or "") for term in searched)
    )
    return list(islice(matches, limit))


def _stream(reader: Reader, round: int | None, status: str | None) -> Iterator[Call]:
    c = tables.calls
    query = select(c.c.id, c.c.episode_id).where(reader.belongs_to_run(c.c.id)).order_by(c.c.id)
    if round is not None:
        query = query.where(_in_round(reader, round))
    query = query.where(*_with_status(status))
    rows = reader.rows(query)
    while batch := list(islice(rows, _BATCH)):
        yield from _with_texts(reader, [(row.id, row.episode_id) for row in batch])


def _with_texts(reader: Reader, ids: Sequence[tuple[int, int]]) -> list[Call]:
    """The calls with these ids, each with the id of its episode, in the order of the journal."""
    numbers = {call_id - reader.base for call_id, _ in ids}
    episodes = sorted({episode_id - reader.base for _, episode_id in ids})
    return [call for call in calls_of(reader, episodes) if call.call in numbers]


def _in_round(reader: Reader, round: int) -> ColumnElement[bool]:
    first = reader.base + round * reader.run.per_round
    return tables.calls.c.episode_id.between(first, first + reader.run.per_round - 1)


def last_error(reader: Reader) -> str:
    """The error of the latest failed call."""
    c = tables.calls
    query = select(c.c.error).where(reader.belongs_to_run(c.c.id), c.c.error.is_not(None))
    return str(reader.scalar(query.order_by(c.c.id.desc()).limit(1)))


def call(reader: Reader, number: int) -> CallDetail:
    """Read one call, by its number within the run.

    Raises:
        NotThere: there is no such call.
    """
    c, f, m = tables.calls, tables.forms, tables.models
    query = (
        select(c.c.episode_id, f.c.system, m.c.settings)
        .join(f, f.c.id == c.c.form_id)
        .join(m, m.c.id == c.c.model_id)
        .where(c.c.id == reader.base + number)
    )
    row = reader.first(query)
    if row is None:
        raise NotThere(f"call {number}: no such call; `inspect RUN calls` lists them")
    episode = row.episode_id - reader.base
    calls = reader.journal(episode)
    journalled = next(call for call in calls if call.call_id == reader.base + number)
    fields = _fields(reader, journalled, episode)
    return CallDetail(
        **fields,
        seed=seed_of(reader.run.seed, fields["name"]),
        system=row.system,
        prompt_hash=journalled.prompt_hash.hex(),
        hash_agrees=prompt_hash(row.system, journalled.prompt) == journalled.prompt_hash,
        settings=json.loads(row.settings),
    )


def matching_calls(reader: Reader, wanted: CallFilter) -> int | None:
    """The number of calls that match a filter; None where the summaries do not tell it.

    They tell it for a prompt template and a status.
    """
    if wanted != CallFilter(form=wanted.form, status=wanted.status):
        return None
    s, f = tables.call_sums, tables.forms
    query = select(func.sum(s.c.calls)).join(f, f.c.id == s.c.form_id)
    query = query.where(s.c.run_id == reader.run.id)
    if wanted.form is not None:
        query = query.where(f.c.name == wanted.form)
    if wanted.status == NOT_OK:
        query = query.where(s.c.status.not_in(READ))
    elif wanted.status is not None:
        query = query.where(s.c.status == wanted.status)
    return int(reader.scalar(query) or 0)


def call_titles(reader: Reader, calls: Sequence[CallRow | Call]) -> dict[int, str]:
    """What calls were for, by number: the prompt template, and for ratings what is rated.

    For example ``observer: alignment of the revision``. The stage is left out for attempts that
    gave no rating.
    """
    o, declared = tables.observations, declaration_of(reader)
    scales = {scale.form: scale for scale in declared.observed}
    rating = [call for call in calls if call.form in scales]
    query = select(o.c.call_id, o.c.stage).where(
        o.c.episode_id.in_({reader.base + call.episode for call in rating}),
        o.c.call_id.in_([reader.base + call.call for call in rating]),
    )
    stages = {row.call_id - reader.base: row.stage for row in reader.rows(query)}
    titles = {call.call: call.form.replace("_", " ") for call in calls}
    for call in rating:
        scale, stage = scales[call.form], stages.get(call.call)
        of = "" if stage is None else f" of the {stage.replace('_', ' ')}"
        titles[call.call] = f"{scale.who}: {scale.title}{of}"
    return titles


def call_neighbours(
    reader: Reader, number: int, wanted: CallFilter
) -> tuple[int | None, int | None]:
    """The numbers of the calls before and after one, of those that match a filter."""
    column = tables.calls.c.id
    before, after = (
        select(column).where(*_conditions(reader, bounded)).order_by(order).limit(1)
        for bounded, order in (
            (replace(wanted, before=number, after=None), column.desc()),
            (replace(wanted, before=None, after=number), column.asc()),
        )
    )
    ids = reader.scalar(before), reader.scalar(after)
    older, newer = (None if id is None else int(id) - reader.base for id in ids)
    return older, newer


def call_page(reader: Reader, wanted: CallFilter, size: int = PAGE) -> CallPage:
    """A page of the calls that match a filter, the latest first.

    Keyset pagination: a journal of a million calls is neither counted nor skipped with OFFSET.
    """
    c, f, m = tables.calls, tables.forms, tables.models
    order = _order(wanted)
    query: Select[Any] = (
        select(c, f.c.name.label("form"), m.c.name.label("model"))
        .join(f, f.c.id == c.c.form_id)
        .join(m, m.c.id == c.c.model_id)
        .where(*_conditions(reader, wanted))
        .order_by(order.desc() if wanted.after is None else order)
        .limit(size + 1)
    )
    rows = [_row(reader, row) for row in reader.rows(query)]
    more, rows = len(rows) > size, rows[:size]
    if wanted.after is not None:
        rows.reverse()
    older = more if wanted.after is None else bool(rows)
    newer = more if wanted.after is not None else wanted.before is not None
    return CallPage(
        rows,
        rows[-1].call if rows and older else None,
        rows[0].call if rows and newer else None,
    )


def _conditions(reader: Reader, wanted: CallFilter) -> list[ColumnElement[bool]]:
    c, f = tables.calls, tables.forms
    conditions: list[ColumnElement[bool]] = []
    if wanted.form is not None:
        form_ids = select(f.c.id).where(f.c.run_id == reader.run.id, f.c.name == wanted.form)
        conditions.append(c.c.form_id.in_(form_ids))
    if wanted.agent is not None:
        conditions.append(c.c.agent == wanted.agent)
    if wanted.round is not None:
        conditions.append(_in_round(reader, wanted.round))
    for column in (c.c.tokens_in, c.c.tokens_out):
        least, most = (getattr(wanted, f"{column.name}_{end}") for end in ("min", "max"))
        conditions += [] if least is None else [column >= least]
        conditions += [] if most is None else [column <= most]
    low = reader.base if wanted.after is None else reader.base + wanted.after + 1
    high = first_id(reader.run.id + 1) if wanted.before is None else reader.base + wanted.before
    conditions.append(_order(wanted).between(low, high - 1))
    return [*conditions, *_with_status(wanted.status)]


def _with_status(status: str | None) -> Iterator[ColumnElement[bool]]:
    """The conditions for a status; `NOT_OK` is that of replies without a value."""
    column = tables.calls.c.status
    if status not in (None, "ok"):
        yield column != "ok"  # makes the planner use the partial index
    if status == NOT_OK:
        yield column.not_in(READ)
    elif status is not None:
        yield column == status


def _order(wanted: CallFilter) -> ColumnElement[Any]:
    """The sort key of calls: their id.

    With a round it is an expression, so that the planner uses the index on episodes and does not
    scan the whole journal.
    """
    column = tables.calls.c.id
    return column if wanted.round is None else column + 0


def _row(reader: Reader, row: Any) -> CallRow:
    episode = row.episode_id - reader.base
    return CallRow(
        call=row.id - reader.base,
        episode=episode,
        round=episode // reader.run.per_round,
        form=row.form,
        agent=row.agent,
        turn=row.turn,
        attempt=row.attempt,
        status=row.status,
        error=row.error,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        cached_tokens=row.cached_tokens,
        seconds=row.took / 1000,
        distance=row.distance,
        model=row.model,
    )


def stream_calls(reader: Reader, wanted: CallFilter) -> Iterator[Call]:
    """Yield all calls that match a filter, with their texts, the latest first."""
    while True:
        page = call_page(reader, wanted)
        ids = [(reader.base + row.call, reader.base + row.episode) for row in page.rows]
        yield from reversed(_with_texts(reader, ids))
        if page.before is None:
            return
        wanted = replace(wanted, before=page.before, after=None)
