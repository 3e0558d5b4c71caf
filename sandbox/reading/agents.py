"""Agents: all of them in a list, one of them, what it believes, and its ratings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Select, func, select

from agents.agent import Agent
from agents.memory import PRIOR, Memory
from agents.persona import Persona
from agents.scale import Declaration, Measure
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.exchanges import ExchangeRow, exchange_rows, text_parts
from sandbox.reading.records import PAGES_ONLY, Record
from sandbox.reading.statistics import t_quantile
from storage import tables
from storage.errors import NotThere
from storage.exchanges import Exchange, GivenRating, exchanges_of, int_if_whole, snapshot
from storage.reader import Reader
from storage.search import Term, terms


@dataclass(frozen=True)
class RatingsGiven(Record):
    """How an agent rates others.

    Attributes:
        ratings, missing: the number of ratings, and of those that could not be parsed.
        mean: None where no rating could be parsed.
        deviation: mean of its rating less the mean of the other peers' ratings of the same text.
        low, high: the 95 % interval of the deviation, by Student's t.
        compared: the number of texts that other peers have rated too.
    """

    ratings: int
    missing: int
    mean: float | None
    deviation: float | None = field(metadata=PAGES_ONLY)
    low: float | None = field(metadata=PAGES_ONLY)
    high: float | None = field(metadata=PAGES_ONLY)
    compared: int = field(metadata=PAGES_ONLY)


NO_RATINGS = RatingsGiven(
    ratings=0, missing=0, mean=None, deviation=None, low=None, high=None, compared=0
)


@dataclass(frozen=True, kw_only=True)
class AgentRow(Record):
    """An agent in a list.

    Attributes:
        agent: its number.
        label: the starting demographic.
        community: the group of agents with like profiles, if the world has any.
        memories: the number of memories.
        mean_rating: the mean of the ratings that it received from peers.
        measures: means of the observer's ratings, by measure; see `agent_measures`.
        episodes, failed: the number of its episodes, and of those that failed.
        given: how it rates others.
    """

    agent: int
    name: str
    label: str
    age: int
    place: str
    occupation: str
    x: float
    y: float
    community: int | None
    memories: int
    mean_rating: float | None
    measures: Mapping[str, float | None] = field(metadata=PAGES_ONLY)
    episodes: int = field(metadata=PAGES_ONLY)
    failed: int = field(metadata=PAGES_ONLY)
    given: RatingsGiven = field(metadata=PAGES_ONLY)


@dataclass(frozen=True, kw_only=True)
class AgentDetail(Record):
    """One agent: who it is, where it lives, and its episodes.

    Attributes:
        links: the numbers of the agents that it is linked to; None where its place decides.
        node: its name in a graph.
        introduction: the persona as prompts show it.
        gives: how it rates others.
    """

    agent: int
    label: str
    persona: Persona
    introduction: str
    x: float
    y: float
    links: Sequence[int] | None
    node: str | None
    community: int | None
    memories: int
    episodes: Sequence[ExchangeRow]
    gives: RatingsGiven
    scales: Sequence[str] = field(metadata=PAGES_ONLY)


@dataclass(frozen=True, kw_only=True)
class Belief(Record):
    """An item of internal memory.

    Attributes:
        memory: its number within the run.
        round, episode: when it was learned; None: prior memory.
        was: the answer that the agent believed before; None where it believed none.
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
class RatingGiven(Record):
    """A rating that an agent gave, and the author whom it was given to."""

    rating: float | None
    status: str
    reason: str | None
    episode: int
    round: int
    author: int
    name: str
    label: str
    mean_rating: float | None


@dataclass(frozen=True, kw_only=True)
class Rater(Record):
    """A peer that rated an agent: how often, and the mean of its ratings."""

    agent: int
    label: str
    name: str
    ratings: int
    missing: int
    mean: float | None


@dataclass(frozen=True, kw_only=True)
class AgentScore(Record):
    """The observer's rating of one stage of an agent's episode."""

    round: int
    stage: str
    scale: str
    score: float


@dataclass(frozen=True, kw_only=True)
class PriorMemory(Record):
    """A prior memory, the number of agents that have it, and the first of them."""

    question: str
    answer: str
    agents: int
    agent: int


def read_agents(reader: Reader, keep: int | None = None) -> list[Agent]:
    """Read the agents, with empty memories."""
    a = tables.agents
    query = select(a).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    return [_agent(row, keep) for row in reader.rows(query)]


def _agent(row: Any, keep: int | None = None) -> Agent:
    return Agent(
        row.number,
        row.label,
        Persona.model_validate(json.loads(row.persona)),
        row.x,
        row.y,
        None if row.neighbours is None else tuple(map(int, row.neighbours.split(","))),
        row.node,
        row.community,
        Memory(keep),
    )


