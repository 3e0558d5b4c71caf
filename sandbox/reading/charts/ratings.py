"""Charts of ratings: how they are distributed, and who gave them to whom."""

from __future__ import annotations

from sandbox.reading.charts.parts import (
    KINDS,
    RAMP,
    Rows,
    Spec,
    category,
    chart,
    coloured,
    number,
    seen,
    tooltip,
    values,
)


def distribution(rows: Rows) -> Spec:
    """How often each rating was given, by who gave it.

    Args:
        rows: `rating` (1-7), `who`, `count`.
    """
    kinds = {who: _COLOURS.get(who, KINDS[i % 6]) for i, who in enumerate(seen(rows, "who"))}
    scale = {"domain": [1, 2, 3, 4, 5, 6, 7], "paddingInner": 0.25}
    encoding = {
        "x": {"field": "rating", "type": "ordinal", "scale": scale, "axis": {"labelAngle": 0}},
        "xOffset": {"field": "who", "type": "nominal"},
        "y": number("count", axis={"tickMinStep": 1, "format": "~s"}),
        "color": coloured("who", kinds),
        "tooltip": tooltip("who", "rating", "count:,d"),
    }
    mark = {"type": "bar", "cornerRadiusEnd": 1}
    return chart(rows, {"mark": mark, "encoding": encoding}, height=220)


_COLOURS = {
    "peers, draft": "--peers",
    "observer, draft": "--draft",
    "observer, revision": "--revision",
}


def matrix(rows: Rows) -> Spec:
    """Raters against authors by the demographic they started with: mean ratings.

    Args:
        rows: `rater_label`, `author_label`, `mean` (1-7 or None), `n`.
    """
    colour = number("mean", scale={"domain": [1, 7], "range": RAMP}, legend=None)
    top = {"labelAngle": 0, "orient": "top", "domain": False}
    encoding = {
        "x": category("author_label", "author", axis=top),
        "y": category("rater_label", "rater"),
        "tooltip": tooltip("rater_label", "author_label", "mean:.2f", "n:,d"),
    }
    cell = {"mark": _CELL, "encoding": {"color": colour}}
    mean = {"mark": _FIGURE, "encoding": {"text": _text("mean", ".2f"), "color": _on("mean", 4.2)}}
    return chart(
        rows, cell, mean, height=46 * max(1, len(seen(rows, "rater_label"))), encoding=encoding
    )


_CELL: Spec = {"type": "rect", "stroke": "--surface", "strokeWidth": 2}
_FIGURE: Spec = {"type": "text", "fontSize": 13, "fontWeight": 600, "tooltip": False}


def _text(field: str, form: str) -> Spec:
    return {"field": field, "type": "quantitative", "format": form}


def _on(field: str, bright: float) -> Spec:
    """Ink on a coloured cell: another one from `bright` on."""
    test = f"datum.{field} >= {bright}"
    return {"condition": {"test": test, "value": "--on-7"}, "value": "--on-1"}


def agreement(rows: Rows) -> Spec:
    """Peers against the observer over the same drafts: how many drafts got which pair.

    Args:
        rows: `peers` (their mean, rounded, 1-7), `observer` (1-7), `drafts`.
    """
    most = max(values(rows, "drafts"), default=1.0)
    scale = {"domain": [1, 2, 3, 4, 5, 6, 7], "padding": 0.04}
    encoding = {
        "x": {"field": "peers", "type": "ordinal", "scale": scale, "axis": {"labelAngle": 0}},
        "y": {
            "field": "observer",
            "type": "ordinal",
            "scale": {**scale, "domain": [7, 6, 5, 4, 3, 2, 1]},
        },
        "tooltip": tooltip("peers", "observer", "drafts:,d"),
    }
    colour = number("drafts", scale={"domain": [0, most], "range": RAMP}, legend=None)
    same = {"condition": {"test": "datum.peers == datum.observer", "value": "--ink"}, "value": None}
    cell = {"mark": {**_CELL, "strokeWidth": 1.5}, "encoding": {"fill": colour, "stroke": same}}
    ink = _on("drafts", most * 0.53)
    some = [{"filter": "datum.drafts > 0"}]
    count = {
        "transform": some,
        "mark": _FIGURE,
        "encoding": {"text": _text("drafts", ".2~s"), "color": ink},
    }
    return chart(rows, cell, count, height=300, encoding=encoding)
