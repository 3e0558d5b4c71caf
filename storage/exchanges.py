"""The exchanges of a run: who was asked what, what others said of it, and what became of it.

An exchange is one episode with everything that was said in it, also where it failed. What a model
did not say is None here: no missing text and no missing rating is ever replaced by a value.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, select

from storage import tables
from storage.reader import Reader
from storage.scenes import Scene, scenes_of
from storage.voices import OBSERVER, Spoke, Voices

_BATCH = 500  # episodes at a time: memory does not grow with the run


class GivenRating(NamedTuple):
    """What one peer said of a draft.

    Attributes:
        rater: the peer's number.
        label: the starting demographic that the peer belongs to.
        rating: on the peers' scale; None where it could not be parsed.
        reason: why; None where it is missing or was truncated.
        status: what became of the peer's reply: ok, cut, empty, unreadable or failed.
        expected: the expected rating from the probabilities of the labels; None where the backend
            returns none.
        model: the name of the model that the peer spoke with.
    """

    rater: int
    label: str
    rating: float | None
    reason: str | None
    status: str
    expected: float | None
    model: str


class Observation(NamedTuple):
    """The observer's rating of a stage, or of somebody in it, on one scale.

    Attributes:
        stage: the name of the stage.
        scale: the name of the scale.
        agent: the number of the agent that is rated; None where it is the stage's text.
        other: the number of the second agent of a pair; None where it is no pair.
        rating: on the scale; None where it could not be parsed.
        reason: why; None where it is missing or was truncated.
        status: what became of the observer's reply, as for a `GivenRating`.
        expected: the expected rating, as for a `GivenRating`.
        model: the name of the observer's model.
    """

    stage: str
    scale: str
    agent: int | None
    other: int | None
    rating: float | None
    reason: str | None
    status: str
    expected: float | None
    model: str


class Exchange(NamedTuple):
    """One episode, with its texts.

    Attributes:
        episode: its number within the run, counted from 0.
        round: counted from 0.
        author: the number of the agent whose episode it is; None where it is nobody's.
        label: the starting demographic that the author belongs to; None without an author.
        persona: the author's name; None without an author.
        question: what was asked.
        question_source: the file and line that the question is from.
        texts: what was recorded, by stage in the world's order; None where a stage is missing.
        ratings: the peers' ratings, by the peer's number.
        failed_at: the form without a usable reply; None where the episode was played to its end.
        observations: by stage and scale; none yet where the observer is still at work.
        model: the name of the model that gave the answers; empty where nobody spoke.
        scene: what was played between the answers; None where there was no scene.
    """

    episode: int
    round: int
    author: int | None
    label: str | None
    persona: str | None
    question: str
    question_source: str | None
    texts: Mapping[str, str | None]
    ratings: tuple[GivenRating, ...]
    failed_at: str | None
    observations: tuple[Observation, ...]
    model: str
    scene: Scene | None = None

    def observation(self, stage: str, scale: str) -> Observation | None:
        """The observer's first rating of a stage on a scale; None where it was not asked."""
        for one in self.observations:
            if one.stage == stage and one.scale == scale:
                return one
        return None

    def score(self, stage: str, scale: str) -> float | None:
        """The observer's rating of a stage on a scale; None where it could not be parsed.

        Where several agents or pairs are rated it is the mean of their ratings.
        """
        ratings = [
            one.rating
            for one in self.observations
            if one.stage == stage and one.scale == scale and one.rating is not None
        ]
        return None if not ratings else whole(sum(ratings) / len(ratings))

    @property
    def mean_rating(self) -> float | None:
        """The mean of the peers' ratings that could be parsed; None where there are none."""
        read = [given.rating for given in self.ratings if given.rating is not None]
        return sum(read) / len(read) if read else None

    @property
    def models(self) -> set[str]:
        """The names of all models that spoke in it."""
        raters = {given.model for given in self.ratings}
        return {self.model} | raters | {seen.model for seen in self.observations}


@contextmanager
def snapshot(reader: Reader) -> Iterator[Connection]:
    """A connection that sees the run as it was at one moment, also while it is being written."""
    with reader.engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def exchanges(
    reader: Reader,
    *,
    round: int | None = None,
    author: int | None = None,
    connection: Connection | None = None,
) -> Iterator[Exchange]:
    """Stream the exchanges of a run in canonical order (round, then place in it).

    Args:
        reader: the run.
        round: only those of this round.
        author: only those of this agent.
        connection: a `snapshot` to read from, so that several passes see the same; by default
            each pass takes its own.
    """
    e = tables.episodes
    query = select(e.c.id).where(e.c.run_id == reader.run.id).order_by(e.c.round, e.c.id)
    for column, wanted in ((e.c.round, round), (e.c.author, author)):
        if wanted is not None:
            query = query.where(column == wanted)
    with nullcontext(connection) if connection else snapshot(reader) as open_connection:
        ids = open_connection.scalars(query, execution_options={"yield_per": _BATCH})
        yield from exchanges_of(reader, open_connection, ids)


def exchanges_of(reader: Reader, connection: Connection, ids: Iterable[int]) -> Iterator[Exchange]:
    """Stream the exchanges with these ids of the database, in their order, some at a time."""
    voices, waiting = Voices.of(reader, connection), iter(ids)
    while batch := list(islice(waiting, _BATCH)):
        yield from _batch(reader, connection, voices, batch)


