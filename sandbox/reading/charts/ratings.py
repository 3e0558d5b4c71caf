"""Charts of ratings: distributions, raters against authors, and agreement with the observer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sandbox.reading.charts.parts import (
    FONT_SIZE,
    RAMP,
    Row,
    Rows,
    Spec,
    category,
    chart,
    colour_channel,
    distinct,
    kind_colours,
    number,
    tooltip,
    values,
)
from sandbox.reading.charts.ranges import (
    DARK,
    Bars,
    Scale,
    gain_bars,
    ink,
    mean_format,
    rating_bars,
    rating_colours,
    rating_ink,
)


def distribution(rows: Rows, scale: Scale, colours: Mapping[str, str]) -> Spec:
    """How often each rating was given, as a share of the ratings by the same rater.

    Args:
        rows: `rating`, `who`, `count`.
        scale: the scale of the ratings.
        colours: the colour of each `who`.
    """
    return _shares(rows, "rating", "who", rating_bars(scale), colours)


def margins(rows: Rows, scale: Scale) -> Spec:
    """How often pairs of answers have each rating difference, as a share of each kind of pair.

    Args:
        rows: `margin` (points, positive where it is better), `pairs` (their kind), `count`.
        scale: the scale of the ratings.
    """
    return _shares(rows, "margin", "pairs", gain_bars(scale), kind_colours(distinct(rows, "pairs")))


def _shares(rows: Rows, field: str, kind: str, bars: Bars, colours: Mapping[str, str]) -> Spec:
    counts = _binned(rows, {field: bars}, (kind, field), "count")
    totals: Counter[str] = Counter()
    for (name, _), count in counts.items():
        totals[name] += count
    shares = [
        {kind: name, field: label, "count": count, "share": count / totals[name]}
        for (name, label), count in counts.items()
        if count
    ]
    shown = {name: colour for name, colour in colours.items() if totals[name]}
    legend = {"columns": {"expr": "width < 420 ? 2 : 3"}, "labelLimit": 260}
    encoding = {
        "x": {**_ordinal(field, bars, paddingInner=0.25), "axis": _LINES},
        "xOffset": {"field": kind, "type": "nominal", "scale": {"domain": list(shown)}},
        "y": number("share", axis={"format": "~%", "tickCount": 5}),
        "color": colour_channel(kind, shown, legend=legend),
        "tooltip": tooltip(kind, field, "share:.3~p", "count:,d"),
    }
    mark = {"type": "bar", "cornerRadiusEnd": 1}
    return chart(shares, {"mark": mark, "encoding": encoding}, height=220)


def _binned(
    rows: Rows, bars: Mapping[str, Bars], fields: tuple[str, str], count: str
) -> Counter[tuple[str, str]]:
    """Sums of a count by two fields; numeric fields are binned by their `bars`."""
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        first, second = (
            bars[field].label(values([row], field)[0]) if field in bars else str(row[field])
            for field in fields
        )
        sums[first, second] += int(values([row], count)[0])
    return sums


def _ordinal(field: str, bars: Bars, title: str | None = None, **scale: object) -> Spec:
    """An ordinal channel with a position for each bar."""
    return {
        "field": field,
        "type": "ordinal",
        "title": title or field,
        "scale": {**bars.domain, **scale},
    }


_LINES: Spec = {"labelAngle": 0, "labelExpr": "split(datum.label, ' ')", "labelSeparation": 3}
"""An x axis whose bin labels are split into lines, so that all of them fit."""


def lengths(rows: Rows, scale: Scale, title: str) -> Spec:
    """Lengths of answers by rating: quartiles, median, and the number of answers.

    Args:
        rows: `rating` (a label of `rating_bars`), `low`, `middle`, `high` (quartiles, characters),
            `answers`.
        scale: the scale of the ratings.
        title: of the x axis.
    """
    height = {"scale": {"zero": False, "padding": 12}}
    lines = tooltip("rating", "low:,.2~f", "middle:,.2~f", "high:,.2~f", "answers:,d")
    halves = {
        "mark": {"type": "bar", "color": "--second", "opacity": 0.28, "width": {"band": 0.5}},
        "encoding": {"y": number("low", "characters", **height), "y2": {"field": "high"}},
    }
    medians = {
        "mark": {
            "type": "tick",
            "color": "--second",
            "opacity": 1,
            "thickness": 3,
            "width": {"band": 0.62},
        },
        "encoding": {"y": number("middle", "characters", **height)},
    }
    counts = {
        "mark": {"type": "text", "dy": -9, "fontSize": 11, "fill": "--soft"},
        "encoding": {"y": number("high", "characters", **height), "text": _text("answers", ",d")},
    }
    across = {**_ordinal("rating", rating_bars(scale), title), "axis": _LINES}
    encoding = {"x": across, "tooltip": lines}
    return chart(rows, halves, medians, counts, height=220, encoding=encoding)


def matrix(rows: Rows, scale: Scale) -> Spec:
    """Mean ratings by the starting label of rater and author.

    Args:
        rows: `rater_label`, `author_label`, `mean` (or None), `low`, `high` (or None), `n`.
        scale: the scale of the ratings.
    """
    top = {"labelAngle": 0, "orient": "top", "domain": False}
    form = mean_format(scale)
    encoding = {
        "x": category("author_label", "author", axis=top),
        "y": category("rater_label", "rater"),
        "tooltip": tooltip(
            *("rater_label", "author_label", f"mean:{form}", f"low:{form}", f"high:{form}", "n:,d")
        ),
    }
    colour = number("mean", scale=rating_colours(scale), legend=None)
    ink = rating_ink("mean", scale)
    cell = {"mark": _CELL, "encoding": {"color": colour}}
    mean = {
        "mark": {**_FIGURE, "dy": -8},
        "encoding": {"text": _text("mean", form), "color": ink},
    }
    detail = {
        "mark": {"type": "text", "fontSize": 11, "dy": 9, "tooltip": False},
        "encoding": {"text": {"field": "detail"}, "color": ink},
    }
    shown = [{**row, "detail": _detail(row, scale)} for row in rows]
    height = 58 * max(1, len(distinct(rows, "rater_label")))
    return chart(shown, cell, mean, detail, height=height, encoding=encoding)


def _detail(row: Row, scale: Scale) -> str:
    """The interval of a mean and the number of ratings."""
    n = f"n {row['n']:,}"
    if row.get("low") is None:
        return n
    low, high = (format(row[end], mean_format(scale)) for end in ("low", "high"))
    return f"{low} to {high}, {n}".replace("-", "\u2212")


_CELL: Spec = {"type": "rect", "stroke": "--surface", "strokeWidth": 2}
_FIGURE: Spec = {"type": "text", "fontSize": 13, "fontWeight": 600, "tooltip": False}


def _text(field: str, form: str) -> Spec:
    return {"field": field, "type": "quantitative", "format": form}


def _font_size(bars: Bars, most: int) -> Spec:
    """The font size at which the largest count fits into a cell, of a chart of any width."""
    width = len(bars.labels) * len(f"{most:,}") * 0.62
    return {"expr": f"clamp(width / {width:g}, 6, {FONT_SIZE})"}


def agreement(rows: Rows, scale: Scale) -> Spec:
    """The number of drafts by the peers' mean rating and by the observer's rating.

    Args:
        rows: `peers` (their mean), `observer`, `drafts`.
        scale: the scale of the ratings.
    """
    bars = rating_bars(scale)
    counts = _binned(rows, {"peers": bars, "observer": bars}, ("peers", "observer"), "drafts")
    cells = [
        {"peers": peers, "observer": observer, "drafts": drafts}
        for (peers, observer), drafts in counts.items()
        if drafts
    ]
    most = max(counts.values(), default=1)
    encoding = {
        "x": {**_ordinal("peers", bars, "peers, mean", padding=0.04), "axis": _LINES},
        "y": _ordinal("observer", bars, padding=0.04, reverse=True),
        "tooltip": tooltip("peers", "observer", "drafts:,d"),
    }
    colour = number("drafts", scale={"domain": [0, most], "range": RAMP}, legend=None)
    same = {"condition": {"test": "datum.peers == datum.observer", "value": "--ink"}, "value": None}
    cell = {"mark": {**_CELL, "strokeWidth": 1.5}, "encoding": {"fill": colour, "stroke": same}}
    text = {"text": _text("drafts", ",d"), "color": ink(f"datum.drafts >= {DARK * most}")}
    count = {"mark": {**_FIGURE, "fontSize": _font_size(bars, most)}, "encoding": text}
    return chart(cells, cell, count, height=300, encoding=encoding)
