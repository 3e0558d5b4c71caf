"""What all charts share: the house style, the colours of both themes, and parts of specs.

A colour in a spec is the name of a variable in `viewer/static/colours.css` (`--second`). The
page's script puts in what the reader's theme says; everyone else calls `themed` before drawing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

Row = Mapping[str, object]
Rows = Sequence[Row]
Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
VERSION = "6.4"  # of Vega-Lite, as vl-convert wants to hear it

STAGES = ["--first", "--second", "--fourth", "--fifth", "--sixth"]
PEERS = "--peers"
OUTCOMES = {"cut": "--first", "empty": "--fifth", "unreadable": "--fourth", "failed": "--bad"}
KINDS = ["--second", "--first", "--peers", "--fourth", "--fifth", "--sixth"]
RAMP = [f"--ramp-{step}" for step in range(1, 8)]
DIVERGING = [f"--diverge-{step}" for step in range(1, 6)]


FEW_ROUNDS = 6  # up to here each has a tick
ROWS = ("values", "datasets")  # what people and models wrote is not read for colours

FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

CONFIG: Spec = {
    "aria": False,  # the figure has a description, and its data a link
    "background": "--surface",
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None, "continuousWidth": 600, "continuousHeight": 260},
    "axis": {
        "domainColor": "--line-strong",
        "tickColor": "--line-strong",
        "gridColor": "--line",
        "labelColor": "--soft",
        "titleColor": "--soft",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
        "labelOverlap": True,
        "labelPadding": 5,
        "tickSize": 4,
        "titlePadding": 8,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "scale": {"invalid": {"fill": {"value": "--surface"}}},  # hollow: no score
    "legend": {
        "orient": "top",
        "symbolOpacity": 1,
        "offset": 6,
        "labelColor": "--ink",
        "titleColor": "--soft",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 160,
        "columnPadding": 16,
        "gradientLength": 140,
        "gradientThickness": 8,
    },
    "line": {"strokeWidth": 2, "strokeCap": "round", "strokeJoin": "round"},
    "rule": {"stroke": "--soft"},
    "text": {"fill": "--ink", "fontSize": 12},
    "title": {
        "anchor": "start",
        "color": "--ink",
        "fontSize": 13,
        "subtitleColor": "--soft",
        "subtitleFontSize": 12,
        "subtitlePadding": 5,
    },
    "range": {"category": KINDS, "ramp": RAMP, "heatmap": RAMP, "diverging": DIVERGING},
}


# Themes

_PADDING = {"left": 16, "top": 4, "right": 8, "bottom": 4}
"""Of a picture: labels are wider in some fonts than in the one that they were measured in."""

_BESIDE = 65  # pixels of a panel's axis, and of what lies between panels


@cache
def palette(dark: bool = False) -> dict[str, str]:
    """Colours of the viewer by name (`--ink`), as `#rrggbb`, from its style sheet."""
    text = (Path(__file__).parents[2] / "viewer" / "static" / "colours.css").read_text("utf-8")
    pairs = re.findall(r"(--[\w-]+):\s*light-dark\((#\w{6}),\s*(#\w{6})\)", text)
    return {name: (light, night)[dark] for name, light, night in pairs}


def themed(spec: Spec, dark: bool = False, width: int = 600) -> Spec:
    """A copy that can be drawn without a page: real colours, and a size where it had its box's.

    Args:
        spec: the chart.
        dark: in the colours of the dark theme.
        width: pixels, of all panels together.
    """
    drawn: Spec = _replaced(spec, palette(dark))
    if "concat" in drawn:
        each = width // drawn["columns"] - _BESIDE
        panels = [{**panel, "width": each} for panel in drawn["concat"]]
        return {**drawn, "concat": panels, "padding": _PADDING}
    sizes = {side: width for side in ("width", "height") if drawn.get(side) == "container"}
    return {**drawn, **sizes, "padding": _PADDING}


def _replaced(value: Any, colours: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return colours.get(value, value)
    if isinstance(value, Mapping):
        return {
            key: part if key in ROWS else _replaced(part, colours) for key, part in value.items()
        }
    if isinstance(value, list):
        return [_replaced(item, colours) for item in value]
    return value


# Parts of specs


def chart(rows: Rows, *layers: Spec, **parts: Any) -> Spec:
    """A spec of one view, or of layers over the same rows."""
    body = layers[0] if len(layers) == 1 else {"layer": list(layers)}
    return {
        "$schema": SCHEMA,
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": [dict(row) for row in rows]},
        **body,
        **parts,
        "config": CONFIG,
    }


def panels(charts: Mapping[str, Spec]) -> Spec:
    """Charts beside each other, two in a row, with one legend and one scale of y.

    Args:
        charts: of one view each, by their titles.
    """
    shared = ("$schema", "autosize", "config", "width")
    return {
        "$schema": SCHEMA,
        "columns": min(2, len(charts)),
        "concat": [
            {**{key: part for key, part in spec.items() if key not in shared}, "title": title}
            for title, spec in charts.items()
        ],
        "resolve": {"scale": {"y": "shared"}},
        "config": CONFIG,
    }


def headed(spec: Spec, title: str, subtitle: Sequence[str]) -> Spec:
    """A chart with a title and lines below it, for a picture that stands by itself."""
    return {**spec, "title": {"text": title, "subtitle": list(subtitle), "offset": 12}}


def stage_colours(stages: Sequence[str]) -> dict[str, str]:
    """A colour for each stage of an episode, by its place."""
    return {stage: STAGES[i % len(STAGES)] for i, stage in enumerate(stages)}


def kind_colours(kinds: Sequence[str]) -> dict[str, str]:
    """A colour for each of some kinds that have no order."""
    return {kind: KINDS[i % len(KINDS)] for i, kind in enumerate(kinds)}


def number(field: str, title: str | None = None, **more: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title or field, **more}


def category(field: str, title: str | None = None, **more: Any) -> Spec:
    """A nominal channel."""
    return {"field": field, "type": "nominal", "title": title, **more}


def by_round(rows: Rows) -> Spec:
    """Rounds along the x axis: whole numbers, not from zero."""
    scale = {"nice": False, "zero": False, "padding": 14}
    return number("round", axis=whole(rows), scale=scale)


def whole(rows: Rows) -> Spec:
    """Ticks of rounds: each of a few, of many some."""
    rounds = sorted(set(values(rows, "round")))
    few: Spec = {"values": rounds} if len(rounds) <= FEW_ROUNDS else {"tickMinStep": 1}
    return {"format": "d", **few}


def coloured(field: str, colours: Mapping[str, str], **more: Any) -> Spec:
    """A colour for each value of a field."""
    scale = {"domain": list(colours), "range": list(colours.values())}
    return category(field, scale=scale, **more)


def tooltip(*fields: str) -> list[Spec]:
    """Lines of a tooltip: `field`, or `field:format` for a number."""
    split = (field.partition(":") for field in fields)
    return [
        {"field": name, "title": name, **({"type": "quantitative", "format": form} if form else {})}
        for name, _, form in split
    ]


def values(rows: Rows, *fields: str) -> list[float]:
    """The numbers of these fields; what is missing is left out."""
    found = (row.get(field) for row in rows for field in fields)
    return [float(value) for value in found if isinstance(value, (int, float))]


def seen(rows: Rows, field: str) -> list[str]:
    """The distinct values of a field, in their order."""
    return list(dict.fromkeys(str(row[field]) for row in rows))


def titled(rows: Rows) -> list[dict[str, object]]:
    """With `who`: a name that is one agent's alone."""
    return [{**row, "who": f"{row['name']} #{row['agent']}"} for row in rows]


DASHED: Spec = {"color": "--first", "strokeDash": [5, 3]}


def upright(at: float, **mark: Any) -> Spec:
    """A line from top to bottom at a value of x."""
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", **mark},
        "encoding": {"x": {"datum": at}, "y": {"value": 0}, "y2": {"value": "height"}},
    }


ZERO = upright(0, color="--line-strong")


def listed(field: str) -> Spec:
    """The rows in their order, one below the other."""
    axis = {"grid": True, "domain": False, "labelColor": "--ink"}
    return {"y": category(field, sort=None, axis=axis)}
