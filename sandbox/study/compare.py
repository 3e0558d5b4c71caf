"""Comparing runs: groups of runs that differ only in their seed, and differences between groups.

Every measure has at most one value for each episode; the mean of a run is the mean over its
episodes, and the mean of a group is the mean over its seeds. Intervals are at 95 % for each measure
alone; beside them stand p values that Holm's method corrects for all measures and groups of a
table. Missing values are left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from agents.scale import Declaration, Measure, plain_number
from sandbox.reading.declaration import measure_ids
from sandbox.reading.run_groups import (
    RunSettings,
    differing_keys,
    group_names,
    grouped,
    run_settings,
    same_people,
)
from sandbox.reading.statistics import (
    Interval,
    Values,
    clustered,
    holm,
    mean,
    number,
    student,
    welch,
)
from sandbox.study.results import (
    SCOPES,
    SPREAD_SCOPES,
    Comparison,
    Difference,
    GroupComparison,
    GroupSummary,
    MeasureMean,
    SeedSpread,
)
from sandbox.study.trend_differences import Development, trend_differences
from storage import database, tables
from storage.copying import forked_from
from storage.database import Address, address_of
from storage.errors import InputError
from storage.reader import Reader
from storage.secrets import hide_secrets

MISSING, FAILED = "missing_ratings", "failed"
"""Measures that do not depend on a scale: the share of an episode's ratings that could not be
parsed, and 1 for a failed episode."""

METHODS = {
    "episode": (
        "paired by episode (same round, position in the round, and question); standard errors "
        "are cluster-robust by author, because episodes of one author are not independent; "
        "Student's t with (number of authors - 1) degrees of freedom; the interval applies to "
        "these two runs and does not generalize to other seeds"
    ),
    "seed": "paired by seed, one difference per seed; Student's t",
    "none": (
        "not paired (different seeds or different agents), one mean per seed; Welch's t, which "
        "needs at least two seeds in each group"
    ),
}


class _Run(NamedTuple):
    """One run and its complete episodes.

    Attributes:
        reader: the run.
        settings: its config, stages and scales.
        rows: round, slot, author and question of each episode.
        columns: the values of each measure by episode; NaN where there is none.
    """

    reader: Reader
    settings: RunSettings
    rows: NDArray[Any]
    columns: Mapping[str, Values]

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.reader.run.name)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.settings.seed

    @property
    def declared(self) -> Declaration:
        """The stages and scales of the run."""
        return self.settings.declared

    def values(self, measure: str) -> Values:
        """The values of a measure by episode; all NaN where the run does not have it."""
        values = self.columns.get(measure)
        return np.full(len(self.rows), np.nan) if values is None else values

    def within(self, scope: str, first: int = 0) -> NDArray[np.bool_]:
        """Mask of the episodes of a scope, without the rounds before `first`."""
        return _in_scope(self.rows["round"], scope, first)

    def mean(self, measure: str, scope: str, first: int = 0) -> float:
        """The mean of a measure; NaN where there is no value."""
        return mean(self.values(measure)[self.within(scope, first)])


def _in_scope(rounds: NDArray[Any], scope: str, first: int) -> NDArray[np.bool_]:
    """Mask of the rounds of a scope: those from `first` on, or only the first or the last one."""
    start = max(first, rounds.max(initial=0)) if scope == "last" else first
    mask: NDArray[np.bool_] = rounds == start if scope == "first" else rounds >= start
    return mask


class _Group(list[_Run]):
    """Runs that differ only in their seed, and the name of the group."""

    name = ""

    @cached_property
    def measures(self) -> frozenset[str]:
        """The names of the measures that the runs have."""
        return frozenset(self[0].columns)

    @cached_property
    def developments(self) -> list[Development]:
        """The trends of the runs."""
        return [Development(run.reader) for run in self]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return [run.seed for run in self]


def compare(names: Sequence[str | Address]) -> Comparison:
    """Group runs by their config, and compare each group with the first.

    Args:
        names: at least two runs, each as `address_of` reads it.

    Raises:
        InputError: there is no such run, one is given twice or has no complete episode, there
            are fewer than two, or a scale has different ranges in them.
    """
    if len(names) < 2:
        found = "1 run" if names else "no run"
        raise InputError(f"compare: found {found}; expected at least 2")
    with ExitStack() as stack:
        runs = [_read(stack, name) for name in names]
        _check_ranges(runs)
        groups = _group_runs(runs, names)
        measures = measures_of([run.declared for run in runs])
        comparisons = [_comparison(groups, other, measures) for other in range(1, len(groups))]
        return Comparison(
            groups=[_summary(group, measures) for group in groups],
            differing_keys=differing_keys([group[0].settings.config for group in groups]),
            comparisons=_with_corrected_trends(_corrected(comparisons)),
            notes=list(_notes(groups, measures)),
        )


def measures_of(declarations: Sequence[Declaration]) -> list[str]:
    """The names of the measures that at least one run has, in the order of their declarations."""
    names = (measure.name for declared in declarations for measure in _peers_last(declared))
    return [*dict.fromkeys(names), MISSING, FAILED]


def _peers_last(declared: Declaration) -> list[Measure]:
    return sorted(declared.measures, key=lambda measure: measure.kind == "peers")


def _check_ranges(runs: Sequence[_Run]) -> None:
    """Check that each scale has one range: differences are in points of the scale."""
    ranges: dict[str, tuple[_Run, tuple[float, float, str]]] = {}
    for run in runs:
        for scale in run.declared.scales:
            own_range = scale.low, scale.high, scale.better
            first_run, expected = ranges.setdefault(scale.name, (run, own_range))
            if own_range != expected:
                raise InputError(
                    f"compare: {scale.name}: found {_range(own_range)} in {run.name}; expected "
                    f"{_range(expected)} as in {first_run.name}"
                )


def _range(ends: tuple[float, float, str]) -> str:
    low, high, better = ends
    return f"{plain_number(low)} to {plain_number(high)} ({better} is better)"


def _read(stack: ExitStack, name: str | Address) -> _Run:
    address = address_of(name)
    engine = database.open_for_reading(address.url)
    stack.callback(engine.dispose)
    reader = Reader.find(engine, address.name, str(address))
    ids, rows, columns = _episodes(reader)
    if not len(rows):
        raise InputError(f"{address}: no complete episode yet; expected at least one")
    settings = run_settings(reader)
    columns = {**dict(_scores(reader, settings.declared, ids)), **columns}
    return _Run(reader, settings, rows, columns)


_ROW = np.dtype([("round", "i4"), ("slot", "i4"), ("author", "i8"), ("question", "i8")])


def _episodes(reader: Reader) -> tuple[NDArray[np.int64], NDArray[Any], dict[str, Values]]:
    """Read the complete episodes of a run: ids, rows, and the measures that no scale declares."""
    e, q, t = tables.episodes, tables.questions, tables.texts
    texts = (
        select(q.c.id, t.c.text).join(t, t.c.id == q.c.text_id).where(reader.belongs_to_run(q.c.id))
    )
    question_hashes = {row.id: hash(row.text) for row in reader.rows(texts)}
    columns = (e.c.id, e.c.round, e.c.author, e.c.question_id, e.c.failed_at)
    counts = (e.c.ratings_read, e.c.ratings_missing)
    ids, rows, missing, failed = [], [], [], []
    query = (
        select(*columns, *counts)
        .where(reader.belongs_to_run(e.c.id), e.c.observed)
        .order_by(e.c.id)
    )
    for episode, round, author, question, failed_at, read, unread in reader.rows(query):
        slot = episode - reader.base - round * reader.run.per_round
        cluster = -episode if author is None else author  # without an author: independent
        ids.append(episode)
        rows.append((round, slot, cluster, question_hashes[question]))
        missing.append(unread / (read + unread) if read + unread else math.nan)
        failed.append(float(failed_at is not None))
    undeclared = {MISSING: np.array(missing, dtype=float), FAILED: np.array(failed, dtype=float)}
    return np.array(ids, dtype=np.int64), np.array(rows, dtype=_ROW), undeclared


def _scores(
    reader: Reader, declared: Declaration, ids: NDArray[np.int64]
) -> Iterator[tuple[str, Values]]:
    """The values of each declared measure, by episode."""
    s, keys = tables.scores, measure_ids(reader)
    pair = np.dtype([("episode", "i8"), ("value", "f8")])
    for measure in declared.measures:
        query = select(s.c.episode_id, s.c.value).where(s.c.measure_id == keys[measure.name])
        scores = np.fromiter((tuple(row) for row in reader.rows(query)), pair)
        values = np.full(len(ids), np.nan)
        indices = np.searchsorted(ids, scores["episode"])
        known = indices < len(ids)
        known[known] = ids[indices[known]] == scores["episode"][known]
        values[indices[known]] = scores["value"][known]
        yield measure.name, values


def _group_runs(runs: Sequence[_Run], names: Sequence[str | Address]) -> list[_Group]:
    addresses: set[tuple[str, str]] = set()
    for name, run in zip(names, runs, strict=True):
        address = str(address_of(name).url), run.name
        if address in addresses:
            raise InputError(f"{hide_secrets(str(name))}: given twice; expected each run once")
        addresses.add(address)
    settings = [run.settings for run in runs]
    groups = [_Group(runs[index] for index in group) for group in grouped(settings)]
    titles = group_names([[run.settings for run in group] for group in groups])
    for group, title in zip(groups, titles, strict=True):
        group.name = title
    return groups


def _summary(group: _Group, measures: Sequence[str]) -> GroupSummary:
    return GroupSummary(
        name=group.name,
        runs=[run.name for run in group],
        seeds=[run.seed for run in group],
        n=len(group),
        episodes=sum(len(run.rows) for run in group),
        failed_episodes=int(sum(run.values(FAILED).sum() for run in group)),
        measures={
            measure: {scope: _measure_mean(group, measure, scope) for scope in SCOPES}
            if measure in group.measures
            else None
            for measure in measures
        },
        spread={
            measure: {scope: _seed_spread(group, measure, scope) for scope in SPREAD_SCOPES}
            if measure in group.measures
            else None
            for measure in measures
        },
    )


def _seed_spread(group: _Group, measure: str, scope: str) -> SeedSpread:
    means = np.array(list(_means_by_seed(group, measure, scope).values()))
    present = means[~np.isnan(means)]
    n = len(present)
    return SeedSpread(
        n=n,
        mean=number(mean(present)),
        deviation=float(present.std(ddof=1)) if n > 1 else None,
        minimum=float(present.min()) if n else None,
        maximum=float(present.max()) if n else None,
    )


def _measure_mean(group: _Group, measure: str, scope: str) -> MeasureMean:
    by_run = [run.values(measure)[run.within(scope)] for run in group]
    missing = sum(int(np.isnan(values).sum()) for values in by_run)
    seeds = np.array(list(_means_by_seed(group, measure, scope).values()))
    return MeasureMean(mean=number(mean(seeds)), missing=missing)


def _means_by_seed(group: _Group, measure: str, scope: str, first: int = 0) -> dict[int, float]:
    """The mean of a measure by seed: runs with the same seed are averaged."""
    means: dict[int, list[float]] = {}
    for run in group:
        means.setdefault(run.seed, []).append(run.mean(measure, scope, first))
    return {seed: mean(np.array(values)) for seed, values in means.items()}


def _comparison(groups: Sequence[_Group], other: int, measures: Sequence[str]) -> GroupComparison:
    a, b = groups[0], groups[other]
    pairing = _pairing(a, b)
    first = 1 + max(_last_shared_round(run, its) for run in a for its in b)
    difference = {"episode": _by_episode, "seed": _by_seed, "none": _unpaired}[pairing]
    return GroupComparison(
        groups=[0, other],
        pairing=pairing,
        method=METHODS[pairing],
        first_round=first,
        measures={
            measure: {scope: difference(a, b, measure, scope, first) for scope in SCOPES}
            if measure in a.measures & b.measures
            else None
            for measure in measures
        },
        trends=trend_differences(a.developments, b.developments, (a.seeds, b.seeds), pairing),
    )


def _corrected(comparisons: Sequence[GroupComparison]) -> list[GroupComparison]:
    """The comparisons with p values that Holm's method corrects, for each scope by itself.

    All measures of all groups of a scope are one family, since they are read as one table.
    """
    places = [
        (scope, index, measure)
        for scope in SCOPES
        for index, comparison in enumerate(comparisons)
        for measure, by_scope in comparison.measures.items()
        if by_scope is not None and by_scope[scope].p is not None
    ]
    corrected: dict[tuple[str, int, str], float] = {}
    for scope in SCOPES:
        family = [place for place in places if place[0] == scope]
        values = [_difference_at(comparisons, *place).p for place in family]
        corrected.update(zip(family, holm([p for p in values if p is not None]), strict=True))
    return [
        replace(
            comparison,
            measures={
                measure: by_scope
                and {
                    scope: replace(found, p_holm=corrected.get((scope, index, measure)))
                    for scope, found in by_scope.items()
                }
                for measure, by_scope in comparison.measures.items()
            },
        )
        for index, comparison in enumerate(comparisons)
    ]


def _with_corrected_trends(comparisons: Sequence[GroupComparison]) -> list[GroupComparison]:
    """The comparisons with p values of trends that Holm's method corrects, all as one family."""
    every = [one for comparison in comparisons for one in comparison.trends if one.p is not None]
    corrected = iter(holm([one.p for one in every if one.p is not None]))
    return [
        replace(
            comparison,
            trends=[
                one if one.p is None else replace(one, p_holm=next(corrected))
                for one in comparison.trends
            ],
        )
        for comparison in comparisons
    ]


