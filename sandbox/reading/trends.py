"""Trends over rounds: how much authors changed from the first rounds to the last, and how steadily.

An author comes back in every round, so rounds are not independent. Each author is summarised by its
own change and its own slope, and intervals are taken over authors (the summary measures of Matthews
et al., "Analysis of serial measurements in medical research", BMJ 1990): Student's t for the mean
of a group, Welch's t for the difference of two groups.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Float, Select, cast, func, literal, select

from agents.scale import Declaration, Measure
from sandbox.reading.declaration import measure_ids
from sandbox.reading.metrics import complete_rounds
from sandbox.reading.records import PAGES_ONLY, Record
from sandbox.reading.splits import LABEL, MOST_GROUPS, OTHERS, groups_of_agents
from sandbox.reading.statistics import Interval, Values, student, t_quantile, welch
from storage import tables
from storage.reader import Reader

MOST_ROUNDS = 5
"""At most as many of the first and of the last rounds are compared."""

_POINTS = 24  # of a sparkline


@dataclass(frozen=True, kw_only=True)
class AgentTrend(Record):
    """How one author's values of a measure developed.

    Attributes:
        n: the number of its values.
        first, last: their means in the first and in the last rounds; None where there are none.
        change: last minus first.
        slope: points per round, by least squares; None with fewer than two rounds.
        low, high: its 95 % interval, as if rounds were independent; None with fewer than three
            values, and for means of peers' ratings.
        points: (round, mean) of at most 24 intervals of rounds.
    """

    n: int
    first: float | None
    last: float | None
    change: float | None
    slope: float | None
    low: float | None
    high: float | None
    points: Sequence[tuple[float, float]] = field(default=(), metadata=PAGES_ONLY)


@dataclass(frozen=True, kw_only=True)
class GroupTrend(Record):
    """How the authors of a group developed on a measure.

    Attributes:
        group: its name; `all` for all authors.
        agents: the number of its authors with a value in the first and in the last rounds.
        first, last: means over these authors, in the first and in the last rounds.
        change: the mean of their changes.
        slope: the mean of their slopes, points per round.
    """

    group: str
    agents: int
    first: float | None
    last: float | None
    change: Interval
    slope: Interval


@dataclass(frozen=True, kw_only=True)
class Gap(Record):
    """The difference of two groups, the first minus the second, by Welch's t over authors.

    Attributes:
        groups: the names of the two groups.
        first, last: their difference in the first and in the last rounds.
        change: by how much the difference grew, in points; negative where it closed.
        slope: the difference of their slopes, points per round.
    """

    groups: tuple[str, str]
    first: Interval
    last: Interval
    change: Interval
    slope: Interval


@dataclass(frozen=True, kw_only=True)
class Trends(Record):
    """The development of a measure over the complete rounds of a run.

    Attributes:
        measure: its name.
        better: the better end of its scale, `high` or `low`.
        rounds: the number of complete rounds; later ones are in no number.
        window: how many of the first and of the last rounds are compared; 0 with fewer than two
            complete rounds.
        split: the property by which authors are grouped; None where they are not.
        groups: all authors, then each group.
        gap: between the two groups, the one that began higher first; None where there are not two.
    """

    measure: str
    better: str
    rounds: int
    window: int
    split: str | None
    groups: Sequence[GroupTrend]
    gap: Gap | None


def window_of(rounds: int) -> int:
    """How many of the first and of the last rounds are compared: 5, or half of fewer rounds."""
    return min(MOST_ROUNDS, rounds // 2)


def trend_measures(declared: Declaration) -> list[Measure]:
    """The measures whose trends are shown: every score of a stage, and the peers' ratings."""
    return [measure for measure in declared.measures if measure.kind != "gain"]


def trends(reader: Reader, measure: Measure, split: str | None = LABEL) -> Trends:
    """How the authors of a run developed on a measure, in all and by group.

    Args:
        reader: the run.
        measure: one of its measures.
        split: a property of authors, see `splits.splits`; None: only all authors.
    """
    return all_trends(reader, [measure], split)[0]


def all_trends(
    reader: Reader, measures: Sequence[Measure], split: str | None = LABEL
) -> list[Trends]:
    """The same for several measures, with as many queries as for one."""
    rounds = complete_rounds(reader)
    by_measure = _authors(reader, measures, rounds)
    groups = {} if split is None else groups_of_agents(reader, split)
    return [
        _trends_of(measure, by_measure[measure.name], groups, rounds, split) for measure in measures
    ]


def _trends_of(
    measure: Measure,
    by_agent: Mapping[int, _Author],
    groups: Mapping[int, str],
    rounds: int,
    split: str | None,
) -> Trends:
    members = _members(groups, by_agent)
    parts = {name: _Part.of([by_agent[agent] for agent in found]) for name, found in members}
    found = [_group_trend("all", _Part.of(list(by_agent.values())))]
    found += [_group_trend(name, part) for name, part in parts.items()]
    return Trends(
        measure=measure.name,
        better=measure.scale.better,
        rounds=rounds,
        window=window_of(rounds),
        split=split if parts else None,
        groups=found,
        gap=_gap(parts) if len(parts) == 2 else None,
    )


