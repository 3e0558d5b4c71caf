"""Exchanges: the episodes of a run as they are read, with texts, ratings and scores.

Failed episodes are included. Missing texts and missing ratings are None; they are never replaced by
a value.
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
from storage.model_names import OBSERVER, ModelByAgent, ModelNames
from storage.reader import Reader
from storage.scenes import Scene, scenes_of

_BATCH = 500  # episodes at a time, so that memory use is bounded


class GivenRating(NamedTuple):
    """A peer's rating of the author's text.

    Attributes:
        rater: the agent number of the peer.
        label: the peer's starting demographic.
        rating: on the peers' scale; None where it could not be parsed.
        reason: the reason given; None where it is missing or was truncated.
        status: the status of the peer's reply: ok, cut, empty, unreadable or failed.
        expected: the expected rating from the probabilities of the labels; None where the backend
            returns none.
        model: the name of the model that gave the rating.
    """

    rater: int
    label: str
    rating: float | None
    reason: str | None
    status: str
    expected: float | None
    model: str


class Observation(NamedTuple):
    """The observer's rating of a stage, or of an agent or a pair in it, on one scale.

    Attributes:
        stage: the name of the stage.
        scale: the name of the scale.
        agent: the number of the rated agent; None where the text of the stage is rated.
        other: the number of the second agent of a rated pair; None where no pair is rated.
        rating: on the scale; None where it could not be parsed.
        reason: the reason given; None where it is missing or was truncated.
        status: the status of the observer's reply, as for a `GivenRating`.
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
    """One episode as it is read.

    Attributes:
        episode: its number within the run, counted from 0.
        round: counted from 0.
        author: the number of the author; None where the episode has no author.
        label: the author's starting demographic; None without an author.
        persona: the author's name; None without an author.
        question: the text of the question.
        question_source: the file and line of the question.
        texts: the recorded text of each stage, in the world's order; None where it is missing.
        ratings: the peers' ratings, sorted by rater.
        failed_at: the form without a usable reply; None where the episode was played to the end.
        observations: sorted by stage, scale and agents; empty while the observer is working.
        model: the name of the model that wrote the stages; empty without calls.
        scene: the scene played between the answers; None in worlds without scenes.
        shortened: the stages whose text was truncated, and kept to its last whole sentence.
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
    shortened: tuple[str, ...] = ()

    def observation(self, stage: str, scale: str) -> Observation | None:
        """The observer's first rating of a stage on a scale; None if there is none."""
        for observation in self.observations:
            if observation.stage == stage and observation.scale == scale:
                return observation
        return None

    def score(self, stage: str, scale: str) -> float | None:
        """The observer's rating of a stage on a scale; the mean where several subjects are rated.

        None where no rating could be parsed.
        """
        ratings = [
            observation.rating
            for observation in self.observations
            if (observation.stage, observation.scale) == (stage, scale)
            and observation.rating is not None
        ]
        return None if not ratings else int_if_whole(sum(ratings) / len(ratings))

    @property
    def mean_rating(self) -> float | None:
        """The mean of the peers' ratings that could be parsed; None where there are none."""
        parsed = [peer.rating for peer in self.ratings if peer.rating is not None]
        return sum(parsed) / len(parsed) if parsed else None

    @property
    def models(self) -> set[str]:
        """The names of all models that were called in this episode."""
        raters = {peer.model for peer in self.ratings}
        observers = {observation.model for observation in self.observations}
        return {self.model} | raters | observers


@contextmanager
def snapshot(reader: Reader) -> Iterator[Connection]:
    """Open a connection with a consistent snapshot of the database, also during writes."""
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
    """Stream the exchanges of a run in canonical order (round, then slot).

    Args:
        reader: the run.
        round: only those of this round.
        author: only those of this agent.
        connection: a `snapshot` to read from, so that several passes see the same state; by
            default each pass takes a new one.
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
    """Stream the exchanges with these database ids, in the given order, in batches."""
    names = ModelNames.of(reader, connection)
    remaining = iter(ids)
    while batch := list(islice(remaining, _BATCH)):
        yield from _batch(reader, connection, names, batch)


def exchange(reader: Reader, number: int) -> Exchange | None:
    """Read the exchange of one episode, by its number within the run; None if there is none."""
    e = tables.episodes
    query = select(e.c.id).where(e.c.id == reader.base + number, e.c.run_id == reader.run.id)
    with snapshot(reader) as connection:
        ids = connection.scalars(query).all()
        return next(_batch(reader, connection, ModelNames.of(reader, connection), ids), None)


def _batch(
    reader: Reader, connection: Connection, names: ModelNames, ids: Sequence[int]
) -> Iterator[Exchange]:
    """The exchanges with these ids, in the given order."""
    rows = {row.id: row for row in connection.execute(_episodes(ids))}
    models = names.by_agent(connection, ids)
    ratings = _ratings(connection, reader.run.id, ids, models)
    observations = _observations(connection, ids, models)
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
            texts={stage: texts.get((number, stage), _NO)[0] for stage in stages},
            ratings=tuple(ratings.get(number, ())),
            failed_at=row.failed_at,
            observations=tuple(sorted(observations.get(number, ()), key=_sort_key)),
            model=_model(models, number, row.author),
            scene=scenes.get(number),
            shortened=tuple(stage for stage in stages if texts.get((number, stage), _NO)[1]),
        )


def _model(models: ModelByAgent, number: int, author: int | None) -> str:
    """The model of calls without an agent, else the author's, else that of any other agent."""
    name = models.get((number, None)) or models.get((number, author))
    if name is not None:
        return name
    others = (
        name for (episode, agent), name in models.items() if episode == number and agent != OBSERVER
    )
    return next(others, "")


