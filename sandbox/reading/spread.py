"""The spread of an idea: who says what a search looks for, since when, and whom they had it from.

An agent says something if one of its own answers (a draft or a revision) contains all terms of the
search: not if it is asked about it, or if others say it of the answer. Where an agent's first use
came from is read from what its prompts showed: an origin is a possible source, not a proven one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import func, select

from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import SEARCHED
from sandbox.reading.personas import contains_all, persona_name, persona_text
from sandbox.reading.records import Record
from storage import tables
from storage.reader import Reader, parse_further
from storage.search import Term, matches_words, terms

_AT_ONCE = 500  # episodes of a query

Origin = Literal["memory", "reason", "question", "persona", "unprompted"]


@dataclass(frozen=True, kw_only=True)
class FirstUse(Record):
    """The first answer of an agent that says it.

    Attributes:
        agent, name, label: of the agent.
        round, episode: of the exchange.
        stage: the first stage of the exchange that says it.
        origin: what its prompts showed that says it too. `memory`: an answer that was recalled for
            the draft; `reason`: the reason of a rater, where the draft does not say it yet;
            `question`; `persona`; `unprompted`: none of these.
        raters: for `reason`, the numbers of the raters whose reasons say it.
        memory: for `memory`, the number of the first such memory.
    """

    agent: int
    name: str
    label: str
    round: int
    episode: int
    stage: str
    origin: Origin
    raters: Sequence[int] = ()
    memory: int | None = None


@dataclass(frozen=True, kw_only=True)
class RoundOfUses(Record):
    """A round, of the agents with one starting label.

    Attributes:
        round: counted from 0.
        label: the starting label.
        exchanges: the number of their exchanges that say it.
        first: the number of agents that say it for the first time.
        so_far: the number of agents that have said it up to this round.
        agents: the number of all agents with this label.
    """

    round: int
    label: str
    exchanges: int
    first: int
    so_far: int
    agents: int

    @property
    def share(self) -> float:
        """The share of the agents that have said it, 0 to 1."""
        return self.so_far / self.agents


@dataclass(frozen=True, kw_only=True)
class IdeaSpread(Record):
    """The spread of an idea.

    Attributes:
        query: the search.
        exchanges: the number of exchanges whose author says it.
        agents: the number of agents of the run.
        limit: only this many of the latest matches were read, and earlier uses may be missing;
            None: all were read.
        uses: the first use of each agent, the earliest first.
        rounds: by round and label, from round 0 to the latest.
    """

    query: str
    exchanges: int
    agents: int
    limit: int | None
    uses: Sequence[FirstUse]
    rounds: Sequence[RoundOfUses]


class _Use(NamedTuple):
    """An answer that says it; `episode` is its id in the database."""

    episode: int
    round: int
    author: int
    stage: str


def spread(reader: Reader, query: str, limit: int = SEARCHED) -> IdeaSpread:
    """Who says what a search looks for, by round, and where their first uses came from.

    Args:
        reader: the run.
        query: the search; see `storage.search`.
        limit: the maximum number of matching exchanges that are read, the latest first.

    Raises:
        InputError: the query has too many words.
    """
    searched = terms(query)
    a = tables.agents
    columns = (a.c.number, a.c.label, a.c.persona)
    rows = reader.rows(select(*columns).where(a.c.run_id == reader.run.id).order_by(a.c.number))
    agents = {row.number: row for row in rows}
    ids = _matches(reader, query, limit) if searched else []
    uses = [use for use in _uses(reader, ids, searched) if use.author in agents]
    by_author: dict[int, _Use] = {}
    for use in uses:
        by_author.setdefault(use.author, use)
    first = sorted(by_author.values(), key=lambda use: (use.round, use.episode))
    return IdeaSpread(
        query=query,
        exchanges=len(uses),
        agents=len(agents),
        limit=limit if len(ids) == limit else None,
        uses=list(_first_uses(reader, first, searched, agents)),
        rounds=list(_rounds(reader, uses, first, agents)),
    )


def _matches(reader: Reader, query: str, limit: int) -> list[int]:
    e = tables.episodes
    found = select(e.c.id).where(
        e.c.run_id == reader.run.id, matches_words(reader, e.c.id, query, limit)
    )
    return [row.id for row in reader.rows(found.order_by(e.c.round, e.c.id))]


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def _uses(reader: Reader, ids: Sequence[int], searched: Sequence[Term]) -> Iterator[_Use]:
    """The first answer of each exchange that says it, in order."""
    e, s, t = tables.episodes, tables.stage_texts, tables.texts
    answers = declaration_of(reader).answers
    query = (
        select(e.c.id, e.c.round, e.c.author, s.c.stage, t.c.text)
        .join(s, s.c.episode_id == e.c.id)
        .join(t, t.c.id == s.c.text_id)
        .where(s.c.stage.in_(answers), e.c.author.is_not(None))
    )
    for batch in _batches(ids):
        said: dict[int, _Use] = {}
        for number, round, author, stage, text in reader.rows(query.where(e.c.id.in_(batch))):
            use = _Use(number, round, author, stage)
            earlier = said.get(number)
            if earlier and answers.index(earlier.stage) < answers.index(stage):
                continue
            if contains_all(searched, text):
                said[number] = use
        yield from (said[number] for number in batch if number in said)


def _first_uses(
    reader: Reader, first: Sequence[_Use], searched: Sequence[Term], agents: Mapping[int, Any]
) -> Iterator[FirstUse]:
    sources = _Sources(reader, [use.episode for use in first], searched)
    opening = next(iter(declaration_of(reader).answers), None)
    for use in first:
        persona = agents[use.author].persona
        origin = sources.origin(use, use.stage == opening, persona)
        yield FirstUse(
            agent=use.author,
            name=persona_name(persona),
            label=agents[use.author].label,
            round=use.round,
            episode=use.episode - reader.base,
            stage=use.stage,
            origin=origin,
            raters=sources.raters.get(use.episode, ()) if origin == "reason" else (),
            memory=sources.memories.get(use.episode) if origin == "memory" else None,
        )


class _Sources:
    """What the prompts of exchanges showed that says it too, by the id of the episode."""

    def __init__(self, reader: Reader, ids: Sequence[int], searched: Sequence[Term]) -> None:
        self._searched = searched
        self.questions: set[int] = set()
        self.raters: dict[int, list[int]] = {}
        self.memories: dict[int, int] = {}
        for batch in _batches(ids):
            self.questions |= self._questions(reader, batch)
            for episode, rater, reason in _reasons(reader, batch):
                if contains_all(searched, reason):
                    self.raters.setdefault(episode, []).append(rater)
            for episode, memory, answer in _recalled(reader, batch):
                if contains_all(searched, answer):
                    self.memories.setdefault(episode, memory)

    def _questions(self, reader: Reader, ids: Sequence[int]) -> set[int]:
        e, q, t = tables.episodes, tables.questions, tables.texts
        query = (
            select(e.c.id, t.c.text)
            .join(q, q.c.id == e.c.question_id)
            .join(t, t.c.id == q.c.text_id)
            .where(e.c.id.in_(ids))
        )
        return {row.id for row in reader.rows(query) if contains_all(self._searched, row.text)}

    def origin(self, use: _Use, drafted: bool, persona: str) -> Origin:
        """Where a first use came from; `drafted`: before peers gave their reasons."""
        if drafted and use.episode in self.memories:
            return "memory"
        if not drafted and use.episode in self.raters:
            return "reason"
        if use.episode in self.questions:
            return "question"
        return "persona" if contains_all(self._searched, persona_text(persona)) else "unprompted"


def _reasons(reader: Reader, ids: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    r, t = tables.ratings, tables.texts
    query = (
        select(r.c.episode_id, r.c.rater, t.c.text)
        .join(t, t.c.id == r.c.reason_id)
        .where(r.c.episode_id.in_(ids))
        .order_by(r.c.episode_id, r.c.rater)
    )
    yield from (tuple(row) for row in reader.rows(query))


def _recalled(reader: Reader, ids: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    """The answers that the prompts of drafts showed: episode, number of the memory, text."""
    c, f, m, t = tables.calls, tables.forms, tables.memories, tables.texts
    stages = [stage for stage in declaration_of(reader).stages if stage.answer]
    query = (
        select(c.c.episode_id, c.c.memory_id, c.c.further)
        .join(f, f.c.id == c.c.form_id)
        .where(
            c.c.episode_id.in_(ids),
            f.c.name.in_([stage.form for stage in stages[:1]]),
            c.c.memory_id.is_not(None),
        )
        .order_by(c.c.id)
    )
    shown = [
        (row.episode_id, memory)
        for row in reader.rows(query)
        for memory in (
            row.memory_id,
            *(reader.base + number for number, _ in parse_further(row.further)),
        )
    ]
    answers: dict[int, str] = {}
    for batch in _batches(sorted({memory for _, memory in shown})):
        texts = select(m.c.id, t.c.text).join(t, t.c.id == m.c.text_id).where(m.c.id.in_(batch))
        answers.update((row.id, row.text) for row in reader.rows(texts))
    for episode, memory in shown:
        if memory in answers:
            yield episode, memory - reader.base, answers[memory]


def _rounds(
    reader: Reader, uses: Sequence[_Use], first: Sequence[_Use], agents: Mapping[int, Any]
) -> Iterator[RoundOfUses]:
    e = tables.episodes
    last = reader.scalar(select(func.max(e.c.round)).where(e.c.run_id == reader.run.id))
    sizes = Counter(row.label for row in agents.values())
    said = Counter((use.round, agents[use.author].label) for use in uses)
    new = Counter((use.round, agents[use.author].label) for use in first)
    so_far: Counter[str] = Counter()
    for round in range(0 if last is None else int(last) + 1):
        for label in sorted(sizes):
            so_far[label] += new[round, label]
            yield RoundOfUses(
                round=round,
                label=label,
                exchanges=said[round, label],
                first=new[round, label],
                so_far=so_far[label],
                agents=sizes[label],
            )