def agent_trends(
    reader: Reader, measure: Measure, agents: Collection[int] | None = None
) -> dict[int, AgentTrend]:
    """How each author developed on a measure.

    Args:
        reader: the run.
        measure: one of its measures.
        agents: the numbers of the authors whose points are wanted; None: of no author.
    """
    rounds = complete_rounds(reader)
    found = _authors(reader, [measure], rounds)[measure.name]
    points = _points(reader, measure, rounds, agents or ())
    return {
        agent: AgentTrend(
            n=one.n,
            first=one.first,
            last=one.last,
            change=one.change,
            slope=one.slope,
            low=None if one.error is None or one.slope is None else one.slope - one.error,
            high=None if one.error is None or one.slope is None else one.slope + one.error,
            points=points.get(agent, ()),
        )
        for agent, one in found.items()
    }


def agent_points(
    reader: Reader, measure: Measure, agents: Collection[int]
) -> dict[int, tuple[tuple[float, float], ...]]:
    """The `points` of the trends of some authors alone."""
    return _points(reader, measure, complete_rounds(reader), agents)


@dataclass(frozen=True)
class _Author:
    """The sums of one author: `error` is half the width of the interval of its slope."""

    n: int
    first: float | None
    last: float | None
    slope: float | None
    error: float | None

    @property
    def change(self) -> float | None:
        return None if self.first is None or self.last is None else self.last - self.first


def _authors(
    reader: Reader, measures: Sequence[Measure], rounds: int
) -> dict[str, dict[int, _Author]]:
    """By measure, the values of each author, with its means in the first and the last rounds."""
    s, window, ids = tables.agent_sums, window_of(rounds), measure_ids(reader)
    by_id = {ids[measure.name]: measure for measure in measures}
    first = _means(reader, measures, 0, window)
    last = _means(reader, measures, rounds - window, rounds)
    later = _later_sums(reader, measures, rounds)
    query = select(s).where(s.c.run_id == reader.run.id, s.c.measure_id.in_(by_id))
    found: dict[str, dict[int, _Author]] = {measure.name: {} for measure in measures}
    for row in reader.rows(query.order_by(s.c.agent)):
        measure = by_id[row.measure_id]
        key = measure.name, row.agent
        stored = (row.n, row.total, row.squares, row.rounds, row.round_squares, row.products)
        sums = np.array(stored, dtype=np.float64) - later.get(key, 0.0)
        if sums[0] > 0.5:
            slope, error = _slope(sums, measure.kind != "peers")
            ends = first.get(key), last.get(key)
            found[measure.name][row.agent] = _Author(round(sums[0]), *ends, slope, error)
    return found


def _slope(sums: Values, interval: bool) -> tuple[float | None, float | None]:
    """The slope of one author by least squares, and half the width of its 95 % interval."""
    n, total, squares, over, over_squares, products = map(float, sums)
    spread = over_squares - over * over / n
    if spread <= 1e-9:
        return None, None
    together = products - over * total / n
    slope = together / spread
    if not interval or n < 2.5:
        return slope, None
    rest = max(0.0, squares - total * total / n - slope * together)
    return slope, t_quantile(0.975, n - 2) * math.sqrt(rest / (n - 2) / spread)


def _later_sums(
    reader: Reader, measures: Sequence[Measure], rounds: int
) -> dict[tuple[str, int], Values]:
    """The sums of values in rounds that are not complete, by measure and author.

    `agent_sums` has them too, of the authors that finished first.
    """
    e = tables.episodes
    latest = select(func.max(e.c.round)).where(e.c.run_id == reader.run.id)
    if int(reader.scalar(latest) or 0) < rounds:
        return {}
    found: dict[tuple[str, int], Values] = {}
    for measure in measures:
        v = _values(reader, measure, rounds, 2**31 - 1, weight=True).subquery().c
        at, value = cast(v.round, Float), v.value
        terms = (value, value * value, at, at * at, value * at)
        sums = [func.sum(v.weight), *(func.sum(v.weight * term) for term in terms)]
        for agent, *row in reader.rows(select(v.agent, *sums).group_by(v.agent)):
            found[measure.name, agent] = np.array(row, dtype=np.float64)
    return found


def _means(
    reader: Reader, measures: Sequence[Measure], start: int, end: int
) -> dict[tuple[str, int], float]:
    """The means in the rounds from `start` to before `end`, by measure and author."""
    found: dict[tuple[str, int], float] = {}
    if start >= end:
        return found
    names = {number: name for name, number in measure_ids(reader).items()}
    scored = [one for one in measures if not _rates_agents(one)]
    if scored:
        v = _scores(reader, scored, start, end).subquery().c
        query = select(v.measure_id, v.agent, func.avg(v.value)).group_by(v.measure_id, v.agent)
        found |= {(names[row[0]], row[1]): float(row[2]) for row in reader.rows(query)}
    for measure in measures:
        if _rates_agents(measure):
            v = _values(reader, measure, start, end).subquery().c
            means = select(v.agent, func.avg(v.value)).group_by(v.agent)
            found |= {(measure.name, row[0]): float(row[1]) for row in reader.rows(means)}
    return found


