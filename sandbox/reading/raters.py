"""Raters: the ratings that an agent gave, and the peers that rated it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Select, func, select

from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.personas import persona_name
from sandbox.reading.records import PAGES_ONLY, Record
from sandbox.reading.statistics import benjamini_hochberg, t_quantile, t_test
from storage import tables
from storage.exchanges import int_if_whole
from storage.reader import Reader


@dataclass(frozen=True)
class RatingsGiven(Record):
    """How an agent rates others.

    Attributes:
        ratings, missing: the number of ratings, and of those that could not be parsed.
        mean: None where no rating could be parsed.
        deviation: mean of the agent's rating minus the mean of the other peers' of the same text.
        low, high: the 95 % interval of the deviation, by Student's t.
        compared: the number of texts that other peers have rated too.
        distance: root mean square of the differences from the mean of the other peers.
        p: the p value of the deviation by Student's t, against 0; None for fewer than
            `FEWEST_TEXTS` texts, and where all differences are equal.
    """

    ratings: int
    missing: int
    mean: float | None
    deviation: float | None = field(metadata=PAGES_ONLY)
    low: float | None = field(metadata=PAGES_ONLY)
    high: float | None = field(metadata=PAGES_ONLY)
    compared: int = field(metadata=PAGES_ONLY)
    distance: float | None = field(default=None, metadata=PAGES_ONLY)
    p: float | None = field(default=None, metadata=PAGES_ONLY)


FEWEST_TEXTS = 5
"""Raters of fewer texts are not tested: ratings on a scale of few values are often equal by chance,
so the p values of Student's t would be too small."""

NO_RATINGS = RatingsGiven(
    ratings=0, missing=0, mean=None, deviation=None, low=None, high=None, compared=0
)


@dataclass(frozen=True, kw_only=True)
class RatingGiven(Record):
    """A rating that an agent gave, with the author of the rated text."""

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


def ratings_given(reader: Reader, number: int | None = None) -> dict[int, RatingsGiven]:
    """How agents rate others, by agent; with `number` only that agent."""
    r = tables.rater_sums
    sums = (r.c.ratings, r.c.missing, r.c.total, r.c.compared, r.c.deviation, r.c.deviation_squares)
    query = select(r.c.rater, *map(func.sum, sums)).where(r.c.run_id == reader.run.id)
    if number is not None:
        query = query.where(r.c.rater == number)
    rows = reader.rows(query.group_by(r.c.rater).order_by(r.c.rater))
    return {rater: _ratings_given(*sums) for rater, *sums in rows}


def _ratings_given(
    ratings: int, missing: int, total: float, compared: int, deviations: float, squares: float
) -> RatingsGiven:
    parsed, n = int(ratings) - int(missing), int(compared)
    deviation = deviations / n if n else None
    half_width, p = None, None
    if n > 1 and deviation is not None:
        error = math.sqrt(max(0.0, squares - n * deviation * deviation) / (n - 1) / n)
        half_width = error * t_quantile(0.975, n - 1)
        if n >= FEWEST_TEXTS and error > _EQUAL:
            p = t_test(deviation / error, n - 1)
    return RatingsGiven(
        ratings=int(ratings),
        missing=int(missing),
        mean=float(total) / parsed if parsed else None,
        deviation=deviation,
        low=None if half_width is None or deviation is None else deviation - half_width,
        high=None if half_width is None or deviation is None else deviation + half_width,
        compared=n,
        distance=math.sqrt(max(0.0, squares) / n) if n else None,
        p=p,
    )


_EQUAL = 1e-7  # standard errors below are those of rounding


@dataclass(frozen=True, kw_only=True)
class RaterRow(Record):
    """A rater in the table of all raters.

    Attributes:
        agent, name, label: the rater, and its starting label.
        ratings, missing: the number of ratings, and of those that could not be parsed.
        mean: the mean rating given.
        deviation, low, high: its leniency: mean of its rating minus the mean of the other raters'
            of the same text, with the 95 % interval by Student's t.
        n: the number of texts that others have rated too.
        p: of the leniency, by Student's t; see `RatingsGiven`.
        adjusted: p adjusted by `benjamini_hochberg` for all raters that are tested.
        distance: root mean square of the differences from the mean of the other raters.
    """

    agent: int
    name: str
    label: str
    ratings: int
    missing: int
    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None
    adjusted: float | None
    distance: float | None

    @property
    def differs(self) -> bool:
        """Whether its leniency is other than 0, at a false discovery rate of 5 %."""
        return self.adjusted is not None and self.adjusted <= FALSE_DISCOVERIES


FALSE_DISCOVERIES = 0.05


def raters(reader: Reader) -> list[RaterRow]:
    """All raters of a run, the most lenient first; it reads a summary table."""
    a = tables.agents
    query = select(a.c.number, a.c.label, a.c.persona).where(a.c.run_id == reader.run.id)
    agents = {number: (label, persona) for number, label, persona in reader.rows(query)}
    given = {one: sums for one, sums in ratings_given(reader).items() if one in agents}
    adjusted = adjusted_p({one: sums.p for one, sums in given.items()})
    rows = [
        RaterRow(
            agent=number,
            name=persona_name(agents[number][1]),
            label=agents[number][0],
            ratings=one.ratings,
            missing=one.missing,
            mean=one.mean,
            deviation=one.deviation,
            low=one.low,
            high=one.high,
            n=one.compared,
            p=one.p,
            adjusted=adjusted.get(number),
            distance=one.distance,
        )
        for number, one in given.items()
    ]
    return sorted_raters(rows, "-deviation")


def adjusted_p(found: Mapping[int, float | None]) -> dict[int, float]:
    """The p values adjusted by `benjamini_hochberg`, without those that are None."""
    known = {rater: p for rater, p in found.items() if p is not None}
    adjusted = benjamini_hochberg(np.array(list(known.values())))
    return dict(zip(known, adjusted.tolist(), strict=True))


RATER_COLUMNS = ("agent", "label", "n", "mean", "deviation", "adjusted", "distance", "missing")
"""The columns that a table of raters can be sorted by."""

RATER_ORDERS = (*RATER_COLUMNS, *(f"-{column}" for column in RATER_COLUMNS))
"""Sort orders; a minus sign sorts from high to low."""


def sorted_raters(rows: Iterable[RaterRow], order: str) -> list[RaterRow]:
    """Sort raters by one of `RATER_ORDERS`; missing values come last."""
    column = order.removeprefix("-")
    known = [row for row in rows if getattr(row, column) is not None]
    missing = [row for row in rows if getattr(row, column) is None]
    known.sort(key=lambda row: row.agent)
    known.sort(key=lambda row: getattr(row, column), reverse=order.startswith("-"))
    return known + sorted(missing, key=lambda row: row.agent)


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
