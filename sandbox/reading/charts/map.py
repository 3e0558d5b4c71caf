"""The map of a society."""

from __future__ import annotations

from typing import Literal

from sandbox.reading.charts.parts import DIVERGING, RAMP, Rows, Spec, chart, number, tooltip

MANY_EDGES = 2000  # from here on a map shows the edges of one agent at a time
MANY_NODES = 2500  # from here on the cells of a map touch


LEGENDS: dict[str, Spec] = {
    "rating": {"title": None, "values": [1, 4, 7], "format": "d"},
    "change": {
        "title": None,
        "values": [-3, 0, 3],
        "labelExpr": "format(datum.value, datum.value ? '+d' : 'd')",
    },
}

SCALES: dict[str, Spec] = {
    "rating": {"domain": [1, 7], "range": RAMP, "clamp": True},
    "change": {"domain": [-3, 3], "range": DIVERGING, "clamp": True, "interpolate": "lab"},
}


def society(
    nodes: Rows, edges: Rows, shape: Literal["grid", "graph"] = "grid", diverging: bool = False
) -> Spec:
    """The map of agents, and who rated whom.

    A script can give the data sets `nodes` and `edges` new rows while the map stands;
    `usermeta.scales` holds the colour scales of a rating and of a change.

    Args:
        nodes: `agent`, `name`, `label`, `x`, `y`, `value` (None: no score), `href`.
        edges: `x`, `y`, `x2`, `y2`, `rating`; left out where there are more than 2,000.
        shape: `grid`, equal squares that fill the plane, or `graph`, circles.
        diverging: the value is a change in place of a rating; from 3 points on the colour is full.
    """
    colour = SCALES["change" if diverging else "rating"]
    shown = edges if len(edges) <= MANY_EDGES else ()
    agents = _squares(colour) if shape == "grid" else _circles(colour)
    layers = [agents, _links(0)] if shape == "grid" else [_links(14), agents]
    fit = {"type": "fit", "contains": "padding"}
    drawn = chart((), {"layer": layers}, height="container", autosize=fit)
    del drawn["data"]
    drawn["datasets"] = {"nodes": [dict(n) for n in nodes], "edges": [dict(e) for e in shown]}
    drawn["usermeta"] = {
        "scales": SCALES,
        "legends": LEGENDS,
        "agents": layers.index(agents),
    }
    return drawn


def _place(field: str, padding: int) -> Spec:
    scale = {"zero": False, "nice": False, "padding": padding}
    down = {"reverse": True} if field in ("y", "top") else {}
    return number(field, axis=None, scale={**scale, **down})


def _agents(mark: Spec, colour: Spec, place: Spec) -> Spec:
    legend = LEGENDS["change" if colour is SCALES["change"] else "rating"]
    value = number("value", scale=colour, legend=legend)
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


def _squares(colour: Spec) -> Spec:
    half = "(isValid(datum.value) ? 0.5 : 0.32)"  # who has no score stands apart
    ends = {"left": ("x", "-"), "right": ("x", "+"), "top": ("y", "-"), "bottom": ("y", "+")}
    place = {
        "x": _place("left", 0),
        "x2": {"field": "right"},
        "y": _place("top", 0),
        "y2": {"field": "bottom"},
    }
    width = {"expr": f"length(data('nodes')) > {MANY_NODES} ? 0 : 1.5"}
    spec = _agents({"type": "rect", "strokeWidth": width}, colour, place)
    sums = [
        {"calculate": f"datum.{at} {sign} {half}", "as": name} for name, (at, sign) in ends.items()
    ]
    return {**spec, "transform": sums}


def _circles(colour: Spec) -> Spec:
    size = {"expr": "max(12, min(320, 36000 / max(1, length(data('nodes')))))"}
    place = {"x": _place("x", 14), "y": _place("y", 14)}
    return _agents({"type": "circle", "opacity": 1, "size": size, "strokeWidth": 1}, colour, place)


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