def read_agent(reader: Reader, number: int) -> Agent:
    """Read one agent, with an empty memory.

    Raises:
        NotThere: there is no such agent.
    """
    a = tables.agents
    row = reader.first(select(a).where(a.c.run_id == reader.run.id, a.c.number == number))
    if row is not None:
        return _agent(row)
    count = reader.scalar(select(func.count()).where(a.c.run_id == reader.run.id))
    if not count:
        raise NotThere(f"agent {number}: the run has no agents: its scenes invent their people")
    raise NotThere(f"agent {number}: no such agent; expected 0 to {count - 1}")


def persona_name(persona: str) -> str:
    """The name in a persona, which the database stores as JSON."""
    return str(json.loads(persona)["name"])


def agent_measures(declared: Declaration) -> list[Measure]:
    """The measures that a list of agents shows: of each observer scale the final one and the gain.

    Of a scale that rates agents it is the final one alone, as the mean of the agent's own ratings.
    """
    found = []
    for scale in declared.observed:
        final, gain = declared.final(scale), declared.gain(scale)
        found += [final] if final is not None else []
        found += [gain] if gain is not None and scale.subject != "agent" else []
    return found


ORDERS = ("number", "name", "label", "received", "given", "deviation", "memories")
"""Orders of agents that every run has; the others are the names of `agent_measures`."""


def agent_orders(declared: Declaration) -> list[str]:
    """The orders of a list of agents: all but the first three put the highest value first."""
    return [*ORDERS, *(one.name for one in agent_measures(declared))]


def agents(
    reader: Reader, search: str | None = None, label: str | None = None, order: str = "number"
) -> list[AgentRow]:
    """The agents of a run.

    Args:
        reader: the run.
        search: only those whose persona says this; see `storage.search.terms`.
        label: only those with this starting demographic.
        order: one of `agent_orders`.
    """
    declared = declaration_of(reader)
    means, counted = _means(reader), _episode_counts(reader)
    given, memories = ratings_given(reader), memory_counts(reader)
    peers = declared.peers
    shown = [one.name for one in agent_measures(declared)]
    rows = []
    for row in _matching(reader, search, label):
        persona, mine = json.loads(row.persona), means.get(row.number, {})
        episodes, failed = counted.get(row.number, (0, 0))
        rows.append(
            AgentRow(
                agent=row.number,
                name=persona["name"],
                label=row.label,
                age=persona["age"],
                place=persona["place"],
                occupation=persona["occupation"],
                x=row.x,
                y=row.y,
                community=row.community,
                memories=memories.get(row.number, 0),
                mean_rating=None if peers is None else mine.get(peers.name),
                measures={name: mine.get(name) for name in shown},
                episodes=episodes,
                failed=failed,
                given=given.get(row.number, NO_RATINGS),
            )
        )
    return _ordered(rows, order, declared)


def _matching(reader: Reader, search: str | None, label: str | None) -> Iterator[Any]:
    a, wanted = tables.agents, terms(search or "")
    query = select(a).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    if label is not None:
        query = query.where(a.c.label == label)
    for term in wanted:
        if all(word.isascii() for word in term.words):  # of others SQLite knows no lower case
            query = query.where(a.c.persona.ilike(_like(term)))
    for row in reader.rows(query):
        if all_in(wanted, _persona_texts(row.persona)):
            yield row


def _like(term: Term) -> str:
    """A necessary condition that the database can check: the words follow each other."""
    return f"%{'%'.join(term.words)}%"


def all_in(wanted: Sequence[Term], text: str) -> bool:
    """Whether a text has all terms of a search."""
    return all(term.pattern.search(text) for term in wanted)


def _persona_texts(persona: str) -> str:
    """The values of a persona, without the names of its fields."""
    values = json.loads(persona).values()
    return "\n".join(
        ", ".join(value) if isinstance(value, list) else str(value) for value in values
    )


def _ordered(rows: list[AgentRow], order: str, declared: Declaration) -> list[AgentRow]:
    if order == "number":
        return rows
    if order == "name":
        return sorted(rows, key=lambda row: (row.name, row.agent))
    if order == "label":
        return sorted(rows, key=lambda row: (row.label, row.agent))
    lowest_first = any(
        one.name == order and one.kind == "score" and one.scale.better == "low"
        for one in declared.measures
    )
    sign = 1 if lowest_first else -1

    def key(row: AgentRow) -> tuple[bool, float, int]:
        value = _value(row, order)
        return value is None, sign * (value or 0), row.agent

    return sorted(rows, key=key)


