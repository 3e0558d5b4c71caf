"""The map of a society at a round: agents with their scores, ratings, clusters, and influence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select

from agents.scale import Declaration, Measure
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.influence import (
    Bands,
    Influence,
    Resemblance,
    clusters,
    influences,
    resemblance,
)
from sandbox.reading.personas import persona_name
from sandbox.reading.records import Record
from storage import tables
from storage.exchanges import exchanges_of, int_if_whole, snapshot
from storage.reader import Reader

_EXCHANGES = 400  # the latest exchanges, from which influence is computed
_LISTED = 15  # clusters, raters
_SHOWN = 4  # agents of a cluster


def map_measures(declared: Declaration) -> list[Measure]:
    """The measures that can colour a map: final score of each observer scale, and the main gain."""
    finals = [declared.final(scale) for scale in declared.observed]
    gain = None if declared.main is None else declared.gain(declared.main)
    return [measure for measure in (*finals, gain) if measure is not None]


@dataclass(frozen=True, kw_only=True)
class Node(Record):
    """An agent on the map, with its score on each of `map_measures` in a round."""

    agent: int
    name: str
    label: str
    x: float
    y: float
    scores: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Frame(Record):
    """A round of the map; edges are (rater, author, rating)."""

    round: int
    nodes: Sequence[Node]
    edges: Sequence[tuple[int, int, float]]


def last_round(reader: Reader) -> int | None:
    """The latest round with an episode; None before the first."""
    e = tables.episodes
    latest = reader.scalar(select(func.max(e.c.round)).where(e.c.run_id == reader.run.id))
    return None if latest is None else int(latest)


def is_grid(reader: Reader) -> bool:
    """Whether agents live in the cells of a grid."""
    world = json.loads(reader.run.config)["world"]
    return bool(world.get("kind") == "grid" and world.get("topology", "grid") == "grid")


def frame(reader: Reader, round: int) -> Frame:
    """A round of the map."""
    e, r = tables.episodes, tables.ratings
    measures = [measure.name for measure in map_measures(declaration_of(reader))]
    scores = {name: author_scores(reader, round, name) for name in measures}
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
    edges = [
        (rater, author, int_if_whole(rating) or 0) for rater, author, rating in reader.rows(given)
    ]
    nodes = [
        Node(
            agent=number,
            name=located.name,
            label=located.label,
            x=located.place[0],
            y=located.place[1],
            scores={name: scores[name].get(number) for name in measures},
        )
        for number, located in _located_agents(reader).items()
    ]
    return Frame(round=round, nodes=nodes, edges=edges)


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
    """

    name: str
    label: str
    place: tuple[float, float]
    links: Sequence[int] | None


def _located_agents(reader: Reader) -> dict[int, LocatedAgent]:
    a = tables.agents
    columns = (a.c.number, a.c.label, a.c.persona, a.c.x, a.c.y, a.c.neighbours)
    query = select(*columns).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    return {
        number: LocatedAgent(
            persona_name(persona),
            label,
            (x, y),
            [int(link) for link in links.split(",")] if links else None,
        )
        for number, label, persona, x, y, links in reader.rows(query)
    }


class NamedAgent(NamedTuple):
    """An agent's number and name."""

    agent: int
    name: str


class ShownCluster(NamedTuple):
    """A cluster: its band, its size, and its first agents."""

    band: str
    size: int
    agents: Sequence[NamedAgent]


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
        resemblance: of neighbours.
        bands: of scores on the main scale; None where there is no such scale.
        clusters: the largest first.
        raters: the most central first.
    """

    round: int
    exchanges: int
    resemblance: Resemblance
    bands: Bands | None
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
    largest = [] if bands is None else clusters(near, scores, bands)[:_LISTED]
    return Advice(
        round=round,
        exchanges=len(ids),
        resemblance=resemblance(
            near, {number: located.label for number, located in agents.items()}, scores
        ),
        bands=bands,
        clusters=[
            ShownCluster(
                cluster.band,
                len(cluster.agents),
                [NamedAgent(number, agents[number].name) for number in cluster.agents[:_SHOWN]],
            )
            for cluster in largest
        ],
        raters=[
            ShownRater(agents[rater.agent].name, agents[rater.agent].label, rater)
            for rater in central
            if rater.agent in agents
        ],
    )


def _near(agents: Mapping[int, LocatedAgent]) -> Iterator[tuple[int, int]]:
    """Pairs of neighbours: linked agents, or agents in adjacent cells."""
    by_place = {located.place: number for number, located in agents.items()}
    for number, located in agents.items():
        x, y = located.place
        adjacent = located.links or (by_place.get((x + 1, y)), by_place.get((x, y + 1)))
        yield from ((number, other) for other in adjacent if other is not None and other != number)
