"""The map of a society at a round: agents with their scores, ratings, clusters, and influence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select

from agents.scale import Declaration, Measure
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.influence import Bands, Cluster, Influence, clusters, influences
from sandbox.reading.metrics import EPISODE
from sandbox.reading.neighbours import (
    LargestCluster,
    Null,
    label_assortativity,
    largest_clusters,
    score_assortativity,
)
from sandbox.reading.personas import persona_name
from sandbox.reading.records import Record
from storage import tables
from storage.exchanges import exchanges_of, int_if_whole, snapshot
from storage.model_names import ModelNames
from storage.reader import Reader

_EXCHANGES = 400  # the latest exchanges, from which influence is computed
_LISTED = 15  # clusters, raters


def map_measures(declared: Declaration) -> list[Measure]:
    """The measures that can colour a map: final score of each observer scale, and the main gain."""
    finals = [declared.final(scale) for scale in declared.observed]
    gain = None if declared.main is None else declared.gain(declared.main)
    return [measure for measure in (*finals, gain) if measure is not None]


class Trait(NamedTuple):
    """What else can colour a map: a property of agents that is no score.

    Attributes:
        name: the key of `Node.traits`.
        title: the displayed name.
        values: the values of a category; empty for a count.
    """

    name: str
    title: str
    values: Sequence[str]


MEMORIES, ASKED_AGAIN = "memories", "asked_again"


def map_traits(reader: Reader) -> list[Trait]:
    """The traits of a run: starting label, community and model where there are several, counts."""
    a = tables.agents
    labels, communities = (
        [str(row[0]) for row in reader.rows(select(column).where(*conditions).distinct())]
        for column, conditions in (
            (a.c.label, (a.c.run_id == reader.run.id,)),
            (a.c.community, (a.c.run_id == reader.run.id, a.c.community.is_not(None))),
        )
    )
    with reader.engine.connect() as connection:
        names = ModelNames.of(reader, connection)
    models = sorted({name for key, name in names.names.items() if key not in names.observers})
    categories = [
        Trait("label", "starting label", sorted(labels)),
        Trait("community", "community", sorted(communities, key=int)),
        Trait("model", "model", models),
    ]
    counts = [
        Trait(MEMORIES, "memories", ()),
        Trait(ASKED_AGAIN, "times asked something again", ()),
    ]
    return [*(trait for trait in categories if len(trait.values) > 1), *counts]


@dataclass(frozen=True, kw_only=True)
class Node(Record):
    """An agent on the map in a round.

    Attributes:
        agent, name, label: of the agent.
        x, y: its place.
        scores: its score on each of `map_measures`; None: none.
        episode: the number of its exchange in this round; None: none.
        question: of that exchange.
        traits: the values of `map_traits`; of counts only the one that was asked for.
    """

    agent: int
    name: str
    label: str
    x: float
    y: float
    scores: Mapping[str, float | None]
    episode: int | None
    question: str | None
    traits: Mapping[str, str | int | None]


@dataclass(frozen=True, kw_only=True)
class Frame(Record):
    """A round of the map; edges are (rater, author, rating).

    Attributes:
        complete: whether all of its episodes are complete.
    """

    round: int
    complete: bool
    nodes: Sequence[Node]
    edges: Sequence[tuple[int, int, float]]


def last_round(reader: Reader) -> int | None:
    """The latest round with an episode; None before the first."""
    e = tables.episodes
    latest = reader.scalar(select(func.max(e.c.round)).where(e.c.run_id == reader.run.id))
    return None if latest is None else int(latest)


def complete_round(reader: Reader, round: int | None = None) -> int | None:
    """The latest round whose episodes are all complete; None if there is none.

    Args:
        reader: the run.
        round: only this one.
    """
    o = tables.outcomes
    query = select(o.c.round).where(o.c.run_id == reader.run.id, o.c.measure == EPISODE)
    if round is not None:
        query = query.where(o.c.round == round)
    complete = query.group_by(o.c.round).having(func.sum(o.c.n) >= reader.run.per_round)
    latest = reader.scalar(complete.order_by(o.c.round.desc()).limit(1))
    return None if latest is None else int(latest)


def is_grid(reader: Reader) -> bool:
    """Whether agents live in the cells of a grid."""
    world = json.loads(reader.run.config)["world"]
    return bool(world.get("kind") == "grid" and world.get("topology", "grid") == "grid")


def frame(reader: Reader, round: int, count: str | None = None) -> Frame:
    """A round of the map.

    Args:
        reader: the run.
        round: its number.
        count: the trait that counts something, if it is wanted: `MEMORIES` or `ASKED_AGAIN`.
    """
    measures = [measure.name for measure in map_measures(declaration_of(reader))]
    scores = {name: author_scores(reader, round, name) for name in measures}
    asked, models = _asked(reader, round), _models(reader, round)
    counts = {} if count is None else {count: _memory_counts(reader, round)[count]}
    nodes = [
        Node(
            agent=number,
            name=located.name,
            label=located.label,
            x=located.place[0],
            y=located.place[1],
            scores={name: scores[name].get(number) for name in measures},
            episode=asked[number][0] if number in asked else None,
            question=asked[number][1] if number in asked else None,
            traits={
                "community": None if located.community is None else str(located.community),
                "model": models.get(number),
                **{name: by_agent.get(number, 0) for name, by_agent in counts.items()},
            },
        )
        for number, located in _located_agents(reader).items()
    ]
    return Frame(
        round=round,
        complete=complete_round(reader, round) is not None,
        nodes=nodes,
        edges=list(_edges(reader, round)),
    )


def _edges(reader: Reader, round: int) -> Iterator[tuple[int, int, float]]:
    e, r = tables.episodes, tables.ratings
    given = (
        select(r.c.rater, e.c.author, r.c.rating)
        .join(e, e.c.id == r.c.episode_id)
        .where(
            e.c.run_id == reader.run.id,
            e.c.round == round,
            e.c.author.is_not(None),
            r.c.rating.is_not(None),
        )
    )
    for rater, author, rating in reader.rows(given):
        yield rater, author, int_if_whole(rating) or 0


def _asked(reader: Reader, round: int) -> dict[int, tuple[int, str]]:
    """The number of the latest episode in a round, and its question, by author."""
    e, q, t = tables.episodes, tables.questions, tables.texts
    query = (
        select(e.c.author, e.c.id, t.c.text)
        .join(q, q.c.id == e.c.question_id)
        .join(t, t.c.id == q.c.text_id)
        .where(e.c.run_id == reader.run.id, e.c.round == round, e.c.author.is_not(None))
        .order_by(e.c.id)
    )
    return {author: (number - reader.base, text) for author, number, text in reader.rows(query)}


def author_episode(reader: Reader, author: int, round: int) -> int | None:
    """The number of an author's latest episode in a round; None if there is none."""
    e = tables.episodes
    query = select(func.max(e.c.id)).where(
        e.c.run_id == reader.run.id, e.c.author == author, e.c.round == round
    )
    found = reader.scalar(query)
    return None if found is None else int(found) - reader.base


