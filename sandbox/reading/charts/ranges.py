"""Ranges of rating scales in charts: colours, ticks, axes, and bars of histograms.

Each function takes the scale that is drawn. Gains are positive where a rating moved to the better
end, so they are never reversed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from sandbox.reading.charts.parts import DIVERGING, RAMP, Rows, Spec, values

MOST_BARS = 21  # a histogram of more values has bins
MOST_TICKS = 11  # an axis with more values has ticks only at some
_STEPS = 500  # at least as many different means are told apart on a scale
DARK = 3.5 / 6  # position on the ramp, between its steps 4 and 5, above which text has on-7


class Scale(Protocol):
    """The attributes of a rating scale that charts use.

    Attributes:
        name: the column of its values, where a chart shows several scales.
        title: the displayed name.
        low, high: the range.
        integer: whether ratings are integers.
        better: the better end.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def title(self) -> str: ...  # noqa: D102

    @property
    def low(self) -> float: ...  # noqa: D102

    @property
    def high(self) -> float: ...  # noqa: D102

    @property
    def integer(self) -> bool: ...  # noqa: D102

    @property
    def better(self) -> Literal["high", "low"]: ...  # noqa: D102


# Axes


def span(scale: Scale) -> str:
    """The range for axis titles, with a remark if lower is better."""
    joint = "\u2013" if scale.low >= 0 else " to "
    direction = "" if scale.better == "high" else ", lower is better"
    return f"{_plain(scale.low)}{joint}{_plain(scale.high)}{direction}"


def ticks(scale: Scale) -> Spec:
    """An axis with a tick at each value of a short scale, and at some values of others."""
    if scale.integer and scale.high - scale.low < MOST_TICKS:
        return {"values": list(range(int(scale.low), int(scale.high) + 1)), "format": "d"}
    return {"tickCount": 6, **({"tickMinStep": 1} if scale.integer else {})}


def whole_domain(scale: Scale) -> list[float]:
    """The domain of an axis that shows a whole scale, with a margin at both ends."""
    room = (scale.high - scale.low) * 0.05
    return [scale.low - room, scale.high + room]


def fitted_domain(rows: Rows, scale: Scale, *fields: str) -> list[float]:
    """The domain of an axis that shows the part of a scale that has values."""
    shown = values(rows, *fields) or [scale.low, scale.high]
    room = max((scale.high - scale.low) / 60, (max(shown) - min(shown)) * 0.08)
    return [max(scale.low, min(shown) - room), min(scale.high, max(shown) + room)]


def gain_domain(rows: Rows, scale: Scale, *fields: str) -> list[float]:
    """The domain of an axis of gains: symmetric about 0, fitted to the values."""
    most = scale.high - scale.low
    reach = max((abs(value) for value in values(rows, *fields)), default=most)
    reach = min(most, max(reach * 1.08, most / 60))
    return [-reach, reach]


def mean_format(scale: Scale) -> str:
    """The d3 format of means on a scale: two decimals, or more where the range is narrow."""
    return f",.{max(2, math.ceil(math.log10(_STEPS / (scale.high - scale.low))))}f"


# Colours


def rating_colours(scale: Scale) -> Spec:
    """The colour scale of ratings: the ramp over the range, reversed if lower is better."""
    ramp = RAMP if scale.better == "high" else RAMP[::-1]
    return {"domain": [scale.low, scale.high], "range": ramp, "clamp": True}


def rating_legend(scale: Scale) -> Spec:
    """A legend with the ends and the middle of a range."""
    middle = (scale.low + scale.high) / 2
    return {"title": None, "values": [scale.low, middle, scale.high], "format": ",.12~r"}


def gain_colours(scale: Scale) -> Spec:
    """The colour scale of gains: saturated from half the range on."""
    reach = (scale.high - scale.low) / 2
    return {"domain": [-reach, reach], "range": DIVERGING, "clamp": True, "interpolate": "lab"}


