"""Claims with their estimates, intervals and controls, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sandbox.reading.records import Record
from sandbox.reading.statistics import Interval, student

Holds = Literal["yes", "no", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Claim(Record):
    """A claim, what was measured of it, and the same measure of its control.

    Attributes:
        claim: what should be so; a larger estimate is more of it.
        source: where the claim is made.
        measure: what the estimate is, with its unit.
        estimate: with a 95 % interval.
        control: what the control is; empty where the estimate is a difference from it already.
        of_control: the same measure of the control.
        beyond: estimate minus control, paired; None where the estimate is that already.
        at_equal_length: the estimate at equal length of answers, which decides nothing.
    """

    claim: str
    source: str
    measure: str
    estimate: Interval
    control: str
    of_control: Interval | None = None
    beyond: Interval | None = None
    at_equal_length: Interval | None = None

    @property
    def holds(self) -> Holds:
        """Whether it holds: `yes` where all intervals that have to be above 0 are.

        `no` where one of them is below 0 as a whole; else the figures leave it undecided.
        """
        decisive = [self.estimate] if self.beyond is None else [self.estimate, self.beyond]
        if any(one.high is not None and one.high <= 0 for one in decisive):
            return "no"
        return "yes" if all((one.low or 0) > 0 for one in decisive) else "undecided"

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {**super().as_dict(), "holds": self.holds}


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of one value for each independent seed, with its interval by Student's t."""
    return student(np.asarray(values, dtype=np.float64))


def minus(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The mean difference of values, paired by seed."""
    return over_seeds([one - other for one, other in zip(values, others, strict=True)])


def pooled(parts: Sequence[Interval]) -> Interval:
    """One interval from those of several training seeds, each over the same questions.

    The estimate is the mean. Half the width is the larger of two: the mean of the seeds' halves,
    which is that over questions if seeds err alike on a question (so it is not too narrow); and
    Student's t over seeds. From two seeds Student's t has 12.7 as its factor: it needs three.
    """
    middle = [part.difference for part in parts if part.difference is not None]
    halves = [
        (part.high - part.low) / 2
        for part in parts
        if part.high is not None and part.low is not None
    ]
    seeds = over_seeds(middle)
    if len(halves) < len(parts) or seeds.difference is None:
        return seeds
    half = sum(halves) / len(halves)
    if seeds.high is not None:
        half = max(half, seeds.high - seeds.difference)
    counts = [part.n for part in parts if isinstance(part.n, int)]
    return Interval(
        n=sum(counts),
        clusters=max(counts),
        difference=seeds.difference,
        low=seeds.difference - half,
        high=seeds.difference + half,
    )


def shown(interval: Interval | None) -> str:
    """An interval in a table."""
    if interval is None or interval.difference is None:
        return ""
    if interval.low is None:
        return f"{interval.difference:+.2f}"
    return f"{interval.difference:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"


def number_of(interval: Interval) -> str:
    """How much an interval is over."""
    return f"{interval.n}" if interval.clusters is None else f"{interval.n} of {interval.clusters}"


def table(claims: Sequence[Claim]) -> str:
    """The claims as a Markdown table; columns that are empty in all rows are left out."""
    columns = {
        "claim": [one.claim for one in claims],
        "source": [one.source for one in claims],
        "measure": [one.measure for one in claims],
        "estimate": [shown(one.estimate) for one in claims],
        "at equal length": [shown(one.at_equal_length) for one in claims],
        "control": [one.control for one in claims],
        "of control": [shown(one.of_control) for one in claims],
        "beyond": [shown(one.beyond) for one in claims],
        "n": [number_of(one.estimate) for one in claims],
        "holds": [one.holds for one in claims],
    }
    kept = {head: cells for head, cells in columns.items() if any(cells)}
    return markdown(list(kept), list(zip(*kept.values(), strict=True)))


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