def _rates_agents(measure: Measure) -> bool:
    return measure.scale.subject == "agent" and measure.kind == "score"


def _scores(
    reader: Reader, measures: Sequence[Measure], start: int, end: int, weight: bool = False
) -> Select[Any]:
    """A query of measure, agent, round and value, in the rounds from `start` to before `end`."""
    e, s, ids = tables.episodes, tables.scores, measure_ids(reader)
    columns: list[Any] = [s.c.measure_id, e.c.author.label("agent"), e.c.round, s.c.value]
    if weight:
        columns.append(_weight(measures[0]).label("weight"))
    numbers = [ids[measure.name] for measure in measures]
    query = select(*columns).join(s, s.c.measure_id.in_(numbers) & (s.c.episode_id == e.c.id))
    return query.where(*_in_rounds(reader, start, end), e.c.author.is_not(None))


def _in_rounds(reader: Reader, start: int, end: int) -> tuple[Any, ...]:
    e = tables.episodes
    return e.c.run_id == reader.run.id, e.c.round >= start, e.c.round < end, e.c.observed


def _weight(measure: Measure) -> Any:
    """How often a value counts in `agent_sums`: a mean of peers' ratings as often as they are."""
    return tables.episodes.c.ratings_read if measure.kind == "peers" else literal(1)


def _values(
    reader: Reader, measure: Measure, start: int, end: int, weight: bool = False
) -> Select[Any]:
    """A query of agent, round and value, in the rounds from `start` to before `end`."""
    if not _rates_agents(measure):
        return _scores(reader, [measure], start, end, weight)
    e, o = tables.episodes, tables.observations
    columns = (o.c.agent, e.c.round, o.c.rating.label("value"))
    rated = select(*columns, *([literal(1).label("weight")] if weight else []))
    return rated.join(e, e.c.id == o.c.episode_id).where(
        *_in_rounds(reader, start, end),
        o.c.stage == measure.stage,
        o.c.scale == measure.scale.name,
        o.c.agent >= 0,
        o.c.rating.is_not(None),
    )


def _points(
    reader: Reader, measure: Measure, rounds: int, agents: Collection[int]
) -> dict[int, tuple[tuple[float, float], ...]]:
    """The means of some authors in at most 24 intervals of rounds."""
    if not agents or rounds < 2:
        return {}
    v = _values(reader, measure, 0, rounds).subquery().c
    part = v.round - v.round % -(-rounds // _POINTS)
    query = select(v.agent, func.avg(v.round), func.avg(v.value)).where(v.agent.in_(agents))
    query = query.group_by(v.agent, part).order_by(v.agent, part)
    found: dict[int, list[tuple[float, float]]] = {}
    for number, at, mean in reader.rows(query):
        found.setdefault(number, []).append((float(at), float(mean)))
    return {number: tuple(points) for number, points in found.items()}


def _members(
    groups: Mapping[int, str], by_agent: Mapping[int, _Author]
) -> list[tuple[str, list[int]]]:
    """The authors of each group, of the largest groups; the others are one group."""
    members: dict[str, list[int]] = {}
    for agent in by_agent:
        if agent in groups:
            members.setdefault(groups[agent], []).append(agent)
    if len(members) < 2:
        return []
    names = sorted(members, key=lambda name: (-len(members[name]), name))
    kept = names if len(names) <= MOST_GROUPS else names[: MOST_GROUPS - 1]
    found = [(name, members[name]) for name in sorted(kept)]
    rest = [agent for name in names[len(kept) :] for agent in members[name]]
    return [*found, (OTHERS, rest)] if rest else found


@dataclass(frozen=True)
class _Part:
    """The values of the authors of a group: arrays over authors, without NaN."""

    first: Values
    last: Values
    slopes: Values

    @classmethod
    def of(cls, authors: Sequence[_Author]) -> _Part:
        both = [(one.first, one.last) for one in authors if one.change is not None]
        ends = np.array(both, dtype=np.float64).reshape(-1, 2)
        slopes = [one.slope for one in authors if one.slope is not None]
        return cls(ends[:, 0], ends[:, 1], np.array(slopes, dtype=np.float64))


def _group_trend(name: str, part: _Part) -> GroupTrend:
    agents = len(part.first)
    return GroupTrend(
        group=name,
        agents=agents,
        first=float(part.first.mean()) if agents else None,
        last=float(part.last.mean()) if agents else None,
        change=student(part.last - part.first),
        slope=student(part.slopes),
    )


def _gap(parts: Mapping[str, _Part]) -> Gap | None:
    (one, first), (other, second) = parts.items()
    if not len(first.first) or not len(second.first):
        return None
    if first.first.mean() < second.first.mean():
        (one, first), (other, second) = (other, second), (one, first)
    return Gap(
        groups=(one, other),
        first=welch(second.first, first.first),
        last=welch(second.last, first.last),
        change=welch(second.last - second.first, first.last - first.first),
        slope=welch(second.slopes, first.slopes),
    )
