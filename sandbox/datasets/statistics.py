"""Statistics of an export: of the exchanges, and of the rows of each format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.scale import plain_number
from sandbox.datasets.format_writer import FormatResult
from sandbox.datasets.survey import Change, Survey
from sandbox.reading.agreement import PEERS, Alpha

_ENOUGH = 50  # rated texts from which on a lack of information is told
_CHANCE = 0.1  # alpha below which ratings agree hardly more than by chance

Values = Mapping[str, float | int | None]


class Statistic(NamedTuple):
    """A statistic.

    Attributes:
        name: the name of the statistic.
        values: the machine-readable values by name: shares and correlations as fractions, ratings
            on their scale, `n` the number of observations; None if undefined.
        text: the values as text.
    """

    name: str
    values: Values
    text: str


def statistics(survey: Survey, results: Sequence[FormatResult]) -> Iterator[Statistic]:
    """Yield all statistics: of the exchanges, then of the rows of each format."""
    for change in survey.changes:
        if change.pairs:
            yield _change(change)
    for who, agreement in survey.agreements().items():
        yield _agreement(f"alpha of {who}, {survey.peers_rate}", agreement, survey.peer_stage)
    bias = survey.length_bias()
    if bias is not None and survey.main is not None:
        values = {"r": bias, "n": len(survey.lengths()[0])}
        name = f"length and {survey.main.name}, correlation of answers"
        yield Statistic(name, values, f"{bias:+.2f}")
    for result in results:
        yield from _of_rows(result)


def _agreement(name: str, one: Alpha, stage: str) -> Statistic:
    values: Values = {"alpha": one.alpha, "low": one.low, "high": one.high, "n": one.texts}
    if one.alpha is None:
        return Statistic(name, values, f"not defined ({one.texts:,} {stage}s)")
    interval = f"95 % interval {one.low:.2f} to {one.high:.2f}"
    return Statistic(name, values, f"{one.alpha:.2f} ({interval}; {one.texts:,} {stage}s)")


def doubts(survey: Survey) -> Iterator[str]:
    """Yield a warning for ratings that carry hardly any information: equal ones, or chance."""
    for (who, scale), counts in survey.ratings.items():
        if len(counts) == 1 and counts.total() >= _ENOUGH:
            (value,) = counts
            rated = f"{counts.total():,} ratings of {who} on {scale}"
            yield f"all {rated} are {plain_number(value)}: they carry no information"
    for who, agreement in survey.agreements().items():
        alpha, drafts = agreement.alpha, agreement.texts
        if who == PEERS and alpha is not None and drafts >= _ENOUGH and alpha < _CHANCE:
            yield (
                "peers hardly agree more than by chance (Krippendorff's alpha "
                f"{alpha:.2f}, {drafts:,} {survey.peer_stage}s): their ratings carry little or no "
                "information"
            )


def _change(change: Change) -> Statistic:
    shares = {
        "better": change.better / change.pairs,
        "equal": change.equal / change.pairs,
        "worse": change.worse / change.pairs,
    }
    means = {f"{stage}_mean": change.mean(stage) or 0.0 for stage in (change.first, change.last)}
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    rise = " to ".join(f"{mean:.2f}" for mean in means.values())
    name = f"{change.last}s against {change.first}s, {change.scale.name}"
    return Statistic(name, {**shares, **means, "n": change.pairs}, f"{text}; mean {rise}")


def _of_rows(result: FormatResult) -> Iterator[Statistic]:
    name, figures = result.format.name, result.figures
    if not len(figures["size"]):
        return
    many = bool(figures["size"].max() > 1)
    if many:
        yield from _of_many(result)
    for what, of_many in (("rating", "best rating"), ("margin", "widest margin")):
        yield from _spread(f"{name}: {of_many if many else what}", figures[what], 2)
    for what, column in (
        ("characters of the answer", "length"),
        ("tokens with the prompt", "tokens"),
    ):
        counted = figures[column].astype(np.float64)
        yield from _spread(f"{name}: {what}", np.where(counted < 0, np.nan, counted), 0)
    pairs = figures["other"] >= 0
    if name == "preference" and pairs.any():
        longer = float((figures["length"] > figures["other"])[pairs].mean())
        values = {"share": longer, "n": int(pairs.sum())}
        yield Statistic(f"{name}: the chosen answer is the longer one", values, f"{longer:.0%}")


def _of_many(result: FormatResult) -> Iterator[Statistic]:
    """How many answers a row holds, and in how many rows their ratings differ, by kind."""
    name, figures = result.format.name, result.figures
    yield from _spread(f"{name}: {result.format.counts} of a row", figures["size"], 1)
    differ: dict[str, float | int | None] = {}
    for number, kind in enumerate(result.format.kinds):
        margins = figures["margin"][figures["kind"] == number]
        if len(margins):
            differ[kind] = float((margins > 0).mean())
    text = ", ".join(f"{kind} {share:.0%}" for kind, share in differ.items())
    values = {**differ, "n": len(figures["size"])}
    yield Statistic(f"{name}: rows whose ratings differ", values, text)


def _spread(name: str, column: npt.NDArray[Any], digits: int) -> Iterator[Statistic]:
    """Mean, median, and the 5th and 95th percentile of the finite values."""
    known = column[np.isfinite(column)].astype(np.float64)
    if not len(known):
        return
    low, middle, high = np.percentile(known, (5, 50, 95)).tolist()
    values = {"mean": float(known.mean()), "median": middle, "p5": low, "p95": high}
    text = (
        f"mean {values['mean']:,.{digits}f}, median {middle:,.{digits}f}, "
        f"5 to 95 % {low:,.{digits}f} to {high:,.{digits}f}"
    )
    yield Statistic(name, {**values, "n": len(known)}, text)
