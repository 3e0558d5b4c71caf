"""Agents' memory: what they believe (internal), and the ratings that they received (external)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sqlalchemy import Select, func, select

from agents.memory import PRIOR
from agents.scale import Scale
from sandbox.reading.agents import read_agent
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.exchange_detail import Adopted, adopted_advice, text_parts
from sandbox.reading.personas import contains_all, like_pattern
from sandbox.reading.records import PAGES_ONLY, Record
from sandbox.reading.text_diff import Piece, changed_words, words_kept
from storage import tables
from storage.exchanges import Exchange, GivenRating, exchanges_of, int_if_whole, snapshot
from storage.reader import Reader
from storage.search import terms


@dataclass(frozen=True, kw_only=True)
class Belief(Record):
    """An item of internal memory.

    Attributes:
        memory: its number within the run.
        round, episode: when it was learned; None: prior memory.
        was: the earlier answer to the same question; None if there was none.
        was_round, was_episode: when that was learned; None: prior memory, or there was none.
        score, was_score: the final score on the main scale of the two episodes; None where it is
            missing, or for prior memory.
    """

    memory: int
    round: int | None
    episode: int | None
    question: str
    answer: str
    was: str | None
    was_round: int | None = field(default=None, metadata=PAGES_ONLY)
    was_episode: int | None = field(default=None, metadata=PAGES_ONLY)
    score: float | None = field(default=None, metadata=PAGES_ONLY)
    was_score: float | None = field(default=None, metadata=PAGES_ONLY)

    @property
    def changed(self) -> bool:
        """Whether it replaced another answer to the same question."""
        return self.was is not None and self.was != self.answer

    def changed_mind(self, scale: Scale | None) -> bool:
        """Whether the score on the main scale moved by a third of its range or more (1 to 7: 2)."""
        if scale is None or self.score is None or self.was_score is None:
            return False
        return abs(self.score - self.was_score) >= mind_threshold(scale)


def mind_threshold(scale: Scale) -> float:
    """How far a score has to move for `Belief.changed_mind`: a third of the range."""
    return (scale.high - scale.low) / 3


class Again(NamedTuple):
    """An answer to a question that was asked again.

    Attributes:
        pieces: the diff against the earlier answer.
        kept: the share of its words that were kept; None where it has none.
        advice: the ratings of which the answer took up words, with these words.
    """

    pieces: Sequence[Piece]
    kept: float | None
    advice: Sequence[tuple[GivenRating, Adopted]]

    @property
    def words(self) -> frozenset[str]:
        """All words that the answer took up."""
        return frozenset[str]().union(*(taken.words for _, taken in self.advice))


@dataclass(frozen=True, kw_only=True)
class RatingsReceived(Record):
    """The ratings that peers gave in one episode of an agent."""

    episode: int
    round: int
    question: str
    ratings: Sequence[GivenRating]


@dataclass(frozen=True, kw_only=True)
class AgentMemory(Record):
    """Internal and external memory as of the end of a round (None: now), the latest first."""

    agent: int
    round: int | None
    internal: Sequence[Belief]
    external: Sequence[RatingsReceived]


@dataclass(frozen=True, kw_only=True)
class PriorMemory(Record):
    """A prior memory, the number of agents that have it, and the first of them."""

    question: str
    answer: str
    agents: int
    agent: int


def memory(
    reader: Reader, number: int, round: int | None = None, search: str | None = None
) -> AgentMemory:
    """An agent's memory as of the end of a round, the latest first.

    Args:
        reader: the run.
        number: the agent.
        round: the round; None: now.
        search: only items that contain this; see `storage.search.terms`.

    Raises:
        NotThere: there is no such agent.
    """
    read_agent(reader, number)
    searched = terms(search or "")
    external = [
        RatingsReceived(
            episode=exchange.episode,
            round=exchange.round,
            question=exchange.question,
            ratings=exchange.ratings,
        )
        for exchange in latest_exchanges(reader, number, round)
        if contains_all(searched, "\n".join(text for _, text in text_parts(exchange) if text))
    ]
    internal = internal_memory(reader, number, round, search)
    return AgentMemory(agent=number, round=round, internal=internal, external=external)


Origin = Literal["changed", "again", "learned", "prior"]


def internal_memory(
    reader: Reader,
    number: int,
    round: int | None = None,
    search: str | None = None,
    only: Origin | None = None,
) -> list[Belief]:
    """What an agent believes as of the end of a round, the latest first.

    Args:
        reader: the run.
        number: the agent.
        round: None: now.
        search: only items that contain this; see `storage.search.terms`.
        only: only answers that changed the agent's mind, only those to a question that was asked
            again, only learned memories, or only prior ones.
    """
    latest: dict[str, Belief] = {}
    beliefs: list[Belief] = []
    for row in reader.rows(_memories(reader, number, round)):
        was = latest.get(row.question)
        belief = Belief(
            memory=row.id - reader.base,
            round=None if row.round == PRIOR else row.round,
            episode=None if row.episode_id is None else row.episode_id - reader.base,
            question=row.question,
            answer=row.answer,
            was=None if was is None else was.answer,
            was_round=None if was is None else was.round,
            was_episode=None if was is None else was.episode,
            score=int_if_whole(row.score),
            was_score=None if was is None else was.score,
        )
        latest[row.question] = belief
        beliefs.append(belief)
    searched, scale = terms(search or ""), declaration_of(reader).main
    return [
        belief
        for belief in reversed(beliefs)
        if _has_origin(belief, only, scale)
        and contains_all(searched, f"{belief.question}\n{belief.answer}")
    ]


def _memories(reader: Reader, number: int, round: int | None) -> Select[Any]:
    """The memories of an agent with their texts and the final score of their episode, in order."""
    m, q, s = tables.memories, tables.questions, tables.scores
    asked, answer = tables.texts.alias(), tables.texts.alias()
    declared = declaration_of(reader)
    final = None if declared.main is None else declared.final(declared.main)
    measure = None if final is None else measure_ids(reader).get(final.name)
    query = (
        select(
            m,
            asked.c.text.label("question"),
            answer.c.text.label("answer"),
            s.c.value.label("score"),
        )
        .join(q, q.c.id == m.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .join(answer, answer.c.id == m.c.text_id)
        .outerjoin(s, (s.c.episode_id == m.c.episode_id) & (s.c.measure_id == measure))
        .where(m.c.run_id == reader.run.id, m.c.agent == number)
        .order_by(m.c.round, m.c.id)
    )
    return query if round is None else query.where(m.c.round <= round)


def _has_origin(belief: Belief, origin: Origin | None, scale: Scale | None) -> bool:
    match origin:
        case "changed":
            return belief.changed_mind(scale)
        case "again":
            return belief.was is not None
        case "learned" | "prior":
            return (belief.round is None) == (origin == "prior")
    return True


def answered_again(reader: Reader, beliefs: Sequence[Belief]) -> dict[int, Again]:
    """The answers to questions that were asked again, by the number of the memory."""
    declared = declaration_of(reader)
    again = [belief for belief in beliefs if belief.was is not None]
    ids = [reader.base + belief.episode for belief in again if belief.episode is not None]
    with snapshot(reader) as connection:
        exchanges = {one.episode: one for one in exchanges_of(reader, connection, ids)}
    found = {}
    for belief in again:
        exchange = exchanges.get(-1 if belief.episode is None else belief.episode)
        pieces = changed_words(belief.was or "", belief.answer)
        taken = {} if exchange is None else adopted_advice(exchange, declared)
        advice = [
            (given, taken[given.rater])
            for given in (exchange.ratings if exchange is not None else ())
            if given.rater in taken and taken[given.rater].words
        ]
        found[belief.memory] = Again(pieces, words_kept(pieces), advice)
    return found


def latest_exchanges(
    reader: Reader, number: int, round: int | None = None, limit: int | None = None
) -> list[Exchange]:
    """The exchanges of an author up to a round (None: now), the latest first."""
    e = tables.episodes
    query = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.author == number)
    if round is not None:
        query = query.where(e.c.round <= round)
    query = query.order_by(e.c.round.desc(), e.c.id.desc()).limit(limit)
    with snapshot(reader) as connection:
        ids = connection.scalars(query).all()
        return list(exchanges_of(reader, connection, ids))


def prior_memories(reader: Reader, search: str) -> list[PriorMemory]:
    """Prior memories that contain all terms of a search; equal ones are counted as one."""
    m, q = tables.memories, tables.questions
    asked, answer = tables.texts.alias(), tables.texts.alias()
    query = (
        select(asked.c.text, answer.c.text, func.count(), func.min(m.c.agent))
        .select_from(m)
        .join(q, q.c.id == m.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .join(answer, answer.c.id == m.c.text_id)
        .where(m.c.run_id == reader.run.id, m.c.round == PRIOR)
        .group_by(asked.c.text, answer.c.text)
    )
    searched = terms(search)
    for term in searched:
        pattern = like_pattern(term)
        query = query.where(asked.c.text.ilike(pattern) | answer.c.text.ilike(pattern))
    return [
        PriorMemory(question=question, answer=text, agents=n, agent=first)
        for question, text, n, first in reader.rows(query)
        if contains_all(searched, f"{question}\n{text}")
    ]