def _value(row: AgentRow, order: str) -> float | None:
    match order:
        case "received":
            return row.mean_rating
        case "given":
            return row.given.mean
        case "deviation":
            return row.given.deviation
        case "memories":
            return row.memories
    return row.measures[order]


def _means(reader: Reader) -> dict[int, dict[str, float]]:
    """The mean of each measure by agent: of an author's episodes, or of the agent who is rated.

    The mean of peers' ratings is over all ratings, not over episodes.
    """
    a, names = tables.agent_sums, {id: name for name, id in measure_ids(reader).items()}
    query = select(a.c.agent, a.c.measure_id, a.c.total, a.c.n)
    found: dict[int, dict[str, float]] = {}
    for agent, measure, total, n in reader.rows(query.where(a.c.run_id == reader.run.id)):
        found.setdefault(agent, {})[names[measure]] = float(total) / int(n)
    return found


def _episode_counts(reader: Reader) -> dict[int, tuple[int, int]]:
    """The number of episodes and of failed ones, by author."""
    e = tables.episodes
    query = (
        select(e.c.author, func.count(), func.count(e.c.failed_at))
        .where(e.c.run_id == reader.run.id, e.c.author.is_not(None))
        .group_by(e.c.author)
    )
    return {author: (episodes, failed) for author, episodes, failed in reader.rows(query)}


def memory_counts(reader: Reader) -> dict[int, int]:
    """The number of memories by agent."""
    m = tables.memories
    query = select(m.c.agent, func.count()).where(reader.belongs_to_run(m.c.id)).group_by(m.c.agent)
    counts: dict[int, int] = {row.agent: row[1] for row in reader.rows(query)}
    return counts


def ratings_given(reader: Reader, number: int | None = None) -> dict[int, RatingsGiven]:
    """How agents rate others, by agent; with a number only that agent."""
    r = tables.rater_sums
    sums = (r.c.ratings, r.c.missing, r.c.total, r.c.compared, r.c.deviation, r.c.deviation_squares)
    query = select(r.c.rater, *map(func.sum, sums)).where(r.c.run_id == reader.run.id)
    if number is not None:
        query = query.where(r.c.rater == number)
    rows = reader.rows(query.group_by(r.c.rater).order_by(r.c.rater))
    return {rater: _given(*some) for rater, *some in rows}


def _given(
    ratings: int, missing: int, total: float, compared: int, apart: float, squares: float
) -> RatingsGiven:
    read, n = int(ratings) - int(missing), int(compared)
    deviation = apart / n if n else None
    reach = None
    if n > 1 and deviation is not None:
        error = math.sqrt(max(0.0, squares - n * deviation * deviation) / (n - 1) / n)
        reach = error * t_quantile(0.975, n - 1)
    return RatingsGiven(
        ratings=int(ratings),
        missing=int(missing),
        mean=float(total) / read if read else None,
        deviation=deviation,
        low=None if reach is None or deviation is None else deviation - reach,
        high=None if reach is None or deviation is None else deviation + reach,
        compared=n,
    )


def agent(reader: Reader, number: int) -> AgentDetail:
    """One agent: its persona, its place, and its episodes in order.

    Raises:
        NotThere: there is no such agent.
    """
    found = read_agent(reader, number)
    e, declared = tables.episodes, declaration_of(reader)
    mine = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.author == number)
    ids = [row.id for row in reader.rows(mine.order_by(e.c.round, e.c.id))]
    return AgentDetail(
        agent=number,
        label=found.label,
        persona=found.persona,
        introduction=found.introduction,
        x=found.x,
        y=found.y,
        links=found.links,
        node=found.node,
        community=found.community,
        memories=memory_counts(reader).get(number, 0),
        episodes=exchange_rows(reader, ids, declared),
        gives=ratings_given(reader, number).get(number, NO_RATINGS),
        scales=[scale.name for scale in declared.observed],
    )


