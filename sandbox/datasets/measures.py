"""What there is to say about the exchanges of an export and the rows of its formats, in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sandbox.datasets.answers import DRAFT, REVISION
from sandbox.datasets.gathering import Gathered
from sandbox.datasets.survey import SCALES, Survey

Values = Mapping[str, float | int | None]


class Measure(NamedTuple):
    """A measure.

    Attributes:
        name: what is measured.
        values: by name, for programs: shares and correlations as fractions, ratings from 1 to 7,
            `n` how many it is of; None where it is not defined.
        text: the same for people.
    """

    name: str
    values: Values
    text: str


def measures(survey: Survey, gathered: Sequence[Gathered]) -> Iterator[Measure]:
    """All measures: of the exchanges, then of the rows of each format."""
    for scale in SCALES:
        yield from _change(survey, scale)
    for one in survey.agreements():
        alpha = "not defined" if one.alpha is None else f"{one.alpha:.2f}"
        values: Values = {"alpha": one.alpha, "n": one.drafts}
        yield Measure(f"alpha of {one.who}, alignment", values, f"{alpha} ({one.drafts:,} drafts)")
    bias = survey.length_bias()
    if bias is not None:
        values = {"r": bias, "n": len(survey.lengths()[0])}
        yield Measure("length and alignment, correlation of answers", values, f"{bias:+.2f}")
    for found in gathered:
        yield from _of_rows(found)


def _change(survey: Survey, scale: str) -> Iterator[Measure]:
    change = survey.change(scale)
    if not change.pairs:
        return
    names = ("better", "equal", "worse")
    shares = {
        name: change.share(which) or 0.0
        for name, which in zip(names, (True, None, False), strict=True)
    }
    means = {f"{stage}_mean": change.mean(stage) or 0.0 for stage in (DRAFT, REVISION)}
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    rise = " to ".join(f"{mean:.2f}" for mean in means.values())
    values = {**shares, **means, "n": change.pairs}
    yield Measure(f"revisions against drafts, {scale}", values, f"{text}; mean {rise}")


def _of_rows(one: Gathered) -> Iterator[Measure]:
    name, figures = one.format.name, one.figures
    if not len(figures["size"]):
        return
    many = bool(figures["size"].max() > 1)
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
        yield Measure(f"{name}: the chosen answer is the longer one", values, f"{longer:.0%}")


def _spread(name: str, column: npt.NDArray[Any], digits: int) -> Iterator[Measure]:
    """Mean, median and the middle nine tenths of what is not missing."""
    known = column[np.isfinite(column)].astype(np.float64)
    if not len(known):
        return
    low, middle, high = np.percentile(known, (5, 50, 95)).tolist()
    values = {"mean": float(known.mean()), "median": middle, "p5": low, "p95": high}
    text = (
        f"mean {values['mean']:,.{digits}f}, median {middle:,.{digits}f}, "
        f"5 to 95 % {low:,.{digits}f} to {high:,.{digits}f}"
    )
    yield Measure(name, {**values, "n": len(known)}, text)
