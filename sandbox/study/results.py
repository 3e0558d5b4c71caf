"""Results of comparisons and estimates, as the terminal, the viewer and scripts take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.reading.records import Record
from sandbox.reading.statistics import Interval

SCOPES = ("all", "last")
"""All rounds of a run, or only its last one."""

SPREAD_SCOPES = ("all", "first", "last")
"""The same, and only its first round."""


@dataclass(frozen=True, kw_only=True)
class MeasureMean(Record):
    """The mean of a measure in a group, and the number of episodes without a value."""

    mean: float | None
    missing: int


@dataclass(frozen=True, kw_only=True)
class SeedSpread(Record):
    """The spread of a measure over the seeds of a group.

    Attributes:
        n: the number of seeds that have a value.
        mean, deviation: of the means of the seeds; the deviation is that of a sample, None for
            fewer than two seeds.
        minimum, maximum: the lowest and the highest mean of a seed.
    """

    n: int
    mean: float | None
    deviation: float | None
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, kw_only=True)
class GroupSummary(Record):
    """A group of runs that differ only in their seed.

    Attributes:
        name: see `sandbox.reading.run_groups.group_names`.
        runs, seeds: the names and seeds of its runs.
        n: the number of runs.
        episodes, failed_episodes: the number of complete episodes, and of those that failed.
        measures, spread: by measure and scope; None where the group does not have the measure.
    """

    name: str
    runs: list[str]
    seeds: list[int]
    n: int
    episodes: int
    failed_episodes: int
    measures: Mapping[str, Mapping[str, MeasureMean] | None]
    spread: Mapping[str, Mapping[str, SeedSpread] | None]


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """The difference of a measure between two groups, other minus first.

    Attributes:
        left_out: the number of episodes or seeds of the first group without a counterpart, and of
            pairs with a missing value.
        means: of both groups, over what is compared; their difference is `difference`.
        p: of the hypothesis that there is no difference, by the t test of the interval; None where
            there is no interval.
        p_holm: the same, corrected for all measures and groups of the comparison (Holm 1979).
    """

    left_out: int
    means: list[float | None]
    p: float | None = None
    p_holm: float | None = None


TREND_STATISTICS = ("last", "change", "slope")
"""Of authors: the mean in the last rounds, last minus first rounds, and points per round."""


@dataclass(frozen=True, kw_only=True)
class TrendDifference(Interval):
    """The difference of a trend between two groups of runs, other minus first.

    Attributes:
        measure: a score of a stage on the main scale.
        group: the starting label of the authors, `all`, or two labels and a minus for their gap.
        statistic: one of `TREND_STATISTICS`; see `sandbox.reading.trends`.
        means: of both groups of runs.
        n: the number of authors or of seeds.
        p: of the hypothesis that there is no difference; None where there is no interval.
        p_holm: the same, corrected for all trends of the comparison (Holm 1979).
    """

    measure: str
    group: str
    statistic: str
    means: list[float | None]
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class GroupComparison(Record):
    """The differences between two groups.

    Attributes:
        groups: the indices of the first and the other group.
        pairing: `episode`, `seed` or `none`.
        method: how the intervals were computed, in words.
        first_round: earlier rounds are shared by both groups and left out.
        measures: by measure and scope; None where a group does not have the measure.
        trends: of the scores on the main scale, also by starting label, and of the gap of two.
    """

    groups: list[int]
    pairing: str
    method: str
    first_round: int
    measures: Mapping[str, Mapping[str, Difference] | None]
    trends: list[TrendDifference]


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Runs by group, and the differences of each group from the first.

    Attributes:
        groups: the group of the run that was named first comes first.
        differing_keys: config keys that differ, each with a value for each group.
        comparisons: of each other group with the first.
        notes: caveats, in words.
    """

    groups: list[GroupSummary]
    differing_keys: Mapping[str, list[Any]]
    comparisons: list[GroupComparison]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Range(Record):
    """An estimate, and the ends of its 90 % range."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class SampleSummary(Record):
    """What the sample took.

    Attributes:
        episodes, of_first_round: the number of sampled episodes, and of those of the first round.
        calls, tokens_in, tokens_out: sums over its calls.
        failed, unparsed: calls without a reply, and replies that cannot be used.
        seconds: time during which at least one call was in flight.
    """

    episodes: int
    of_first_round: int
    calls: int
    failed: int
    unparsed: int
    tokens_in: int
    tokens_out: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TimeEstimate(Record):
    """How long a run takes; None where it cannot be estimated.

    Attributes:
        seconds: wall-clock time.
        gpu_hours: needs the number of GPUs.
        floor_seconds: a lower bound: the calls that wait for each other, one round after another.
        basis: what the time was computed from: given rates, a simulation with the rates of
            `calibrate`, or the speed of the sample.
        busy: of a simulation: the used share of the engines' capacity.
    """

    seconds: Range | None
    gpu_hours: Range | None
    floor_seconds: float | None
    basis: Literal["rates", "simulation", "sample"] | None
    busy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate(Record):
    """What a whole run takes.

    Attributes:
        run: its name.
        problems: calls of the sample that failed, and replies that cannot be used, in words.
        agents, rounds, episodes: their numbers in the whole run.
        sample: what was played.
        calls, tokens_in, tokens_out: of the whole run.
        database_bytes: of an SQLite file.
        time: see `TimeEstimate`.
        notes: caveats, in words.
    """

    run: str
    problems: list[str]
    agents: int
    rounds: int
    episodes: int
    sample: SampleSummary
    calls: Range
    tokens_in: Range
    tokens_out: Range
    database_bytes: Range
    time: TimeEstimate
    notes: list[str]
