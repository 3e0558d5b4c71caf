"""The society at a round: where everybody is, who rated whom, and whose advice is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import func, select

from sandbox.reading.figures import named
from sandbox.reading.influence import Influence, Resemblance, clusters, influences, resemblance
from sandbox.text import visible
from sandbox.viewer.addresses import Links
from storage import tables
from storage.exchanges import exchanges_of, snapshot
from storage.reader import Reader

Row = dict[str, Any]

MEASURES = ("alignment", "engagement", "change")
"""What a map is coloured by: the observer's rating of the revision, and its rise in alignment."""

_EXCHANGES = 400  # whose advice was taken is looked up in so many, the latest
_LISTED = 15


def last_round(reader: Reader) -> int | None:
    """The latest round of which an episode is recorded; None before the first."""
    e = tables.episodes
    found = reader.scalar(select(func.max(e.c.round)).where(e.c.run_id == reader.run.id))
    return None if found is None else int(found)


def is_grid(reader: Reader) -> bool:
    """Whether agents live in the cells of a grid."""
    world = json.loads(reader.run.config)["world"]
    return bool(world.get("kind") == "grid" and world.get("topology", "grid") == "grid")


def frame(reader: Reader, round: int, key: str, links: Links) -> Row:
    """A round of the map: agents with their scores, and edges [rater, author, rating]."""
    e, r = tables.episodes, tables.ratings
    mine = (e.c.run_id == reader.run.id, e.c.round == round)
    columns = (e.c.author, e.c.draft_alignment, e.c.revision_alignment, e.c.revision_engagement)
    scores = {row.author: row for row in reader.rows(select(*columns).where(*mine))}
    given = select(r.c.rater, e.c.author, r.c.rating).join(e, e.c.id == r.c.episode_id)
    edges = [list(row) for row in reader.rows(given.where(*mine, r.c.rating.is_not(None)))]
    nodes = [{**node, **_scored(scores.get(node["agent"]))} for node in _nodes(reader, key, links)]
    return {"round": round, "nodes": nodes, "edges": edges}


def _nodes(reader: Reader, key: str, links: Links) -> Iterator[Row]:
    a = tables.agents
    columns = (a.c.number, a.c.label, a.c.persona, a.c.x, a.c.y)
    query = select(*columns).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    for number, label, persona, x, y in reader.rows(query):
        place = {"agent": number, "name": visible(named(persona)), "label": label, "x": x, "y": y}
        yield {**place, "href": links.run(key, "agents", number)}


def _scored(row: Any) -> Row:
    if row is None:
        return dict.fromkeys(MEASURES)
    before, after = row.draft_alignment, row.revision_alignment
    change = None if before is None or after is None else after - before
    return {"alignment": after, "engagement": row.revision_engagement, "change": change}


class Advice(NamedTuple):
    """Who is alike, and whose advice is taken, up to a round.

    Attributes:
        round: the last round that counts.
        exchanges: how many exchanges, the latest, influence was looked up in.
        resemblance: of those who are near to each other, in the round.
        clusters: rows of a band, how many agents it has, and the first of them.
        raters: rows of the most central raters.
    """

    round: int
    exchanges: int
    resemblance: Resemblance
    clusters: list[Row]
    raters: list[Row]


def advice(reader: Reader, round: int) -> Advice:
    """Clusters of a round, and influence up to it."""
    e = tables.episodes
    query = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.round <= round, e.c.observed)
    with snapshot(reader) as connection:
        latest = query.order_by(e.c.round.desc(), e.c.id.desc()).limit(_EXCHANGES)
        ids = connection.scalars(latest).all()
        central = influences(exchanges_of(reader, connection, ids))[:_LISTED]
    people = _people(reader)
    near, scores = list(_near(people)), _scores(reader, round)
    labels = {number: row["label"] for number, row in people.items()}
    found = clusters(near, scores)[:_LISTED]
    return Advice(
        round,
        len(ids),
        resemblance(near, labels, scores),
        [
            {"band": one.band, "size": len(one.agents), "agents": _shown(one.agents, people)}
            for one in found
        ],
        [_rater(one, people) for one in central if one.agent in people],
    )


def _shown(agents: tuple[int, ...], people: dict[int, Row]) -> list[Row]:
    return [{"agent": number, "name": named(people[number]["persona"])} for number in agents[:4]]


def _rater(one: Influence, people: dict[int, Row]) -> Row:
    person = people[one.agent]
    return {**one._asdict(), "name": named(person["persona"]), "label": person["label"]}


def _people(reader: Reader) -> dict[int, Row]:
    a = tables.agents
    columns = (a.c.number, a.c.label, a.c.persona, a.c.x, a.c.y, a.c.neighbours)
    query = select(*columns).where(a.c.run_id == reader.run.id)
    return {
        number: {
            **{"label": label, "persona": persona, "place": (x, y)},
            "links": [int(link) for link in links.split(",")] if links else None,
        }
        for number, label, persona, x, y, links in reader.rows(query)
    }


def _near(people: dict[int, Row]) -> Iterator[tuple[int, int]]:
    """Who is near to whom: linked agents, or those in cells that touch."""
    at = {one["place"]: number for number, one in people.items()}
    for number, one in people.items():
        x, y = one["place"]
        beside = one["links"] or (at.get((x + 1, y)), at.get((x, y + 1)))
        yield from ((number, other) for other in beside if other is not None and other != number)


def _scores(reader: Reader, round: int) -> dict[int, float]:
    e = tables.episodes
    query = select(e.c.author, e.c.revision_alignment).where(
        *(e.c.run_id == reader.run.id, e.c.round == round, e.c.author.is_not(None)),
        e.c.revision_alignment.is_not(None),
    )
    return {author: float(score) for author, score in reader.rows(query)}