def _difference_at(
    comparisons: Sequence[GroupComparison], scope: str, index: int, measure: str
) -> Difference:
    by_scope = comparisons[index].measures[measure]
    assert by_scope is not None
    return by_scope[scope]


def _pairing(a: _Group, b: _Group) -> str:
    """By episode or by seed only where both groups have the same agents."""
    by_seed_a, by_seed_b = ({run.seed: run.reader for run in group} for group in (a, b))
    if by_seed_a.keys() != by_seed_b.keys() or not all(
        same_people(reader, by_seed_b[seed]) for seed, reader in by_seed_a.items()
    ):
        return "none"
    return "episode" if len(a) == len(b) == 1 else "seed"


def _last_shared_round(a: _Run, b: _Run) -> int:
    """The last round that both runs have from a common ancestor or from each other; -1: none."""
    last = -1
    for name_a, digest_a, last_a in _lineage(a):
        for name_b, digest_b, last_b in _lineage(b):
            same = name_a == name_b and (None in (digest_a, digest_b) or digest_a == digest_b)
            if same and min(last_a, last_b) < math.inf:
                last = max(last, int(min(last_a, last_b)))
    return last if _equal_until(a, b, last) else -1


def _equal_until(a: _Run, b: _Run, last: int) -> bool:
    """Whether two runs have the same episodes and values up to a round."""
    mask_a, mask_b = (run.rows["round"] <= last for run in (a, b))
    if a.rows[mask_a].tobytes() != b.rows[mask_b].tobytes():
        return False
    return all(
        np.array_equal(a.columns[name][mask_a], b.columns[name][mask_b], equal_nan=True)
        for name in a.columns.keys() & b.columns.keys()
    )


