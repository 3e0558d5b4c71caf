"""Shared parts of charts: style, colours of both themes, and parts of specs.

A colour in a spec is the name of a variable in `viewer/static/colours.css` (`--second`). In pages
a script replaces it by the colour of the current theme; elsewhere `themed` does.
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
VERSION = "6.4"  # of Vega-Lite, in the format of vl-convert

STAGES = ["--first", "--second", "--fourth", "--fifth", "--sixth"]
PEERS = "--peers"
OUTCOMES = {
    status: f"--outcome-{place}"
    for place, status in enumerate(("cut", "empty", "unreadable", "failed"), 1)
}
KINDS = ["--second", "--first", "--peers", "--fourth", "--fifth", "--sixth"]
RAMP = [f"--ramp-{step}" for step in range(1, 8)]
DIVERGING = [f"--diverge-{step}" for step in range(1, 6)]


FEW_ROUNDS = 6  # up to this number each has a tick
ROWS = (
    "values",
    "datasets",
)  # keys whose values may contain untrusted text; colours are not replaced there

FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
IMAGE_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""Of image files: the first is part of vl-convert, the others have letters of the same widths."""

FONT_SIZE = 12  # pixels, of axes and legends

CONFIG: Spec = {
    "aria": False,  # pages have a description and a link to the data
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
        "labelFontSize": FONT_SIZE,
        "titleFontSize": FONT_SIZE,
        "titleFontWeight": "normal",
        "labelLimit": 220,
        "labelOverlap": True,
        "labelSeparation": 3,
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
        "labelFontSize": FONT_SIZE,
        "titleFontSize": FONT_SIZE,
        "titleFontWeight": "normal",
        "labelLimit": 160,
        "columnPadding": 16,
        "gradientLength": 140,
        "gradientThickness": 8,
        "layout": {"top": {"direction": "vertical", "margin": 6}},  # several: one below another
    },
    "line": {"strokeWidth": 2, "strokeCap": "round", "strokeJoin": "round"},
    "rule": {"stroke": "--soft"},
    "text": {"fill": "--ink", "fontSize": FONT_SIZE},
    "title": {
        "anchor": "start",
        "color": "--ink",
        "fontSize": 13,
        "subtitleColor": "--soft",
        "subtitleFontSize": FONT_SIZE,
        "subtitlePadding": 5,
    },
    "range": {"category": KINDS, "ramp": RAMP, "heatmap": RAMP, "diverging": DIVERGING},
}


# Themes

_PADDING = {"left": 16, "top": 4, "right": 8, "bottom": 4}
"""Of an image: labels can be wider than measured, in other fonts."""

_PANEL_MARGIN = 65  # pixels: the axis of a panel, and the gap between panels


@cache
def palette(dark: bool = False) -> dict[str, str]:
    """Colours of the viewer by name (`--ink`), as `#rrggbb`, from its style sheet."""
    text = (Path(__file__).parents[2] / "viewer" / "static" / "colours.css").read_text("utf-8")
    pairs = re.findall(r"(--[\w-]+):\s*light-dark\((#\w{6}),\s*(#\w{6})\)", text)
    return {name: (light, night)[dark] for name, light, night in pairs}


def themed(spec: Spec, dark: bool = False, width: int = 600) -> Spec:
    """A copy of a spec that can be drawn outside a page, with colours, a font and a fixed size.

    Args:
        spec: the chart.
        dark: in the colours of the dark theme.
        width: the total width in pixels.
    """
    drawn: Spec = _replaced(spec, palette(dark))
    drawn["config"] = {**drawn["config"], "font": IMAGE_FONT}
    if "concat" in drawn:
        each = width // drawn["columns"] - _PANEL_MARGIN
        panels = [{**panel, "width": each} for panel in drawn["concat"]]
        return {**drawn, "concat": panels, "padding": _PADDING}
    sizes = {side: width for side in ("width", "height") if drawn.get(side) == "container"}
    return {**drawn, **sizes, "padding": _PADDING}


def with_font_size(spec: Spec) -> Spec:
    """A copy of a spec whose texts all have `FONT_SIZE`."""
    sized: Spec = _with_font_size(spec)
    return sized