def _models(reader: Reader, round: int) -> dict[int, str]:
    """The model of each author of a round; empty where there is only one model."""
    e = tables.episodes
    ids = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.round == round)
    with reader.engine.connect() as connection:
        names = ModelNames.of(reader, connection)
        if len(names.names) - len(names.observers) < 2:
            return {}
        found = names.by_agent(connection, connection.scalars(ids).all())
    return {agent: name for (_, agent), name in found.items() if isinstance(agent, int)}


def _memory_counts(reader: Reader, round: int) -> dict[str, dict[int, int]]:
    """By agent: its memories at the end of a round, and those of a question that it knew."""
    m, q = tables.memories, tables.questions
    query = (
        select(m.c.agent, func.count(), func.count(q.c.text_id.distinct()))
        .join(q, q.c.id == m.c.question_id)
        .where(m.c.run_id == reader.run.id, m.c.round <= round)
        .group_by(m.c.agent)
    )
    rows = list(reader.rows(query))
    return {
        MEMORIES: {agent: n for agent, n, _ in rows},
        ASKED_AGAIN: {agent: n - different for agent, n, different in rows},
    }


def author_scores(reader: Reader, round: int, measure: str) -> dict[int, float]:
    """The values of a measure in the complete episodes of a round, by author."""
    e, s, ids = tables.episodes, tables.scores, measure_ids(reader)
    query = (
        select(e.c.author, s.c.value)
        .join(s, (s.c.measure_id == ids[measure]) & (s.c.episode_id == e.c.id))
        .where(e.c.run_id == reader.run.id, e.c.round == round, e.c.author.is_not(None))
    )
    return {author: int_if_whole(float(value)) or 0 for author, value in reader.rows(query)}


class LocatedAgent(NamedTuple):
    """An agent's name, starting demographic, place and links.

    Attributes:
        links: numbers of linked agents; None: neighbours follow from the place.
        community: the group of agents with similar profiles; None: none.
    """

    name: str
    label: str
    place: tuple[float, float]
    links: Sequence[int] | None
    community: int | None


def _located_agents(reader: Reader) -> dict[int, LocatedAgent]:
    a = tables.agents
    columns = (a.c.number, a.c.label, a.c.persona, a.c.x, a.c.y, a.c.neighbours, a.c.community)
    query = select(*columns).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    return {
        number: LocatedAgent(
            persona_name(persona),
            label,
            (x, y),
            [int(link) for link in links.split(",")] if links else None,
            community,
        )
        for number, label, persona, x, y, links, community in reader.rows(query)
    }


class NamedAgent(NamedTuple):
    """An agent's number and name."""

    agent: int
    name: str


class ShownCluster(NamedTuple):
    """A cluster: its band, its size, all its agents, and the first of them by name."""

    band: str
    size: int
    agents: Sequence[int]
    first: NamedAgent


class ShownRater(NamedTuple):
    """A rater and its influence."""

    name: str
    label: str
    influence: Influence