def _lineage(run: _Run) -> Iterator[tuple[str, str | None, float]]:
    """A run and its ancestors by fork: name, digest, and the last round that it has of them."""
    row, until = run.reader.run, math.inf
    yield row.name, row.digest, until
    origin = forked_from(run.reader)
    while origin is not None:
        until = min(until, origin["round"])
        yield origin["run"], origin["digest"], until
        origin = origin.get("forked_from")


def _by_episode(a: _Group, b: _Group, measure: str, scope: str, first: int) -> Difference:
    run_a, run_b = a[0], b[0]
    keys_a, keys_b = (
        run.rows["round"].astype(np.int64) << 32 | run.rows["slot"] for run in (run_a, run_b)
    )
    _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    same_question = run_a.rows["question"][at_a] == run_b.rows["question"][at_b]
    at_a, at_b = at_a[same_question], at_b[same_question]
    rounds = run_a.rows["round"][at_a]
    last = rounds.max(initial=0) if scope == "last" else first
    start = max(first, last)
    at_a, at_b = at_a[rounds >= start], at_b[rounds >= start]
    values_a, values_b = run_a.values(measure)[at_a], run_b.values(measure)[at_b]
    present = ~np.isnan(values_b - values_a)
    authors = run_a.rows["author"][at_a]
    unmatched = int((run_a.rows["round"] >= start).sum()) - len(at_a)
    return _difference(
        clustered((values_b - values_a)[present], authors[present]),
        left_out=int((~present).sum()) + unmatched,
        values_a=values_a[present],
        values_b=values_b[present],
    )


