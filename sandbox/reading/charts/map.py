"""The map of a society."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sandbox.reading.charts.parts import Rows, Spec, chart, number, tooltip
from sandbox.reading.charts.ranges import (
    Scale,
    gain_colours,
    gain_legend,
    rating_colours,
    rating_legend,
)

MANY_EDGES = 2000  # above this a map shows the edges of one agent at a time
MANY_NODES = 2500  # above this the cells of a map touch


def society(
    nodes: Rows,
    edges: Rows,
    ratings: Mapping[str, Scale],
    gains: Mapping[str, Scale],
    shape: Literal["grid", "graph"] = "grid",
) -> Spec:
    """The map of agents, and who rated whom.

    A script can replace the rows of the data sets `nodes` and `edges` in a drawn map, and colour it
    by another measure: `usermeta.scales` and `usermeta.legends` have the scale and legend of each.

    Args:
        nodes: `agent`, `name`, `label`, `x`, `y`, `value` (None: no score), `href`.
        edges: `x`, `y`, `x2`, `y2`, `rating`; left out where there are more than 2,000.
        ratings: the scale of each measure that `value` can be.
        gains: the scale of each gain that `value` can be. The first measure is drawn.
        shape: `grid`, equal squares that fill the plane, or `graph`, circles.
    """
    scales = {name: rating_colours(scale) for name, scale in ratings.items()}
    scales |= {name: gain_colours(scale) for name, scale in gains.items()}
    legends = {name: rating_legend(scale) for name, scale in ratings.items()}
    legends |= {name: gain_legend(scale) for name, scale in gains.items()}
    first = next(iter(scales), None)
    fill = {} if first is None else {"scale": scales[first], "legend": legends[first]}
    shown = edges if len(edges) <= MANY_EDGES else ()
    agents = _squares(fill) if shape == "grid" else _circles(fill)
    layers = [agents, _links(0)] if shape == "grid" else [_links(14), agents]
    fit = {"type": "fit", "contains": "padding"}
    drawn = chart((), {"layer": layers}, height="container", autosize=fit)
    del drawn["data"]
    drawn["datasets"] = {"nodes": [dict(n) for n in nodes], "edges": [dict(e) for e in shown]}
    drawn["usermeta"] = {"scales": scales, "legends": legends, "agents": layers.index(agents)}
    return drawn


def _place(field: str, padding: int) -> Spec:
    scale = {"zero": False, "nice": False, "padding": padding}
    down = {"reverse": True} if field in ("y", "top") else {}
    return number(field, axis=None, scale={**scale, **down})


def _agents(mark: Spec, fill: Spec, place: Spec) -> Spec:
    value = number("value", **fill)
    hollow = {"condition": {"test": "!isValid(datum.value)", "value": "--line-strong"}}
    return {
        "data": {"name": "nodes"},
        "mark": {**mark, "cursor": "pointer", "invalid": "show"},
        "encoding": {
            **place,
            "fill": value,
            "stroke": {**hollow, "value": "--surface"},
            "href": {"field": "href"},
            "tooltip": tooltip("name", "label", "value"),
        },
    }


def _squares(fill: Spec) -> Spec:
    half = "(isValid(datum.value) ? 0.5 : 0.32)"  # agents without a score are smaller
    ends = {"left": ("x", "-"), "right": ("x", "+"), "top": ("y", "-"), "bottom": ("y", "+")}
    place = {
        "x": _place("left", 0),
        "x2": {"field": "right"},
        "y": _place("top", 0),
        "y2": {"field": "bottom"},
    }
    width = {"expr": f"length(data('nodes')) > {MANY_NODES} ? 0 : 1.5"}
    spec = _agents({"type": "rect", "strokeWidth": width}, fill, place)
    sums = [
        {"calculate": f"datum.{at} {sign} {half}", "as": name} for name, (at, sign) in ends.items()
    ]
    return {**spec, "transform": sums}


def _circles(fill: Spec) -> Spec:
    size = {"expr": "max(12, min(320, 36000 / max(1, length(data('nodes')))))"}
    place = {"x": _place("x", 14), "y": _place("y", 14)}
    return _agents({"type": "circle", "opacity": 1, "size": size, "strokeWidth": 1}, fill, place)


def _links(padding: int) -> Spec:
    place = {
        "x": _place("x", padding),
        "y": _place("y", padding),
        "x2": {"field": "x2"},
        "y2": {"field": "y2"},
    }
    faint = {"expr": "min(1, 0.1 + 16 / max(20, length(data('edges'))))"}
    mark = {"type": "rule", "color": "--ink", "strokeWidth": 1, "opacity": faint, "tooltip": None}
    return {"data": {"name": "edges"}, "mark": mark, "encoding": place}
