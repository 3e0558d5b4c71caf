"""Data of the comparison page: runs by group, curves by round, and differences between groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from agents.scale import Measure
from sandbox.reading import charts
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import ExchangePair, furthest_apart
from sandbox.reading.figures import Figure, capitalized, curve_rows
from sandbox.reading.metrics import Spread, complete_rounds, outcomes, settled
from sandbox.reading.run_groups import RunSettings, group_names, grouped, run_settings, same_people
from sandbox.reading.statistics import mean, student
from sandbox.study.compare import FAILED, MISSING, compare
from sandbox.study.results import SPREAD_SCOPES, Comparison, SeedSpread
from storage.copying import forked_from
from storage.database import Address
from storage.reader import Reader

Row = dict[str, Any]

_SHARES = {MISSING: "missing ratings, share", FAILED: "failed, share"}


class ComparedRun(NamedTuple):
    """A run that is compared: its key in URLs, and what it is read from."""

    key: str
    reader: Reader
    settings: RunSettings

    @classmethod
    def of(cls, key: str, reader: Reader) -> ComparedRun:
        """Read the settings of a run; it is named by its key, which is unique."""
        return cls(key, reader, run_settings(reader)._replace(name=key))


class RunGroup(NamedTuple):
    """Compared runs that differ only in their seed.

    Attributes:
        name: see `sandbox.reading.run_groups.group_names`.
        colour: the name of its colour in charts.
        runs: its runs.
    """

    name: str
    colour: str
    runs: Sequence[ComparedRun]

    @property
    def seeds(self) -> list[int]:
        """The different seeds of its runs."""
        return list(dict.fromkeys(run.settings.seed for run in self.runs))


def run_groups(readers: Mapping[str, Reader]) -> list[RunGroup]:
    """Group runs by their config; the group of the first run comes first."""
    runs = [ComparedRun.of(key, reader) for key, reader in readers.items()]
    groups = [[runs[index] for index in group] for group in grouped([r.settings for r in runs])]
    names = group_names([[run.settings for run in group] for group in groups])
    colours = charts.run_colours(names)
    return [RunGroup(name, colours[name], group) for name, group in zip(names, groups, strict=True)]


def suggestions(chosen: Sequence[RunGroup], others: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """The keys of further runs to compare by why they are comparable, the most comparable first."""
    shown = [run for group in chosen for run in group.runs]
    configs, family = {run.settings.key for run in shown}, {_origin(run) for run in shown}
    found: dict[str, list[str]] = {"Forks": [], "Other seeds": [], "Other runs": []}
    for run in others:
        if _origin(run) in family:
            found["Forks"].append(run.key)
        elif run.settings.key in configs:
            found["Other seeds"].append(run.key)
        else:
            found["Other runs"].append(run.key)
    return {title: keys for title, keys in found.items() if keys}


def _origin(run: ComparedRun) -> str:
    """The name of the first ancestor of a fork; of another run its own name."""
    name, origin = str(run.reader.run.name), forked_from(run.reader)
    while origin is not None:
        name, origin = str(origin["run"]), origin.get("forked_from")
    return name


def all_measures(readers: Sequence[Reader]) -> dict[str, Measure]:
    """The measures of all runs by name, beginning with the final measure of the main scale."""
    declarations = [declaration_of(reader) for reader in readers]
    mains = [declared.final(declared.main) for declared in declarations if declared.main]
    every = [one for declared in declarations for one in declared.measures]
    by_name: dict[str, Measure] = {}
    for measure in (*mains, *every):
        if measure is not None:
            by_name.setdefault(measure.name, measure)
    return by_name


# Curves by round


def curves(groups: Sequence[RunGroup], measure: Measure) -> Figure:
    """The means of a measure by round: a curve for each group, and a thin line for each seed."""
    several = [group for group in groups if len(group.seeds) > 1]
    rows = [row for group in groups for row in _curve(group, measure, bool(several))]
    draw = charts.gains if measure.kind == "gain" else charts.versus
    return Figure(
        "versus",
        f"{capitalized(measure.title)} by round",
        _about_curves(groups, several),
        rows,
        partial(draw, scale=measure.scale),
    )


def _about_curves(groups: Sequence[RunGroup], several: Sequence[RunGroup]) -> str:
    needs = "a band over seeds needs at least 2 seeds a group"
    if not several:
        return (
            "Mean over the episodes of a round; the band is its 95 % interval within the run "
            f"(Student's t over episodes): {needs}."
        )
    alone = [group.name for group in groups if group not in several]
    without = f" No band for {', '.join(alone)}: {needs}." if alone else ""
    return (
        "Thick: mean over seeds; band: its 95 % interval (Student's t over the seeds' means of "
        f"the round); thin: a seed.{without}"
    )


def _curve(group: RunGroup, measure: Measure, over_seeds: bool) -> Iterator[Row]:
    """The rows of a group's curve, and of its seeds where it has several."""
    if not over_seeds and len(group.runs) == 1:
        reader = group.runs[0].reader
        counts = settled(outcomes(reader), complete_rounds(reader))
        for row in curve_rows(counts, {group.name: measure}, "group"):
            yield {"group": group.name, "seed": None, **row}
        return
    by_seed = {seed: _means(group, seed, measure.name) for seed in group.seeds}
    for round in sorted({round for means in by_seed.values() for round in means}):
        found = [means[round] for means in by_seed.values() if round in means]
        spread = student(np.array(found))
        ends = {"low": spread.low, "high": spread.high, "n": spread.n}
        row = {"group": group.name, "seed": None, "round": round}
        yield {**row, "mean": spread.difference, **ends}
        for seed, means in by_seed.items():
            if len(by_seed) > 1 and round in means:
                alone = {"low": None, "high": None, "n": 1}
                yield {**row, "seed": seed, "mean": means[round], **alone}


