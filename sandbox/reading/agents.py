"""Agents of a run: the list of them, one of them, and its scores by round."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from agents.agent import Agent
from agents.memory import Memory
from agents.persona import Label, Persona
from agents.policy import Policy
from agents.scale import Declaration, Measure
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.exchanges import ExchangeRow, exchange_rows
from sandbox.reading.personas import contains_all, like_pattern, persona_text
from sandbox.reading.policy import policy_of
from sandbox.reading.raters import NO_RATINGS, RatingsGiven, ratings_given
from sandbox.reading.records import PAGES_ONLY, Record
from sandbox.reading.trends import AgentTrend, agent_trends
from storage import tables
from storage.errors import Damaged, NotThere
from storage.exchanges import int_if_whole
from storage.reader import Reader
from storage.search import terms


@dataclass(frozen=True, kw_only=True)
class AgentRow(Record):
    """An agent in a list.

    Attributes:
        agent: its number.
        label: the starting demographic.
        community: the group of agents with similar profiles, if the world has groups.
        memories: the number of memories.
        mean_rating: the mean rating that it received from peers.
        measures: means of the observer's ratings, by measure; see `agent_measures`.
        episodes, failed: the number of its episodes, and the number that failed.
        given: how it rates others.
        trend: how its episodes developed on one measure; None where that is not asked for.
    """

    agent: int
    name: str
    label: str
    age: int | None
    place: str | None
    occupation: str | None
    description: str | None
    x: float
    y: float
    community: int | None
    memories: int
    mean_rating: float | None
    measures: Mapping[str, float | None] = field(metadata=PAGES_ONLY)
    episodes: int = field(metadata=PAGES_ONLY)
    failed: int = field(metadata=PAGES_ONLY)
    given: RatingsGiven = field(metadata=PAGES_ONLY)
    trend: AgentTrend | None = field(metadata=PAGES_ONLY)


@dataclass(frozen=True, kw_only=True)
class AgentDetail(Record):
    """One agent: who it is, where it lives, and its episodes.

    Attributes:
        links: the numbers of the agents that it is linked to; None: neighbours follow from place.
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
class AgentScore(Record):
    """The observer's rating of one stage of an agent's episode."""

    round: int
    stage: str
    scale: str
    score: float


def read_agents(reader: Reader, keep: int | None = None) -> list[Agent]:
    """Read all agents, with empty memories.

    Args:
        reader: the run.
        keep: the number of memories that an agent keeps; None: all.
    """
    a = tables.agents
    query = select(a).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    stances, policy = json.loads(reader.run.stances), policy_of(reader)
    return [_agent(row, stances, policy, keep) for row in reader.rows(query)]


def _agent(
    row: Any, stances: Mapping[Label, str], policy: Policy | None, keep: int | None = None
) -> Agent:
    if row.label not in stances:
        raise Damaged(
            f"the database is damaged: agents: {row.number}: label: found {row.label!r}; "
            "expected one that runs.stances describes"
        )
    return Agent(
        row.number,
        row.label,
        Persona.model_validate(json.loads(row.persona)),
        row.x,
        row.y,
        _links(row.neighbours),
        row.node,
        row.community,
        Memory(keep),
        stances,
        policy,
    )


def _links(neighbours: str | None) -> tuple[int, ...] | None:
    """The numbers of the linked agents; None where positions decide."""
    return None if neighbours is None else tuple(map(int, filter(None, neighbours.split(","))))


def read_agent(reader: Reader, number: int) -> Agent:
    """Read one agent, with an empty memory.

    Raises:
        NotThere: there is no such agent.
    """
    a = tables.agents
    row = reader.first(select(a).where(a.c.run_id == reader.run.id, a.c.number == number))
    if row is not None:
        return _agent(row, json.loads(reader.run.stances), policy_of(reader))
    count = reader.scalar(select(func.count()).where(a.c.run_id == reader.run.id))
    if not count:
        raise NotThere(f"agent {number}: the run has no agents; its scenes invent their characters")
    raise NotThere(f"agent {number}: no such agent; expected 0 to {count - 1}")


def agent_names(reader: Reader, numbers: Collection[int]) -> dict[int, str]:
    """The names of agents, by number."""
    a = tables.agents
    query = select(a.c.number, a.c.persona).where(
        a.c.run_id == reader.run.id, a.c.number.in_(sorted(numbers))
    )
    return {row.number: str(json.loads(row.persona)["name"]) for row in reader.rows(query)}


def agent_measures(declared: Declaration) -> list[Measure]:
    """The measures that a list of agents shows: final score and gain of each observer scale.

    A scale that rates agents has only the final score, the mean of the agent's own ratings.
    """
    measures = []
    for scale in declared.observed:
        final, gain = declared.final(scale), declared.gain(scale)
        measures += [final] if final is not None else []
        measures += [gain] if gain is not None and scale.subject != "agent" else []
    return measures


ORDERS = ("number", "name", "label", "received", "given", "deviation", "memories")
"""Orders of agents that every run has."""

TREND_ORDERS = ("first", "last", "change", "slope")
"""Orders by the trend of one measure; see `sandbox.reading.trends.AgentTrend`."""


def agent_orders(declared: Declaration) -> list[str]:
    """What a list of agents can be sorted by; agents without a value come last."""
    return [*ORDERS, *TREND_ORDERS, *(measure.name for measure in agent_measures(declared))]