def _by_seed(a: _Group, b: _Group, measure: str, scope: str, first: int) -> Difference:
    means_a, means_b = (_means_by_seed(group, measure, scope, first) for group in (a, b))
    values_a, values_b = (
        np.array([means[seed] for seed in means_a]) for means in (means_a, means_b)
    )
    present = ~np.isnan(values_b - values_a)
    return _difference(
        student((values_b - values_a)[present]),
        left_out=int((~present).sum()),
        values_a=values_a[present],
        values_b=values_b[present],
    )


def _unpaired(a: _Group, b: _Group, measure: str, scope: str, first: int) -> Difference:
    means = [
        np.array(list(_means_by_seed(group, measure, scope, first).values())) for group in (a, b)
    ]
    values_a, values_b = (values[~np.isnan(values)] for values in means)
    return _difference(
        welch(values_a, values_b),
        left_out=sum(map(len, means)) - len(values_a) - len(values_b),
        values_a=values_a,
        values_b=values_b,
    )


def _difference(
    interval: Interval, *, left_out: int, values_a: Values, values_b: Values
) -> Difference:
    """An interval with the means of what was compared."""
    return Difference(
        n=interval.n,
        clusters=interval.clusters,
        difference=interval.difference,
        low=interval.low,
        high=interval.high,
        p=interval.p,
        left_out=left_out,
        means=[number(mean(values_a)), number(mean(values_b))],
    )


def _notes(groups: Sequence[_Group], measures: Sequence[str]) -> Iterator[str]:
    yield from _unfinished(groups)
    for group in groups:
        if len({run.seed for run in group}) < len(group):
            yield f"{group.name}: runs with the same seed are averaged and count as one"
        missing = [measure for measure in measures if measure not in group.measures]
        if missing:
            yield f"{group.name} has no {', '.join(missing)}"
    for group in groups[1:]:
        last = max(_last_shared_round(a, b) for a in groups[0] for b in group)
        if last >= 0:
            yield (
                f"{groups[0].name} and {group.name} share rounds 0 to {last} (one is a fork of the "
                "other, or both are forks of a third run); differences leave these rounds out"
            )
    if len(groups) == 1:
        yield "all runs have the same config except for seed and name: see the spread over seeds"


def _unfinished(groups: Sequence[_Group]) -> Iterator[str]:
    for run in (run for group in groups for run in group):
        row, played = run.reader.run, int(run.rows["round"].max()) + 1
        if row.status != "done":
            yield f"{row.name} is not finished: {len(run.rows):,} episodes are complete"
        elif played < row.rounds:
            yield f"{row.name} was ended by its stop rule after {played} of {row.rounds} rounds"