class Advice(NamedTuple):
    """Similarity of neighbours and clusters in a round, and influence of raters up to it.

    Attributes:
        round: the round.
        exchanges: the number of latest exchanges from which influence was computed.
        labels: whether neighbours have the same starting label; None: undefined.
        scores: whether neighbours have similar scores on the main scale; None: undefined.
        bands: of scores on the main scale; None where there is no such scale.
        largest: the largest cluster of each band, beside what shuffling gives.
        clusters: those that exceed what shuffling gives, the largest first.
        raters: the most central first.
    """

    round: int
    exchanges: int
    labels: Null | None
    scores: Null | None
    bands: Bands | None
    largest: Sequence[LargestCluster]
    clusters: Sequence[ShownCluster]
    raters: Sequence[ShownRater]


def advice(reader: Reader, round: int) -> Advice:
    """Clusters of a round by the main scale, and influence up to it."""
    e, declared = tables.episodes, declaration_of(reader)
    query = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.round <= round, e.c.observed)
    with snapshot(reader) as connection:
        latest = query.order_by(e.c.round.desc(), e.c.id.desc()).limit(_EXCHANGES)
        ids = connection.scalars(latest).all()
        central = influences(exchanges_of(reader, connection, ids), declared)[:_LISTED]
    agents = _located_agents(reader)
    near = list(_near(agents))
    final = None if declared.main is None else declared.final(declared.main)
    bands = None if declared.main is None else Bands.of(declared.main)
    scores = {} if final is None else author_scores(reader, round, final.name)
    largest = [] if bands is None else largest_clusters(near, _bands(scores, bands))
    found = [] if bands is None else clusters(near, scores, bands)
    return Advice(
        round=round,
        exchanges=len(ids),
        labels=_segregation(agents, near),
        scores=score_assortativity(near, scores),
        bands=bands,
        largest=largest,
        clusters=[
            ShownCluster(
                cluster.band,
                len(cluster.agents),
                cluster.agents,
                NamedAgent(cluster.agents[0], agents[cluster.agents[0]].name),
            )
            for cluster in _beyond_chance(found, largest)[:_LISTED]
        ],
        raters=[
            ShownRater(agents[rater.agent].name, agents[rater.agent].label, rater)
            for rater in central
            if rater.agent in agents
        ],
    )


def _bands(scores: Mapping[int, float], bands: Bands) -> dict[int, str]:
    return {agent: bands.band(score) for agent, score in scores.items()}


def _segregation(
    agents: Mapping[int, LocatedAgent], near: Sequence[tuple[int, int]]
) -> Null | None:
    return label_assortativity(near, {number: one.label for number, one in agents.items()})


def _beyond_chance(found: Sequence[Cluster], largest: Sequence[LargestCluster]) -> list[Cluster]:
    thresholds = {one.band: one.threshold for one in largest}
    return [one for one in found if len(one.agents) > thresholds[one.band]]


@dataclass(frozen=True, kw_only=True)
class RoundOfNeighbours(Record):
    """Whether neighbours are alike in a round: see `sandbox.reading.neighbours.Null`."""

    round: int
    assortativity: float
    low: float
    high: float
    p: float
    agents: int
    links: int
    shuffles: int


def neighbours_by_round(reader: Reader) -> list[RoundOfNeighbours]:
    """Whether neighbours have similar scores on the main scale, for each complete round.

    Rounds where it is undefined are left out.
    """
    declared, last = declaration_of(reader), complete_round(reader)
    final = None if declared.main is None else declared.final(declared.main)
    if final is None or last is None:
        return []
    near = list(_near(_located_agents(reader)))
    rounds = (
        (round, score_assortativity(near, scores))
        for round, scores in _scores_by_round(reader, final.name).items()
        if round <= last
    )
    return [
        RoundOfNeighbours(
            round=round,
            assortativity=found.value,
            **{name: value for name, value in found._asdict().items() if name != "value"},
        )
        for round, found in rounds
        if found is not None
    ]


def _scores_by_round(reader: Reader, measure: str) -> dict[int, dict[int, float]]:
    e, s, ids = tables.episodes, tables.scores, measure_ids(reader)
    query = (
        select(e.c.round, e.c.author, s.c.value)
        .join(s, (s.c.measure_id == ids[measure]) & (s.c.episode_id == e.c.id))
        .where(e.c.run_id == reader.run.id, e.c.author.is_not(None))
    )
    rounds: dict[int, dict[int, float]] = {}
    for round, author, value in reader.rows(query):
        rounds.setdefault(round, {})[author] = float(value)
    return dict(sorted(rounds.items()))


def _near(agents: Mapping[int, LocatedAgent]) -> Iterator[tuple[int, int]]:
    """Pairs of neighbours: linked agents, or agents in adjacent cells."""
    by_place = {located.place: number for number, located in agents.items()}
    for number, located in agents.items():
        x, y = located.place
        adjacent = located.links or (by_place.get((x + 1, y)), by_place.get((x, y + 1)))
        yield from ((number, other) for other in adjacent if other is not None and other != number)
