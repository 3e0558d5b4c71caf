"""Agents' memory: what they believe (internal), and the ratings that they received (external)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select

from agents.memory import PRIOR
from sandbox.reading.agents import read_agent
from sandbox.reading.exchange_detail import text_parts
from sandbox.reading.personas import contains_all, like_pattern
from sandbox.reading.records import Record
from storage import tables
from storage.exchanges import Exchange, GivenRating, exchanges_of, snapshot
from storage.reader import Reader
from storage.search import terms


@dataclass(frozen=True, kw_only=True)
class Belief(Record):
    """An item of internal memory.

    Attributes:
        memory: its number within the run.
        round, episode: when it was learned; None: prior memory.
        was: the earlier answer to the same question; None if there was none.
    """

    memory: int
    round: int | None
    episode: int | None
    question: str
    answer: str
    was: str | None

    @property
    def changed(self) -> bool:
        """Whether it replaced another answer to the same question."""
        return self.was is not None and self.was != self.answer


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


Origin = Literal["changed", "learned", "prior"]


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
        only: only changed answers, only learned memories, or only prior ones.
    """
    m, q = tables.memories, tables.questions
    asked, answer = tables.texts.alias(), tables.texts.alias()
    query = (
        select(m, asked.c.text.label("question"), answer.c.text.label("answer"))
        .join(q, q.c.id == m.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .join(answer, answer.c.id == m.c.text_id)
        .where(m.c.run_id == reader.run.id, m.c.agent == number)
        .order_by(m.c.round, m.c.id)
    )
    if round is not None:
        query = query.where(m.c.round <= round)
    latest_answers: dict[str, str] = {}
    beliefs: list[Belief] = []
    for row in reader.rows(query):
        belief = Belief(
            memory=row.id - reader.base,
            round=None if row.round == PRIOR else row.round,
            episode=None if row.episode_id is None else row.episode_id - reader.base,
            question=row.question,
            answer=row.answer,
            was=latest_answers.get(row.question),
        )
        latest_answers[row.question] = row.answer
        beliefs.append(belief)
    searched = terms(search or "")
    return [
        belief
        for belief in reversed(beliefs)
        if _has_origin(belief, only)
        and contains_all(searched, f"{belief.question}\n{belief.answer}")
    ]


def _has_origin(belief: Belief, origin: Origin | None) -> bool:
    if origin is None:
        return True
    if origin == "changed":
        return belief.changed
    return (belief.round is None) == (origin == "prior")


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
