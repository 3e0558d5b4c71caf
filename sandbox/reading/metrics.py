"""Statistics of a run by round and by prompt template. Missing ratings are left out.

They are read from the summary tables and cover complete episodes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from agents.forms import UNPARSED, Status
from agents.scale import Measure
from sandbox.reading.declaration import declaration_of
from sandbox.reading.records import Record
from sandbox.reading.statistics import Interval, clustered_sums, student, welch_of
from storage import tables
from storage.reader import Reader

EPISODE = "episode"
AGREEMENT = "agreement"
TEXTS = "mean_rating"

Outcomes = dict[int, dict[str, Counter[str]]]
"""Counts by round, measure and outcome. An outcome is a rating or a gain as text (`5`, `-1`,
`5.25`), or the status of a reply without a rating. Outcomes of `EPISODE` are played or failed;
outcomes of `AGREEMENT` are the peers' rounded mean and the observer's rating, as in `5/6`; those of
`TEXTS` are the sum and the number of the peers' ratings of a text, as in `17/4`."""


class Spread(NamedTuple):
    """The distribution of a measure.

    Attributes:
        n: the number of values.
        mean: their mean; None where there are none.
        deviation: their standard deviation; None where there are fewer than two.
        missing: the number of ratings without a value.
    """

    n: int
    mean: float | None
    deviation: float | None
    missing: int

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Spread:
        """The distribution of a measure, given how often each outcome occurred."""
        values = ratings_in(counts)
        n = values.total()
        missing = sum(counts.values()) - n
        if not n:
            return cls(0, None, None, missing)
        mean = sum(value * count for value, count in values.items()) / n
        squares = sum((value - mean) ** 2 * count for value, count in values.items())
        return cls(n, mean, math.sqrt(squares / (n - 1)) if n > 1 else None, missing)

    @property
    def error(self) -> float | None:
        """The standard error of the mean, for independent values."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.n)


def difference_of(first: Spread, second: Spread) -> Interval:
    """The difference of two means, second minus first, with its interval by Welch's t.

    Values are taken as independent; without two values on both sides there is no interval.
    """
    n = [first.n, second.n]
    if first.mean is None or second.mean is None:
        return Interval(n=n, difference=None, low=None, high=None)
    difference = second.mean - first.mean
    if first.deviation is None or second.deviation is None:
        return Interval(n=n, difference=difference, low=None, high=None)
    return welch_of(n, difference, [first.deviation**2, second.deviation**2])


def means_by_round(reader: Reader, measure: str) -> dict[int, float]:
    """The means of one measure by round, of rounds with at least one value."""
    o = tables.outcomes
    query = select(o.c.round, o.c.outcome, o.c.n).where(
        o.c.run_id == reader.run.id, o.c.measure == measure
    )
    counts: dict[int, Counter[str]] = {}
    for round, outcome, n in reader.rows(query.order_by(o.c.round)):
        counts.setdefault(round, Counter())[outcome] += n  # a row for each label
    means = {round: Spread.of(found).mean for round, found in counts.items()}
    return {round: mean for round, mean in means.items() if mean is not None}


def ratings_in(counts: Mapping[str, int]) -> Counter[float]:
    """How often each rating or gain occurred, without the outcomes that are a status."""
    values: Counter[float] = Counter()
    for outcome, n in counts.items():
        value = _rating(outcome)
        if value is not None:
            values[value] += n  # 0 and -0.0 are equal keys
    return values


@lru_cache(maxsize=4096)
def _rating(outcome: str) -> float | None:
    """The number that an outcome is; None where it is a status."""
    try:
        return float(outcome)
    except ValueError:
        return None


@dataclass(frozen=True)
class RoundScores(Record):
    """The scores of one round.

    Attributes:
        round: counted from 0.
        episodes, failed: the number of complete episodes, and of those that failed.
        means: the mean of each score and of the peers' ratings, by measure; None where there is no
            rating.
        missing_ratings: the number of ratings without a value, of peers and the observer.
    """

    round: int
    episodes: int
    failed: int
    means: Mapping[str, float | None]
    missing_ratings: int


def outcomes(reader: Reader) -> Outcomes:
    """Count the outcomes of each measure, by round."""
    return merged(outcomes_by_label(reader).values())


def outcomes_by_label(reader: Reader) -> dict[str, Outcomes]:
    """Count the outcomes of each measure, by starting demographic and round.

    The label is that of the author, or of the agent that was rated; it is empty for neither.
    """
    o = tables.outcomes
    query = select(o.c.label, o.c.round, o.c.measure, o.c.outcome, o.c.n)
    query = query.where(o.c.run_id == reader.run.id).order_by(o.c.round, o.c.label)
    found: dict[str, Outcomes] = {}
    with reader.engine.connect() as connection:
        for label, round, measure, outcome, n in connection.execute(query).all():
            if label not in found:
                found[label] = no_outcomes()
            found[label][round][measure][outcome] = n
    return dict(sorted(found.items()))


def no_outcomes() -> Outcomes:
    """Counts to which outcomes can be added."""
    return defaultdict(lambda: defaultdict(Counter))


def merged(parts: Iterable[Outcomes]) -> Outcomes:
    """The sum of several counts, in the order of rounds."""
    total = no_outcomes()
    for part in parts:
        for round, measures in part.items():
            for measure, counts in measures.items():
                total[round][measure].update(counts)
    return dict(sorted(total.items()))


def merged_values(counts: Outcomes, measure: str) -> NDArray[np.float64]:
    """All values of a measure over all rounds, sorted."""
    total: Counter[float] = Counter()
    for measures in counts.values():
        total.update(ratings_in(measures.get(measure, {})))
    values = sorted(total)
    return np.repeat(np.array(values, dtype=np.float64), [total[value] for value in values])


def mean_of(counts: Mapping[str, Counter[str]], measure: Measure) -> Interval:
    """The mean of a measure in a round, with its 95 % interval by Student's t.

    Peers' ratings of the same text are not independent: their mean is over ratings, its interval
    clustered by text.
    """
    if measure.kind == "peers":
        sums = [
            (float(n), float(total))
            for outcome, times in counts.get(TEXTS, {}).items()
            for total, _, n in [outcome.partition("/")]
            for _ in range(times)
        ]
        numbers, totals = np.array(sums, dtype=np.float64).reshape(-1, 2).T
        return clustered_sums(numbers, totals)
    values = ratings_in(counts.get(measure.name, {}))
    return student(np.repeat(np.array([*values], dtype=np.float64), [*values.values()]))


def settled(counts: Outcomes, rounds: int) -> Outcomes:
    """The outcomes of complete rounds; all of them before there is one.

    A round that is still going on has the authors that finished first, who are not a random sample.
    """
    return {round: found for round, found in counts.items() if round < rounds} or counts


def complete_rounds(reader: Reader) -> int:
    """The number of rounds, from the first on, whose episodes are all complete."""
    o = tables.outcomes
    query = select(o.c.round, func.sum(o.c.n))
    query = query.where(o.c.run_id == reader.run.id, o.c.measure == EPISODE).group_by(o.c.round)
    complete = {round for round, n in reader.rows(query) if int(n) >= reader.run.per_round}
    return next(number for number in count() if number not in complete)


def scores_by_round(reader: Reader) -> list[RoundScores]:
    """Means of the observer's scores and of the peers' ratings, by round."""
    measures = [measure for measure in declaration_of(reader).measures if measure.kind != "gain"]
    return [_round_scores(round, counts, measures) for round, counts in outcomes(reader).items()]


def _round_scores(
    round: int, counts: Mapping[str, Counter[str]], measures: Sequence[Measure]
) -> RoundScores:
    spreads = {measure.name: Spread.of(counts.get(measure.name, {})) for measure in measures}
    return RoundScores(
        round=round,
        episodes=counts[EPISODE].total(),
        failed=counts[EPISODE]["failed"],
        means={name: spread.mean for name, spread in spreads.items()},
        missing_ratings=sum(spread.missing for spread in spreads.values()),
    )


@dataclass(frozen=True)
class FormCalls(Record):
    """The calls of one prompt template.

    Attributes:
        form: its name.
        calls, failed, unparsed, lenient: the number of calls, of those without a reply, of those
            whose reply could not be parsed, and of those whose reply was read leniently.
        cut, empty, unreadable: the numbers of the replies that could not be parsed: truncated,
            empty, and not in their form.
        shortened: the number of truncated replies that were kept to their last whole sentence.
        tokens_in, tokens_out: of prompts and replies, where the backend reports them.
        tokens_cached: tokens of prompts from the prefix cache; None where no backend reports them.
        prefix_share: their share of prompt tokens, among calls whose backend reports them; None
            where no backend does.
    """

    form: str
    calls: int
    failed: int
    unparsed: int
    lenient: int
    cut: int
    empty: int
    unreadable: int
    shortened: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int | None
    prefix_share: float | None


def calls_by_form(reader: Reader) -> list[FormCalls]:
    """Calls and tokens by prompt template, in the order of the world's templates."""
    c, f = tables.call_sums, tables.forms
    counted = (*UNPARSED, Status.FAILED, Status.LENIENT, Status.SHORTENED)
    summed = (
        select(
            c.c.form_id,
            func.sum(c.c.calls).label("calls"),
            *(
                func.sum(c.c.calls).filter(c.c.status == status.value).label(status.value)
                for status in counted
            ),
            func.sum(c.c.tokens_in).label("tokens_in"),
            func.sum(c.c.tokens_out).label("tokens_out"),
            func.sum(c.c.cached_tokens).label("tokens_cached"),
            func.sum(c.c.told).label("told"),
            func.sum(c.c.tokens_told).label("tokens_told"),
        )
        .where(c.c.run_id == reader.run.id)
        .group_by(c.c.form_id)
        .having(func.sum(c.c.calls) > 0)
        .subquery()
    )
    query = select(f.c.name, summed).join(f, f.c.id == summed.c.form_id).order_by(f.c.id)
    return [_form_calls(row) for row in reader.rows(query)]


def _form_calls(row: Any) -> FormCalls:
    cached = int(row.tokens_cached) if row.told else None
    unparsed = {status.value: int(getattr(row, status.value) or 0) for status in UNPARSED}
    return FormCalls(
        form=row.name,
        calls=int(row.calls),
        failed=int(row.failed or 0),
        unparsed=sum(unparsed.values()),
        lenient=int(row.lenient or 0),
        shortened=int(row.shortened or 0),
        **unparsed,
        tokens_in=int(row.tokens_in),
        tokens_out=int(row.tokens_out),
        tokens_cached=cached,
        prefix_share=None if cached is None else cached / max(1, int(row.tokens_told)),
    )