def _with_font_size(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_font_size(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: part
        if key in ROWS
        else FONT_SIZE
        if key == "fontSize" and isinstance(part, int)
        else _with_font_size(part)
        for key, part in value.items()
    }


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
    """Build the spec of a single view, or of layers that share rows."""
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
    """Arrange charts in rows of two, with a shared legend and y scale.

    Args:
        charts: single-view specs by title.
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


def with_title(spec: Spec, title: str, subtitle: Sequence[str]) -> Spec:
    """Add a title and subtitle lines to a chart, for a standalone image."""
    return {**spec, "title": {"text": title, "subtitle": list(subtitle), "offset": 12}}


def stage_colours(stages: Sequence[str]) -> dict[str, str]:
    """A colour for each stage of an episode, by position."""
    return {stage: STAGES[i % len(STAGES)] for i, stage in enumerate(stages)}


def kind_colours(kinds: Sequence[str]) -> dict[str, str]:
    """A colour for each of several unordered kinds."""
    return {kind: KINDS[i % len(KINDS)] for i, kind in enumerate(kinds)}


def number(field: str, title: str | None = None, **more: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title or field, **more}


def category(field: str, title: str | None = None, **more: Any) -> Spec:
    """A nominal channel."""
    return {"field": field, "type": "nominal", "title": title, **more}


def by_round(rows: Rows) -> Spec:
    """The x channel of rounds: integers, not starting at zero."""
    scale = {"nice": False, "zero": False, "padding": 14}
    return number("round", axis=round_ticks(rows), scale=scale)


MANY_ROUNDS = 40  # above this a curve has no points


def line_by_round(rows: Rows, **mark: Any) -> Spec:
    """The mark of a curve by round, with points where there are few rounds."""
    few = len(set(values(rows, "round"))) <= MANY_ROUNDS
    return {"type": "line", **mark, "point": {"size": 36, "filled": True} if few else False}


def round_ticks(rows: Rows) -> Spec:
    """The axis of rounds: a tick for each round if there are few."""
    rounds = sorted(set(values(rows, "round")))
    few: Spec = {"values": rounds} if len(rounds) <= FEW_ROUNDS else {"tickMinStep": 1}
    return {"format": "d", **few}


def colour_channel(field: str, colours: Mapping[str, str], **more: Any) -> Spec:
    """The colour channel of a field; its legend has as many columns as the chart is wide."""
    scale = {"domain": list(colours), "range": list(colours.values())}
    legend = more.pop("legend", {})
    if legend is not None:
        legend = {**fitted_legend(list(colours)), **legend}
    return category(field, scale=scale, legend=legend, **more)


_LETTER = 7  # pixels, of a label in a legend
_SYMBOL = 38  # pixels: a symbol, and the space to the next column
_LEGEND_LIMIT = 300  # pixels of a label: longer ones end in an ellipsis


def fitted_legend(names: Sequence[str]) -> Spec:
    """A legend in columns that fit the width of the chart, with long names cut.

    Args:
        names: its entries.
    """
    limit = f"min({_LEGEND_LIMIT}, max(40, width - {_SYMBOL}))"
    entry = f"(min({_LETTER * max(map(len, names), default=1)}, {limit}) + {_SYMBOL})"
    columns = f"clamp(floor(width / {entry}), 1, {max(1, len(names))})"
    return {"columns": {"expr": columns}, "labelLimit": {"expr": limit}}


def tooltip(*fields: str) -> list[Spec]:
    """Tooltip channels: `field`, or `field:format` for a number."""
    split = (field.partition(":") for field in fields)
    return [
        {"field": name, "title": name, **({"type": "quantitative", "format": form} if form else {})}
        for name, _, form in split
    ]


def values(rows: Rows, *fields: str) -> list[float]:
    """The numbers in these fields, without missing values."""
    cells = (row.get(field) for row in rows for field in fields)
    return [float(value) for value in cells if isinstance(value, (int, float))]


def distinct(rows: Rows, field: str) -> list[str]:
    """The distinct values of a field, in the order of their first occurrence."""
    return list(dict.fromkeys(str(row[field]) for row in rows))


def with_agent_label(rows: Rows) -> list[dict[str, object]]:
    """Add a column `who` with a unique name of the agent."""
    return [{**row, "who": f"{row['name']} #{row['agent']}"} for row in rows]


DASHED: Spec = {"color": "--first", "strokeDash": [5, 3]}


def vertical_line(at: float, **mark: Any) -> Spec:
    """A vertical line at a value of x."""
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", **mark},
        "encoding": {"x": {"datum": at}, "y": {"value": 0}, "y2": {"value": "height"}},
    }


ZERO = vertical_line(0, color="--line-strong")


def row_axis(field: str) -> Spec:
    """The y channel of a list: rows from top to bottom, in the given order."""
    axis = {"grid": True, "domain": False, "labelColor": "--ink"}
    return {"y": category(field, sort=None, axis=axis)}
