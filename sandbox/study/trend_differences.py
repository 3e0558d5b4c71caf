"""How trends and gaps of starting labels differ between groups of runs.

A group of one run is compared by its authors, a group of several by the means of its seeds, as the
other measures of a comparison are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from agents.scale import Declaration
from sandbox.reading.declaration import declaration_of
from sandbox.reading.splits import LABEL, groups_of_agents
from sandbox.reading.statistics import Interval, Values, mean, number, student, welch
from sandbox.reading.trends import AgentTrend, agent_trends
from sandbox.study.results import TREND_STATISTICS, TrendDifference
from storage.reader import Reader

ALL = "all"

_Values = Mapping[str, Mapping[int, float]]
"""The value of each author, by starting label; all authors under `ALL`."""


class Development:
    """The trends of one run on some measures.

    Args:
        reader: the run.
    """

    def __init__(self, reader: Reader) -> None:
        declared = declaration_of(reader)
        self._labels = groups_of_agents(reader, LABEL)
        self._trends = {
            name: agent_trends(reader, declared.measure(name)) for name in trend_names(declared)
        }

    @property
    def measures(self) -> list[str]:
        """The names of the measures."""
        return list(self._trends)

    @property
    def labels(self) -> list[str]:
        """The starting labels."""
        return sorted(set(self._labels.values()))

    def values(self, measure: str, statistic: str) -> _Values:
        """The value of a statistic for each author that has one."""
        values: dict[str, dict[int, float]] = {ALL: {}}
        for agent, trend in self._trends[measure].items():
            value = _statistic(trend, statistic)
            if value is not None:
                values[ALL][agent] = value
                values.setdefault(self._labels.get(agent, ""), {})[agent] = value
        return values


def _statistic(trend: AgentTrend, name: str) -> float | None:
    if trend.change is None:
        return None
    return {"last": trend.last, "change": trend.change, "slope": trend.slope}[name]


def trend_names(declared: Declaration) -> list[str]:
    """The measures whose trends are compared: the scores of stages on the main scale."""
    main = declared.main
    return [m.name for m in declared.measures if m.kind == "score" and m.scale == main]


def trend_differences(
    first: Sequence[Development],
    other: Sequence[Development],
    seeds: tuple[Sequence[int], Sequence[int]],
    pairing: str,
) -> list[TrendDifference]:
    """The differences of trends between two groups of runs, other minus first.

    Args:
        first: the runs of the first group.
        other: those of the other group.
        seeds: the seeds of both.
        pairing: `episode` (authors are paired), `seed` or `none`.
    """
    found = []
    for measure in first[0].measures:
        if measure not in other[0].measures:
            continue
        for group in _groups(first[0], other[0]):
            for statistic in TREND_STATISTICS:
                sides = [
                    [one.values(measure, statistic) for one in side] for side in (first, other)
                ]
                difference = _difference(sides, seeds, group, pairing)
                means = [_side_mean(side, group) for side in sides]
                if None not in means:
                    found.append(
                        TrendDifference(
                            measure=measure,
                            group=" \u2212 ".join(group),
                            statistic=statistic,
                            means=means,
                            n=difference.n,
                            difference=difference.difference,
                            low=difference.low,
                            high=difference.high,
                            p=difference.p,
                        )
                    )
    return found


_Group = tuple[str, ...]
"""The name of a group of authors, or of the two groups whose gap is meant."""


def _groups(first: Development, other: Development) -> Iterator[_Group]:
    yield (ALL,)
    if first.labels != other.labels or len(first.labels) < 2:
        return
    yield from ((label,) for label in first.labels)
    if len(first.labels) == 2:
        yield tuple(sorted(first.labels, reverse=True))  # good less bad


def _mean_of(values: _Values, group: _Group) -> float:
    """The mean over authors of a group; of two groups, the difference of their means."""
    means = [mean(np.array([*values.get(name, {}).values()], dtype=np.float64)) for name in group]
    return means[0] if len(means) == 1 else means[0] - means[1]


def _side_mean(side: Sequence[_Values], group: _Group) -> float | None:
    return number(mean(np.array([_mean_of(values, group) for values in side])))


def _difference(
    sides: Sequence[Sequence[_Values]],
    seeds: tuple[Sequence[int], Sequence[int]],
    group: _Group,
    pairing: str,
) -> Interval:
    first, other = sides
    if pairing == "episode":
        pairs = [_paired(first[0].get(name, {}), other[0].get(name, {})) for name in group]
        return student(pairs[0]) if len(pairs) == 1 else welch(pairs[1], pairs[0])
    means = [_by_seed(side, its, group) for side, its in zip(sides, seeds, strict=True)]
    if pairing == "seed":
        shared = [seed for seed in means[0] if seed in means[1]]
        return student(np.array([means[1][seed] - means[0][seed] for seed in shared]))
    return welch(*(np.array([*side.values()]) for side in means))


def _paired(first: Mapping[int, float], other: Mapping[int, float]) -> Values:
    """The differences of the authors that have a value on both sides."""
    return np.array([other[agent] - first[agent] for agent in first if agent in other])


def _by_seed(side: Sequence[_Values], seeds: Sequence[int], group: _Group) -> dict[int, float]:
    """The mean of each seed; runs with the same seed are averaged."""
    found: dict[int, list[float]] = {}
    for values, seed in zip(side, seeds, strict=True):
        value = _mean_of(values, group)
        if not math.isnan(value):
            found.setdefault(seed, []).append(value)
    return {seed: mean(np.array(values)) for seed, values in found.items()}
