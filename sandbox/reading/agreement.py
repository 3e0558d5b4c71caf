"""Krippendorff's alpha of interval data, with bootstrap intervals, from sums of ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Float, Select, cast, func, select

from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.records import Record
from sandbox.reading.statistics import CONFIDENCE, Interval, Values, clustered_sums
from storage import tables
from storage.reader import Reader

SAMPLES = 1000
"""The number of bootstrap samples of an interval."""

_SEED = 20_110_125
_CELLS = 4_000_000  # numbers in a matrix of samples: 32 MB

PEERS, BOTH = "peers", "peers and the observer"


class TextSums(NamedTuple):
    """Sums of the ratings of one text.

    Attributes:
        ratings: their number, at least 2.
        total: their sum.
        squares: the sum of their squares.
    """

    ratings: int
    total: float
    squares: float

    @classmethod
    def of(cls, ratings: Iterable[float]) -> TextSums:
        """The sums of these ratings."""
        given = list(ratings)
        return cls(len(given), sum(given), sum(rating * rating for rating in given))


@dataclass(frozen=True, kw_only=True)
class Alpha(Record):
    """Krippendorff's alpha of interval data: 1 is perfect agreement, 0 is chance level.

    Attributes:
        texts: the number of texts with at least two ratings.
        alpha: None where there are fewer than two texts, or where all ratings are equal.
        low, high: the 95 % interval; None where alpha is.
    """

    texts: int
    alpha: float | None
    low: float | None = None
    high: float | None = None


def alpha(texts: Mapping[TextSums, int], interval: bool = True) -> Alpha:
    """Krippendorff's alpha of interval data, over all pairs of ratings of the same text.

    It is that of Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". The interval is a
    percentile bootstrap over texts (Zapf et al. 2016, "Measuring inter-rater reliability for
    nominal data"), with 1,000 samples and a fixed seed. It treats texts as independent. A sample
    draws how often each distinct combination of sums occurs, so equal texts cost nothing.

    Args:
        texts: how many texts have these sums.
        interval: whether to compute the interval.
    """
    n = sum(texts.values())
    counts = np.fromiter(texts.values(), np.int64, len(texts))
    sums = _columns(texts)
    found = float(_alphas((counts @ sums)[np.newaxis])[0]) if n > 1 else np.nan
    if np.isnan(found):
        return Alpha(texts=n, alpha=None)
    if not interval:
        return Alpha(texts=n, alpha=found)
    sampled = _alphas(_samples(counts, sums))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(sampled, (tail, 100 - tail)).tolist()
    return Alpha(texts=n, alpha=found, low=low, high=high)


def _columns(texts: Mapping[TextSums, int]) -> Values:
    """The number, sum and squares of ratings, and the disagreement within a text: n x 4."""
    sums = np.array(list(texts), np.float64).reshape(-1, 3)
    n, total, squares = sums.T
    within = 2 * (n * squares - total * total) / np.maximum(1, n - 1)
    return np.column_stack((sums, within))


def _alphas(sums: Values) -> Values:
    """Alpha for each row of summed `_columns`; NaN where all ratings are equal."""
    n, total, squares, within = sums.T
    between = 2 * (n * squares - total * total)
    found = np.full(len(sums), np.nan)
    varied = between > 1e-12 * n * squares
    found[varied] = 1 - (n[varied] - 1) * within[varied] / between[varied]
    return found


def _samples(counts: NDArray[np.int64], sums: Values) -> Values:
    """Summed columns of `SAMPLES` bootstrap samples of the texts."""
    random, n = np.random.default_rng(_SEED), int(counts.sum())
    at_once = max(1, _CELLS // len(counts))
    parts = [
        random.multinomial(n, counts / n, min(at_once, SAMPLES - start)) @ sums
        for start in range(0, SAMPLES, at_once)
    ]
    return np.concatenate(parts)


# Of a run


class Agreements(NamedTuple):
    """The agreement on the text that peers rate.

    Attributes:
        overall: alpha by group of raters: `PEERS` and, if it rates the same, `BOTH`.
        by_round: the same in each round.
    """

    overall: dict[str, Alpha]
    by_round: dict[str, dict[int, Alpha]]


def agreements(reader: Reader) -> Agreements:
    """The agreement of raters, over complete exchanges; reads all ratings of the run."""
    overall, by_round = {}, {}
    for who, observed in ((PEERS, False), (BOTH, True)):
        rounds = _texts(reader, observed)
        if rounds:
            overall[who] = alpha(sum(rounds.values(), Counter()))
            by_round[who] = {round: alpha(texts) for round, texts in rounds.items()}
    return Agreements(overall, by_round)


def _texts(reader: Reader, observed: bool) -> dict[int, Counter[TextSums]]:
    """How many texts have the same sums, by round; with `observed` the observer's rating counts."""
    r, e, s = tables.ratings, tables.episodes, tables.scores
    rating = cast(r.c.rating, Float)
    sums: list[ColumnElement[Any]] = [
        func.count(rating),
        func.sum(rating),
        func.sum(rating * rating),
    ]
    query: Select[Any] = select(e.c.round).join(r, r.c.episode_id == e.c.id).group_by(e.c.id)
    if observed:
        measure = _observer(reader)
        if measure is None:
            return {}
        query = query.join(s, (s.c.episode_id == e.c.id) & (s.c.measure_id == measure))
        query = query.group_by(s.c.value)
        sums = [sums[0] + 1, sums[1] + s.c.value, sums[2] + s.c.value * s.c.value]
    names = ("n", "total", "squares")
    query = query.add_columns(*(one.label(name) for one, name in zip(sums, names, strict=True)))
    text = query.where(e.c.run_id == reader.run.id, e.c.observed, r.c.rating.is_not(None))
    one = text.group_by(e.c.round).subquery()
    columns = [one.c[name] for name in ("round", *names)]
    counted = select(*columns, func.count()).where(one.c.n > 1).group_by(*columns)
    found: dict[int, Counter[TextSums]] = {}
    for round, n, total, squares, texts in reader.rows(counted.order_by(*columns)):
        found.setdefault(round, Counter())[TextSums(int(n), total, squares)] = int(texts)
    return found


def _observer(reader: Reader) -> int | None:
    """The id of the observer's measure that has the meaning and range of the peers' ratings."""
    declared = declaration_of(reader)
    peers = next((measure for measure in declared.measures if measure.kind == "peers"), None)
    same = None if peers is None else declared.same_as(peers)
    return None if same is None else measure_ids(reader)[same.name]


def observer_less_peers(reader: Reader) -> dict[str, Interval]:
    """The observer's rating minus the mean of the peers' ratings, by the author's starting label.

    The interval is clustered by author: see `reading.statistics.clustered`. It reads two scores of
    every exchange.
    """
    e, a = tables.episodes, tables.agents
    one, other = tables.scores.alias("observer"), tables.scores.alias("peers")
    declared, observer = declaration_of(reader), _observer(reader)
    if observer is None or declared.peers is None:
        return {}
    query = (
        select(a.c.label, e.c.author, func.count(), func.sum(one.c.value - other.c.value))
        .join(one, (one.c.episode_id == e.c.id) & (one.c.measure_id == observer))
        .join(
            other,
            (other.c.episode_id == e.c.id)
            & (other.c.measure_id == measure_ids(reader)[declared.peers.name]),
        )
        .join(a, (a.c.run_id == e.c.run_id) & (a.c.number == e.c.author))
        .where(e.c.run_id == reader.run.id)
        .group_by(a.c.label, e.c.author)
        .order_by(a.c.label, e.c.author)
    )
    by_label: dict[str, list[tuple[int, float]]] = {}
    for label, _, n, total in reader.rows(query):
        by_label.setdefault(label, []).append((int(n), float(total)))
    return {label: clustered_sums(*np.array(rows).T) for label, rows in by_label.items()}