def exchange(reader: Reader, number: int) -> Exchange | None:
    """The exchange of one episode, by its number within the run; None where there is none."""
    e = tables.episodes
    query = select(e.c.id).where(e.c.id == reader.base + number, e.c.run_id == reader.run.id)
    with snapshot(reader) as connection:
        ids = connection.scalars(query).all()
        return next(_batch(reader, connection, Voices.of(reader, connection), ids), None)


def _batch(
    reader: Reader, connection: Connection, voices: Voices, ids: Sequence[int]
) -> Iterator[Exchange]:
    """The exchanges with these ids, in their order."""
    rows = {row.id: row for row in connection.execute(_episodes(ids))}
    spoke = voices.heard(connection, ids)
    ratings = _ratings(connection, reader.run.id, ids, spoke)
    observations = _observations(connection, ids, spoke)
    scenes = scenes_of(connection, ids)
    texts, stages = _stage_texts(connection, ids), reader.stages
    for number in ids:
        row = rows[number]
        yield Exchange(
            episode=number - reader.base,
            round=row.round,
            author=row.author,
            label=row.label,
            persona=row.persona and json.loads(row.persona)["name"],
            question=row.asked,
            question_source=row.source,
            texts={stage: texts.get((number, stage)) for stage in stages},
            ratings=tuple(ratings.get(number, ())),
            failed_at=row.failed_at,
            observations=tuple(sorted(observations.get(number, ()), key=_subject)),
            model=_model(spoke, number, row.author),
            scene=scenes.get(number),
        )


def _model(spoke: Spoke, number: int, author: int | None) -> str:
    """The model of the author; without one that of nobody in particular, then of whoever spoke."""
    named = spoke.get((number, None)) or spoke.get((number, author))
    if named is not None:
        return named
    others = (
        name for (episode, who), name in spoke.items() if episode == number and who != OBSERVER
    )
    return next(others, "")


def _episodes(ids: Sequence[int]) -> Select[Any]:
    e, q, a = tables.episodes, tables.questions, tables.agents
    asked = tables.texts
    return (
        select(
            *(e.c.id, e.c.round, e.c.author, e.c.failed_at, q.c.source, a.c.label, a.c.persona),
            asked.c.text.label("asked"),
        )
        .join(q, q.c.id == e.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .outerjoin(a, (a.c.run_id == e.c.run_id) & (a.c.number == e.c.author))
        .where(e.c.id.in_(ids))
    )


def _stage_texts(connection: Connection, ids: Sequence[int]) -> dict[tuple[int, str], str]:
    s, t = tables.stage_texts, tables.texts
    query = select(s.c.episode_id, s.c.stage, t.c.text).join(t, t.c.id == s.c.text_id)
    rows = connection.execute(query.where(s.c.episode_id.in_(ids)))
    return {(number, stage): text for number, stage, text in rows}


def _ratings(
    connection: Connection, run_id: int, ids: Sequence[int], spoke: Spoke
) -> dict[int, list[GivenRating]]:
    r, a, t, c = tables.ratings, tables.agents, tables.texts, tables.calls
    columns = (r.c.episode_id, r.c.rater, a.c.label, r.c.rating, t.c.text, r.c.status)
    query = (
        select(*columns, c.c.expected)
        .join(c, c.c.id == r.c.call_id)
        .join(a, (a.c.run_id == run_id) & (a.c.number == r.c.rater + 0))  # by episode, not by rater
        .outerjoin(t, t.c.id == r.c.reason_id)
        .where(r.c.episode_id.in_(ids))
        .order_by(r.c.episode_id, r.c.rater)
    )
    found = defaultdict(list)
    for number, rater, label, rating, reason, status, expected in connection.execute(query):
        model = spoke[number, rater]
        given = GivenRating(rater, label, whole(rating), reason, status, expected, model)
        found[number].append(given)
    return found


def _observations(
    connection: Connection, ids: Sequence[int], spoke: Spoke
) -> dict[int, list[Observation]]:
    o, t, c = tables.observations, tables.texts, tables.calls
    key = (o.c.episode_id, o.c.stage, o.c.scale, o.c.agent, o.c.other)
    query = (
        select(*key, o.c.rating, t.c.text, o.c.status, c.c.expected)
        .join(c, c.c.id == o.c.call_id)
        .outerjoin(t, t.c.id == o.c.reason_id)
        .where(o.c.episode_id.in_(ids))
    )
    found = defaultdict(list)
    for row in connection.execute(query):
        seen = Observation(
            stage=row.stage,
            scale=row.scale,
            agent=None if row.agent < 0 else row.agent,
            other=None if row.other < 0 else row.other,
            rating=whole(row.rating),
            reason=row.text,
            status=row.status,
            expected=row.expected,
            model=spoke[row.episode_id, OBSERVER],
        )
        found[row.episode_id].append(seen)
    return found


def _subject(one: Observation) -> tuple[str, str, int, int]:
    none = -1
    agent, other = (none if number is None else number for number in (one.agent, one.other))
    return one.stage, one.scale, agent, other


def whole(number: float | None) -> float | None:
    """A rating as an int where it has no decimals, whatever type the database returns."""
    return int(number) if number is not None and number == int(number) else number