def memory(
    reader: Reader, number: int, round: int | None = None, search: str | None = None
) -> AgentMemory:
    """An agent's memory as of the end of a round (None: now), the latest first.

    Args:
        reader: the run.
        number: the agent.
        round: see above.
        search: only what says this; see `storage.search.terms`.

    Raises:
        NotThere: there is no such agent.
    """
    read_agent(reader, number)
    wanted = terms(search or "")
    external = [
        RatingsReceived(
            episode=one.episode, round=one.round, question=one.question, ratings=one.ratings
        )
        for one in latest_exchanges(reader, number, round)
        if all_in(wanted, "\n".join(text for _, text in text_parts(one) if text))
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
        search: only what says this; see `storage.search.terms`.
        only: changed answers, memories that were learned, or prior ones.
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
    before: dict[str, str] = {}
    found: list[Belief] = []
    for row in reader.rows(query):
        belief = Belief(
            memory=row.id - reader.base,
            round=None if row.round == PRIOR else row.round,
            episode=None if row.episode_id is None else row.episode_id - reader.base,
            question=row.question,
            answer=row.answer,
            was=before.get(row.question),
        )
        before[row.question] = row.answer
        found.append(belief)
    wanted = terms(search or "")
    return [
        one
        for one in reversed(found)
        if _is(one, only) and all_in(wanted, f"{one.question}\n{one.answer}")
    ]


def _is(belief: Belief, only: Origin | None) -> bool:
    if only is None:
        return True
    if only == "changed":
        return belief.changed
    return (belief.round is None) == (only == "prior")


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


def latest_ratings_given(reader: Reader, number: int, limit: int) -> list[RatingGiven]:
    """The latest ratings that an agent gave."""
    r, e, t, a = tables.ratings, tables.episodes, tables.texts, tables.agents
    query = (
        select(r.c.rating, r.c.status, t.c.text.label("reason"), e.c.id, e.c.round, e.c.author)
        .add_columns(a.c.persona, a.c.label)
        .join(e, e.c.id == r.c.episode_id)
        .join(a, (a.c.run_id == e.c.run_id) & (a.c.number == e.c.author))
        .outerjoin(t, t.c.id == r.c.reason_id)
        .where(r.c.rater == number, reader.belongs_to_run(r.c.episode_id))
        .order_by(r.c.episode_id.desc())
        .limit(limit)
    )
    rows = list(reader.rows(query))
    means = _mean_ratings(reader, [row.id for row in rows])
    return [
        RatingGiven(
            rating=int_if_whole(row.rating),
            status=row.status,
            reason=row.reason,
            episode=row.id - reader.base,
            round=row.round,
            author=row.author,
            name=persona_name(row.persona),
            label=row.label,
            mean_rating=means.get(row.id),
        )
        for row in rows
    ]


def _mean_ratings(reader: Reader, episodes: Sequence[int]) -> dict[int, float]:
    peers, s = declaration_of(reader).peers, tables.scores
    if peers is None:
        return {}
    measure = measure_ids(reader)[peers.name]
    query: Select[Any] = select(s.c.episode_id, s.c.value).where(
        s.c.measure_id == measure, s.c.episode_id.in_(episodes)
    )
    return {episode: float(value) for episode, value in reader.rows(query)}


def raters_of(reader: Reader, number: int) -> list[Rater]:
    """The peers that rated an agent, the most frequent first."""
    r, e, a = tables.ratings, tables.episodes, tables.agents
    query = (
        select(r.c.rater, a.c.label, a.c.persona, func.count(), func.avg(r.c.rating))
        .add_columns(func.count() - func.count(r.c.rating))
        .select_from(e)
        .join(r, r.c.episode_id == e.c.id)
        .join(a, (a.c.run_id == e.c.run_id) & (a.c.number == r.c.rater + 0))
        .where(e.c.run_id == reader.run.id, e.c.author == number)
        .group_by(r.c.rater, a.c.label, a.c.persona)
        .order_by(func.count().desc(), r.c.rater)
    )
    return [
        Rater(
            agent=rater,
            label=label,
            name=persona_name(persona),
            ratings=n,
            missing=missing,
            mean=None if mean is None else float(mean),
        )
        for rater, label, persona, n, mean, missing in reader.rows(query)
    ]


def history(reader: Reader, number: int) -> list[AgentScore]:
    """The observer's ratings of an author's episodes, by round, scale and stage."""
    e, s, ids = tables.episodes, tables.scores, measure_ids(reader)
    measures = {ids[one.name]: one for one in declaration_of(reader).measures}
    query = (
        select(e.c.round, s.c.measure_id, s.c.value)
        .join(s, (s.c.episode_id == e.c.id) & s.c.measure_id.in_(measures))
        .where(e.c.run_id == reader.run.id, e.c.author == number)
        .order_by(e.c.round, e.c.id, s.c.measure_id)
    )
    return [
        AgentScore(
            round=round, stage=one.stage, scale=one.scale.name, score=int_if_whole(value) or 0
        )
        for round, measure, value in reader.rows(query)
        for one in [measures[measure]]
        if one.kind == "score"
    ]


def prior_memories(reader: Reader, search: str) -> list[PriorMemory]:
    """Prior memories that say something, each once."""
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
    wanted = terms(search)
    for term in wanted:
        like = _like(term)
        query = query.where(asked.c.text.ilike(like) | answer.c.text.ilike(like))
    return [
        PriorMemory(question=question, answer=text, agents=n, agent=first)
        for question, text, n, first in reader.rows(query)
        if all_in(wanted, f"{question}\n{text}")
    ]