def gain_legend(scale: Scale) -> Spec:
    """A legend with full gain, full loss, and no change."""
    reach = (scale.high - scale.low) / 2
    label = "format(datum.value, datum.value ? '+,.12~r' : 'd')"
    return {"title": None, "values": [-reach, 0, reach], "labelExpr": label}


def rating_ink(field: str, scale: Scale) -> Spec:
    """The colour of text on a cell that is colour_channel by a rating."""
    width = DARK * (scale.high - scale.low)
    if scale.better == "high":
        return ink(f"datum.{field} >= {scale.low + width}")
    return ink(f"datum.{field} <= {scale.high - width}")


def ink(dark: str) -> Spec:
    """The colour of text on a cell of the ramp.

    Args:
        dark: a Vega expression: whether the cell is in the dark part of the ramp.
    """
    return {"condition": {"test": dark, "value": "--on-7"}, "value": "--on-1"}


# Bars of histograms


@dataclass(frozen=True)
class Bars:
    """The bars of a histogram: one for each value, or one for each bin of values.

    Attributes:
        starts: the lowest value of each bar, ascending.
        labels: the axis label of each bar.
    """

    starts: tuple[float, ...]
    labels: tuple[str, ...]

    def label(self, value: float) -> str:
        """The label of the bar that a value belongs to; the nearest bar for values outside."""
        index = bisect_right(self.starts, round(value, 9)) - 1
        return self.labels[max(0, index)]

    @property
    def domain(self) -> Spec:
        """The domain of an ordinal axis."""
        return {"domain": list(self.labels)}


def rating_bars(scale: Scale) -> Bars:
    """The bars of ratings: each value of a short integer scale, otherwise about 10 bins."""
    if scale.integer and scale.high - scale.low < MOST_BARS:
        return _each(int(scale.low), int(scale.high))
    bins = list(_bins(scale.low, scale.high, 10, scale.integer))
    return Bars(tuple(low for low, _ in bins), tuple(_label(low, high) for low, high in bins))


def gain_bars(scale: Scale) -> Bars:
    """The bars of gains: symmetric about 0, which has its own bar."""
    most = scale.high - scale.low
    if scale.integer and 2 * most < MOST_BARS:
        return _each(-int(most), int(most))
    first = 1.0 if scale.integer else 0.0
    bins = list(_bins(first, most, 5, scale.integer))
    below = [(-high, -low) for low, high in reversed(bins)]
    if scale.integer:
        starts = [low for low, _ in below] + [0.0] + [low for low, _ in bins]
    else:  # a value on the border of two bins belongs to the outer one
        inner = [math.nextafter(low, 0.0) for low, _ in below[1:]]
        above = [math.nextafter(0.0, 1.0), *(low for low, _ in bins[1:])]
        starts = [below[0][0], *inner, 0.0, *above]
    labels = [*(_label(*ends) for ends in below), "0", *(_label(*ends) for ends in bins)]
    return Bars(tuple(starts), tuple(labels))


def _each(low: int, high: int) -> Bars:
    numbers = range(low, high + 1)
    return Bars(tuple(float(n) for n in numbers), tuple(_plain(n) for n in numbers))


def _bins(low: float, high: float, count: int, integer: bool) -> Iterator[tuple[float, float]]:
    """The ends of about `count` bins that start at multiples of 1, 2 or 5 times a power of 10."""
    step = _step((high - low) / count)
    multiple = math.floor(low / step + 1e-9)
    start = low
    while start < high - 1e-9 * step:
        multiple += 1
        following = round(multiple * step, 10)
        if following <= start:  # rounding of a narrow range far from 0
            continue
        is_last = following >= high - 1e-9 * step
        yield start, high if is_last else following - integer
        start = following


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least) + 1e-9)
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _label(low: float, high: float) -> str:
    return _plain(low) if low == high else f"{_plain(low)} to {_plain(high)}"


def _plain(number: float) -> str:
    """A number without trailing zeros, with a typographic minus sign."""
    return f"{number or 0:,.12g}".replace("-", "\u2212")
