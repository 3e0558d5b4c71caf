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

_EXCHANGES = 400  # the latest ones, in which influence is looked up
_LISTED = 15
_SHOWN = 4  # agents of a cluster


def map_measures(declared: Declaration) -> list[Measure]:
    """What a map can be coloured by: the final measure of each observer scale, the main gain."""
    finals = [declared.final(scale) for scale in declared.observed]
    gain = None if declared.main is None else declared.gain(declared.main)
    return [one for one in (*finals, gain) if one is not None]


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
    found = reader.scalar(select(func.max(e.c.round)).where(e.c.run_id == reader.run.id))
    return None if found is None else int(found)


def is_grid(reader: Reader) -> bool:
    """Whether agents live in the cells of a grid."""
    world = json.loads(reader.run.config)["world"]
    return bool(world.get("kind") == "grid" and world.get("topology", "grid") == "grid")


def frame(reader: Reader, round: int) -> Frame:
    """A round of the map."""
    e, r = tables.episodes, tables.ratings
    measures = [one.name for one in map_measures(declaration_of(reader))]
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
            name=one.name,
            label=one.label,
            x=one.place[0],
            y=one.place[1],
            scores={name: scores[name].get(number) for name in measures},
        )
        for number, one in _people(reader).items()
    ]
    return Frame(round=round, nodes=nodes, edges=edges)


def author_scores(reader: Reader, round: int, measure: str) -> dict[int, float]:
    """A measure of the complete episodes of a round, by author."""
    e, s, ids = tables.episodes, tables.scores, measure_ids(reader)
    query = (
        select(e.c.author, s.c.value)
        .join(s, (s.c.measure_id == ids[measure]) & (s.c.episode_id == e.c.id))
        .where(e.c.run_id == reader.run.id, e.c.round == round, e.c.author.is_not(None))
    )
    return {author: int_if_whole(float(value)) or 0 for author, value in reader.rows(query)}


class Person(NamedTuple):
    """An agent's name, starting demographic, place and links; None: its place decides."""

    name: str
    label: str
    place: tuple[float, float]
    links: Sequence[int] | None


def _people(reader: Reader) -> dict[int, Person]:
    a = tables.agents
    columns = (a.c.number, a.c.label, a.c.persona, a.c.x, a.c.y, a.c.neighbours)
    query = select(*columns).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    return {
        number: Person(
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
    """A rater, and what became of its advice."""

    name: str
    label: str
    influence: Influence


class Advice(NamedTuple):
    """Who is alike, and whose advice is taken, up to a round.

    Attributes:
        round: the last round that counts.
        exchanges: the number of exchanges, the latest, in which influence was looked up.
        resemblance: of agents that are near to each other, in the round.
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
    people = _people(reader)
    near = list(_near(people))
    final = None if declared.main is None else declared.final(declared.main)
    bands = None if declared.main is None else Bands.of(declared.main)
    scores = {} if final is None else author_scores(reader, round, final.name)
    found = [] if bands is None else clusters(near, scores, bands)[:_LISTED]
    return Advice(
        round=round,
        exchanges=len(ids),
        resemblance=resemblance(
            near, {number: one.label for number, one in people.items()}, scores
        ),
        bands=bands,
        clusters=[
            ShownCluster(
                one.band,
                len(one.agents),
                [NamedAgent(number, people[number].name) for number in one.agents[:_SHOWN]],
            )
            for one in found
        ],
        raters=[
            ShownRater(people[one.agent].name, people[one.agent].label, one)
            for one in central
            if one.agent in people
        ],
    )


def _near(people: Mapping[int, Person]) -> Iterator[tuple[int, int]]:
    """Pairs of agents that are near: linked, or in cells that touch."""
    at = {one.place: number for number, one in people.items()}
    for number, one in people.items():
        x, y = one.place
        beside = one.links or (at.get((x + 1, y)), at.get((x, y + 1)))
        yield from ((number, other) for other in beside if other is not None and other != number)
