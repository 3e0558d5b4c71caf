"""Figures by round of the groups of a split, and of the gap between two groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from agents.scale import Scale
from sandbox.reading import charts
from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import (
    MEAN_METHOD,
    Figure,
    Row,
    Series,
    capitalized,
    curve_rows,
    drawn_scales,
    series_of,
)
from sandbox.reading.metrics import Outcomes, Spread, complete_rounds, mean_of, settled
from sandbox.reading.splits import Split, split_outcomes
from sandbox.reading.statistics import difference_of
from sandbox.text import short
from storage.reader import Reader

_NAME = 40
"""Characters of the name of a group in a caption; the CSV has the whole name."""


def split_figures(
    reader: Reader, split: str, groups: Mapping[str, Outcomes] | None = None
) -> list[Figure]:
    """The figures by round of each scale, by group, without empty ones.

    Args:
        reader: the run.
        split: the name of one of its splits, see `sandbox.reading.splits`.
        groups: the result of `split_outcomes`, if it is there already.

    Raises:
        InputError: the run has no such split.
    """
    found_groups = split_outcomes(reader, split) if groups is None else groups
    rounds = complete_rounds(reader)
    groups = {name: settled(counts, rounds) for name, counts in found_groups.items()}
    title = Split(split).title
    declared = declaration_of(reader)
    found = []
    for scale in drawn_scales(declared):
        series = series_of(declared, scale)
        found.append(_by_group(groups, scale, series, split, title))
        found += [_gap(groups, scale, series, split, title)] if len(groups) == 2 else []
    return [figure for figure in found if figure.rows]


def _names(series: Sequence[Series]) -> dict[str, Series]:
    return {("peers" if line.who == "peers" else line.stage): line for line in series}


def _by_group(
    groups: Mapping[str, Outcomes], scale: Scale, series: Sequence[Series], split: str, title: str
) -> Figure:
    named = _names(series)
    measures = {name: line.measure for name, line in named.items()}
    rows = [
        {"round": row["round"], "group": group, **row}
        for group, counts in groups.items()
        for row in curve_rows(counts, measures)
    ]
    stages = [name for name, line in named.items() if line.who != "peers"]
    return Figure(
        f"{scale.name}-by-{split.replace('_', '-')}",
        f"{capitalized(scale.title)} by round and {title}",
        _meaning(rows, stages),
        rows,
        partial(charts.group_curves, scale=scale, stages=stages),
        f"{MEAN_METHOD} Each author has one exchange a round.",
    )


def _meaning(rows: Sequence[Row], stages: Sequence[str]) -> str:
    """What the lines of groups mean, of those that are drawn."""
    series = {row["series"] for row in rows}
    drawn = [stage for stage in stages if stage in series]
    lines = [f"dashed: {' and '.join(drawn[:-1])}"] if len(drawn) > 1 else []
    lines += ["dotted: peers"] if series - {*drawn} else []
    bands = len({row["group"] for row in rows}) == 2
    interval = (
        ", with its 95 % interval" if bands else "; intervals are in the CSV and under the pointer"
    )
    mean = f"Mean of each group\u2019s ratings in a round{interval}."
    return " ".join([mean, *([capitalized(f"{'; '.join(lines)}.")] if lines else [])])


def _gap(
    groups: Mapping[str, Outcomes], scale: Scale, series: Sequence[Series], split: str, title: str
) -> Figure:
    named = _names(series)
    first, second = _higher_first(groups, named)
    return Figure(
        f"{scale.name}-gap-by-{split.replace('_', '-')}",
        f"{capitalized(scale.title)}: gap by {title}",
        f"Mean of {short(first, _NAME)} less mean of {short(second, _NAME)} in a round, with its "
        "95 % interval.",
        list(_gap_rows(groups, named, (first, second))),
        partial(
            charts.gap_curves,
            scale=scale,
            colours={name: line.colour for name, line in named.items()},
        ),
        "The interval is that of a difference of means by Welch\u2019s t, with ratings "
        "of peers clustered by the rated text. The gap closes where it "
        "moves to 0.",
    )


def _higher_first(groups: Mapping[str, Outcomes], named: Mapping[str, Series]) -> tuple[str, str]:
    """The names of two groups, the one with the higher first mean first."""
    one, other = groups
    for round in sorted(set(groups[one]) & set(groups[other])):
        for line in named.values():
            means = [
                Spread.of(groups[name][round].get(line.measure.name, {})).mean
                for name in (one, other)
            ]
            if means[0] is not None and means[1] is not None:
                return (one, other) if means[0] >= means[1] else (other, one)
    return one, other


def _gap_rows(
    groups: Mapping[str, Outcomes], named: Mapping[str, Series], names: tuple[str, str]
) -> Iterator[Row]:
    first, second = (groups[name] for name in names)
    for round in sorted(set(first) & set(second)):
        for name, line in named.items():
            both = difference_of(
                mean_of(first[round], line.measure), mean_of(second[round], line.measure)
            )
            if both.difference is not None and isinstance(both.n, list):
                yield {
                    "round": round,
                    "series": name,
                    "groups": " \u2212 ".join(names),
                    "gap": both.difference,
                    "low": both.low,
                    "high": both.high,
                    "n": both.n[1],
                    "n subtracted": both.n[0],
                }