def _episodes(ids: Sequence[int]) -> Select[Any]:
    e, q, a = tables.episodes, tables.questions, tables.agents
    asked = tables.texts
    return (
        select(
            e.c.id,
            e.c.round,
            e.c.author,
            e.c.failed_at,
            q.c.source,
            a.c.label,
            a.c.persona,
            asked.c.text.label("asked"),
        )
        .join(q, q.c.id == e.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .outerjoin(a, (a.c.run_id == e.c.run_id) & (a.c.number == e.c.author))
        .where(e.c.id.in_(ids))
    )


class _StageText(NamedTuple):
    text: str | None
    shortened: bool


_NO = _StageText(None, False)


def _stage_texts(connection: Connection, ids: Sequence[int]) -> dict[tuple[int, str], _StageText]:
    s, t = tables.stage_texts, tables.texts
    columns = (s.c.episode_id, s.c.stage, t.c.text, s.c.shortened)
    query = select(*columns).join(t, t.c.id == s.c.text_id)
    rows = connection.execute(query.where(s.c.episode_id.in_(ids)))
    return {(number, stage): _StageText(*found) for number, stage, *found in rows}


def _ratings(
    connection: Connection, run_id: int, ids: Sequence[int], models: ModelByAgent
) -> dict[int, list[GivenRating]]:
    r, a, t, c = tables.ratings, tables.agents, tables.texts, tables.calls
    # `+ 0` stops SQLite from using the index on raters: rows are looked up by episode
    same_agent = (a.c.run_id == run_id) & (a.c.number == r.c.rater + 0)
    columns = (r.c.episode_id, r.c.rater, a.c.label, r.c.rating, t.c.text, r.c.status)
    query = (
        select(*columns, c.c.expected)
        .join(c, c.c.id == r.c.call_id)
        .join(a, same_agent)
        .outerjoin(t, t.c.id == r.c.reason_id)
        .where(r.c.episode_id.in_(ids))
        .order_by(r.c.episode_id, r.c.rater)
    )
    ratings = defaultdict(list)
    for number, rater, label, rating, reason, status, expected in connection.execute(query):
        model = models[number, rater]
        peer = GivenRating(rater, label, int_if_whole(rating), reason, status, expected, model)
        ratings[number].append(peer)
    return ratings


def _observations(
    connection: Connection, ids: Sequence[int], models: ModelByAgent
) -> dict[int, list[Observation]]:
    o, t, c = tables.observations, tables.texts, tables.calls
    key = (o.c.episode_id, o.c.stage, o.c.scale, o.c.agent, o.c.other)
    query = (
        select(*key, o.c.rating, t.c.text, o.c.status, c.c.expected)
        .join(c, c.c.id == o.c.call_id)
        .outerjoin(t, t.c.id == o.c.reason_id)
        .where(o.c.episode_id.in_(ids))
    )
    observations = defaultdict(list)
    for row in connection.execute(query):
        observation = Observation(
            stage=row.stage,
            scale=row.scale,
            agent=None if row.agent < 0 else row.agent,
            other=None if row.other < 0 else row.other,
            rating=int_if_whole(row.rating),
            reason=row.text,
            status=row.status,
            expected=row.expected,
            model=models[row.episode_id, OBSERVER],
        )
        observations[row.episode_id].append(observation)
    return observations


def _sort_key(observation: Observation) -> tuple[str, str, int, int]:
    agent = -1 if observation.agent is None else observation.agent
    other = -1 if observation.other is None else observation.other
    return observation.stage, observation.scale, agent, other


def int_if_whole(number: float | None) -> float | None:
    """Convert a rating to int if it has no decimals, whatever type the database returned."""
    return int(number) if number is not None and number == int(number) else number