def agents(
    reader: Reader,
    search: str | None = None,
    label: str | None = None,
    order: str = "number",
    trend: Measure | None = None,
) -> list[AgentRow]:
    """List the agents of a run.

    Args:
        reader: the run.
        search: only agents whose persona contains this; see `storage.search.terms`.
        label: only agents with this starting demographic.
        order: one of `agent_orders`; with a minus before it, the highest first.
        trend: the measure whose trend over rounds is wanted; None: no trend.
    """
    declared = declaration_of(reader)
    means, episode_counts = _means(reader), _episode_counts(reader)
    given, memories = ratings_given(reader), memory_counts(reader)
    trends = {} if trend is None else agent_trends(reader, trend)
    peers = declared.peers
    measures = [measure.name for measure in agent_measures(declared)]
    rows = []
    for row in _matching(reader, search, label):
        persona, own_means = json.loads(row.persona), means.get(row.number, {})
        episodes, failed = episode_counts.get(row.number, (0, 0))
        rows.append(
            AgentRow(
                agent=row.number,
                name=persona["name"],
                label=row.label,
                age=persona.get("age"),
                place=persona.get("place"),
                occupation=persona.get("occupation"),
                description=persona.get("description"),
                x=row.x,
                y=row.y,
                community=row.community,
                memories=memories.get(row.number, 0),
                mean_rating=None if peers is None else own_means.get(peers.name),
                measures={name: own_means.get(name) for name in measures},
                episodes=episodes,
                failed=failed,
                given=given.get(row.number, NO_RATINGS),
                trend=trends.get(row.number),
            )
        )
    return _sorted(rows, order)


def _matching(reader: Reader, search: str | None, label: str | None) -> Iterator[Any]:
    a, searched = tables.agents, terms(search or "")
    query = select(a).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    if label is not None:
        query = query.where(a.c.label == label)
    for term in searched:
        if all(word.isascii() for word in term.words):  # SQLite has lower case only for ASCII
            query = query.where(a.c.persona.ilike(like_pattern(term)))
    for row in reader.rows(query):
        if contains_all(searched, persona_text(row.persona)):
            yield row


def _sorted(rows: list[AgentRow], order: str) -> list[AgentRow]:
    name, descending = order.removeprefix("-"), order.startswith("-")
    values = {row.agent: _sort_value(row, name) for row in rows}
    with_value = [row for row in rows if values[row.agent] is not None]
    without = [row for row in rows if values[row.agent] is None]
    return sorted(with_value, key=lambda row: values[row.agent], reverse=descending) + without


def _sort_value(row: AgentRow, name: str) -> Any:
    """What a list is sorted by: a number or a text; None where the agent has none."""
    if name in TREND_ORDERS:
        return None if row.trend is None else getattr(row.trend, name)
    match name:
        case "number":
            return row.agent
        case "received":
            return row.mean_rating
        case "given":
            return row.given.mean
        case "deviation":
            return row.given.deviation
        case "name" | "label" | "memories":
            return getattr(row, name)
    return row.measures[name]


def _means(reader: Reader) -> dict[int, dict[str, float]]:
    """The mean of each measure by agent: over an author's episodes, or an agent's ratings.

    Peers' ratings are averaged over ratings, not over episodes.
    """
    a, names = tables.agent_sums, {id: name for name, id in measure_ids(reader).items()}
    query = select(a.c.agent, a.c.measure_id, a.c.total, a.c.n)
    means: dict[int, dict[str, float]] = {}
    for agent, measure, total, n in reader.rows(query.where(a.c.run_id == reader.run.id)):
        means.setdefault(agent, {})[names[measure]] = float(total) / int(n)
    return means


def _episode_counts(reader: Reader) -> dict[int, tuple[int, int]]:
    """The number of episodes and of failed episodes, by author."""
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


def agent(reader: Reader, number: int) -> AgentDetail:
    """Read one agent: its persona, its place, and its episodes in order.

    Raises:
        NotThere: there is no such agent.
    """
    stored = read_agent(reader, number)
    e, declared = tables.episodes, declaration_of(reader)
    own_episodes = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.author == number)
    ids = [row.id for row in reader.rows(own_episodes.order_by(e.c.round, e.c.id))]
    return AgentDetail(
        agent=number,
        label=stored.label,
        persona=stored.persona,
        introduction=stored.introduction,
        x=stored.x,
        y=stored.y,
        links=stored.links,
        node=stored.node,
        community=stored.community,
        memories=memory_counts(reader).get(number, 0),
        episodes=exchange_rows(reader, ids, declared),
        gives=ratings_given(reader, number).get(number, NO_RATINGS),
        scales=[scale.name for scale in declared.observed],
    )


def history(reader: Reader, number: int) -> list[AgentScore]:
    """The observer's ratings of an author's episodes, by round, scale and stage."""
    e, s, ids = tables.episodes, tables.scores, measure_ids(reader)
    measures = {ids[measure.name]: measure for measure in declaration_of(reader).measures}
    query = (
        select(e.c.round, s.c.measure_id, s.c.value)
        .join(s, (s.c.episode_id == e.c.id) & s.c.measure_id.in_(measures))
        .where(e.c.run_id == reader.run.id, e.c.author == number)
        .order_by(e.c.round, e.c.id, s.c.measure_id)
    )
    return [
        AgentScore(
            round=round,
            stage=measure.stage,
            scale=measure.scale.name,
            score=int_if_whole(value) or 0,
        )
        for round, measure_id, value in reader.rows(query)
        for measure in [measures[measure_id]]
        if measure.kind == "score"
    ]