def _means(group: RunGroup, seed: int, measure: str) -> dict[int, float]:
    """The mean of a measure by round; runs with the same seed are averaged."""
    found: dict[int, list[float]] = {}
    for run in group.runs:
        if run.settings.seed == seed:
            counts = settled(outcomes(run.reader), complete_rounds(run.reader))
            for round, measures in counts.items():
                value = Spread.of(measures.get(measure, {})).mean
                if value is not None:
                    found.setdefault(round, []).append(value)
    return {round: mean(np.array(values)) for round, values in found.items()}


# Differences


@lru_cache(maxsize=8)
def _compared(addresses: tuple[Address, ...], marks: tuple[str, ...]) -> Comparison:
    """The comparison of runs, computed once as long as none of them changes."""
    return compare(addresses)


def compared(
    groups: Sequence[RunGroup], addresses: Mapping[str, Address], marks: Mapping[str, str]
) -> Comparison:
    """Compare each group with the first one, with the names that the page gives to groups.

    Args:
        groups: of the runs, in the order that `run_groups` gives.
        addresses: of the runs, by key.
        marks: of the runs, by key; see `sandbox.reading.runs.Overview.mark`.

    Raises:
        InputError: see `sandbox.study.compare.compare`.
    """
    keys = [run.key for group in groups for run in group.runs]
    return _compared(tuple(addresses[key] for key in keys), tuple(marks[key] for key in keys))


def difference_figures(groups: Sequence[RunGroup], found: Comparison, scope: str) -> list[Figure]:
    """The differences of each group from the first one, a figure for each."""
    return [
        _difference_figure(groups[0], groups[comparison.groups[1]], comparison, scope)
        for comparison in found.comparisons
    ]


def _difference_figure(first: RunGroup, other: RunGroup, found: Any, scope: str) -> Figure:
    rows = [
        {
            "measure": measure_title(name),
            "mean of baseline": difference.means[0],
            "mean": difference.means[1],
            **{part: getattr(difference, part) for part in _PARTS},
            "n of baseline": _counts(difference.n)[0],
            "n": _counts(difference.n)[1],
            "authors": difference.clusters,
            "left_out": difference.left_out,
        }
        for name, by_scope in found.measures.items()
        if by_scope is not None
        for difference in [by_scope[scope]]
        if difference.difference is not None
    ]
    start = f" from round {found.first_round} on" if found.first_round else ""
    rounds = "last round" if scope == "last" else f"all rounds{start}"
    return Figure(
        f"differences-{found.groups[1]}",
        f"{other.name} \u2212 {first.name}",
        f"Differences of means, {rounds}, with 95 % intervals that are not corrected; p_holm is "
        "corrected for all measures and groups of the page (Holm).",
        rows,
        partial(charts.differences, colour=other.colour),
    )


_PARTS = ("difference", "low", "high", "p", "p_holm")


def _counts(n: int | list[int]) -> list[int]:
    return n if isinstance(n, list) else [n, n]


def measure_title(measure: str) -> str:
    """The name of a measure in tables."""
    return _SHARES.get(measure, measure.replace("_", " "))


def spread_rows(groups: Sequence[RunGroup], found: Comparison) -> dict[str, list[Row]]:
    """The spread of each measure over the seeds, by group, of the groups with several seeds."""
    return {
        group.name: [
            _spread_row(group.name, name, by_scope)
            for name, by_scope in summary.spread.items()
            if by_scope is not None
        ]
        for group, summary in zip(groups, found.groups, strict=True)
        if len(group.seeds) > 1
    }


def _spread_row(group: str, measure: str, by_scope: Mapping[str, SeedSpread]) -> Row:
    whole, first, last = (by_scope[scope] for scope in SPREAD_SCOPES)
    return {
        "group": group,
        "measure": measure_title(measure),
        "mean": whole.mean,
        "sd": whole.deviation,
        "min": whole.minimum,
        "max": whole.maximum,
        "first round": first.mean,
        "sd of first round": first.deviation,
        "last round": last.mean,
        "sd of last round": last.deviation,
        "seeds": whole.n,
    }


# Exchanges that two runs have in common


class RunPair(NamedTuple):
    """Two runs with the same seed and people, whose exchanges can be paired."""

    first: ComparedRun
    second: ComparedRun


def paired_runs(groups: Sequence[RunGroup]) -> list[RunPair]:
    """The pairs of a run of the first group and one of another, with the same seed and people."""
    return [
        RunPair(first, second)
        for group in groups[1:]
        for second in group.runs
        for first in groups[0].runs
        if first.settings.seed == second.settings.seed and same_people(first.reader, second.reader)
    ]


def largest_differences(pair: RunPair) -> list[ExchangePair]:
    """The exchanges of two paired runs whose main scores differ most."""
    return furthest_apart(pair.first.reader, pair.second.reader)
