"""The map of a society."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from sandbox.reading.charts.groups import group_colours
from sandbox.reading.charts.parts import (
    RAMP,
    Rows,
    Spec,
    by_round,
    category,
    chart,
    number,
    tooltip,
)
from sandbox.reading.charts.ranges import (
    Scale,
    gain_colours,
    gain_legend,
    ink,
    rating_colours,
    rating_ink,
    rating_legend,
)

MANY_NODES = 2500  # above this the cells of a map touch

_SHAPES = {
    "--label-1": "triangle-up",
    "--label-2": "circle",
    "--label-3": "diamond",
    "--label-4": "square",
}


def society(
    ratings: Mapping[str, Scale],
    gains: Mapping[str, Scale],
    categories: Mapping[str, Sequence[str]],
    counts: Sequence[str] = (),
    *,
    shape: Literal["grid", "graph"] = "grid",
    peers: Scale | None = None,
) -> Spec:
    """The map of agents, and of who rated whom, without rows.

    A script sets the rows of the data sets `nodes`, `glyphs`, `edges` and `outlines`, and colours
    the map by any measure: `usermeta.fills` and `usermeta.inks` have the channels of each.
    `with_nodes` fills it for an image.

    Rows of nodes: `agent`, `x`, `y`, `value` (None: none), `label`, `text` (printed in it), `tip`,
    `stale` (the value is an earlier one); of edges: `x`, `y`, `x2`, `y2`, `rating`, `way` (in or
    out); of outlines: `x`, `y`, `kind`. Glyphs are nodes.

    Args:
        ratings: the scale of each measure that is a rating. The first measure is drawn.
        gains: the scale of each measure that is a gain.
        categories: the values of each measure that is a category; `label` has the labels.
        counts: the measures that are counts.
        shape: `grid`, equal squares that fill the plane, or `graph`, circles.
        peers: the scale of the ratings of edges; None: there are none.
    """
    fills = {name: _rating(scale) for name, scale in ratings.items()}
    fills |= {name: _gain(scale) for name, scale in gains.items()}
    fills |= {name: _category(name, values) for name, values in categories.items()}
    fills |= {name: number("value", scale={"range": RAMP}, legend=_COUNTS) for name in counts}
    inks: dict[str, Spec] = {name: {"value": "--ink"} for name in fills}
    inks |= {name: _on_pale(rating_ink("value", scale)) for name, scale in ratings.items()}
    inks |= {name: _on_pale(_gain_ink(scale)) for name, scale in gains.items()}
    inks |= {name: ink("datum.share >= 0.53") for name in counts}
    first = next(iter(fills), None)
    colours = {} if first is None else {"fill": fills[first]}
    labels = _labels(categories.get("label", ()))
    margin = 0 if shape == "grid" else _MARGIN
    links = [] if peers is None else _links(peers, margin)
    if shape == "grid":
        layers = [_squares(colours), _numbers(margin), _glyphs(labels), *_frames(), *links]
    else:
        layers = [*links, _circles(colours, labels), _numbers(margin), *_rings()]
    fit = {"type": "fit", "contains": "padding"}
    drawn = chart((), {"layer": layers}, height="container", autosize=fit)
    del drawn["data"]
    drawn["datasets"] = {name: [] for name in ("nodes", "glyphs", "edges", "outlines")}
    agents = 0 if shape == "grid" else len(links)
    drawn["resolve"] = {"scale": {"stroke": "independent", "color": "independent"}}
    drawn["usermeta"] = {"fills": fills, "inks": inks, "agents": agents}
    return drawn


def with_nodes(spec: Spec, nodes: Rows, measure: str) -> Spec:
    """The map of `society` with agents, coloured by a measure: for an image."""
    fills, inks, at = (spec["usermeta"][name] for name in ("fills", "inks", "agents"))
    layers = [{**layer, "encoding": dict(layer["encoding"])} for layer in spec["layer"]]
    layers[at]["encoding"]["fill"] = fills[measure]
    layers[at + 1]["encoding"]["color"] = inks[measure]
    for layer in layers[at : at + 3]:  # an image has no other legend of the labels
        for channel in ("color", "stroke"):
            if layer["encoding"].get(channel, {}).get("field") == "label":
                legend = {**layer["encoding"][channel], "legend": {"title": None}}
                layer["encoding"][channel] = legend
    rows = [dict(node) for node in nodes]
    few = rows if len(rows) <= MANY_GLYPHS else []
    return {
        **spec,
        "layer": layers,
        "datasets": {**spec["datasets"], "nodes": rows, "glyphs": few},
    }


MANY_GLYPHS = 900  # above this the cells of a map are too small for the label's glyph
MANY_NUMBERS = 400  # above this they are too small for numbers

_COUNTS: Spec = {"type": "gradient", "title": None, "format": ",d", "tickMinStep": 1}
_SIDE = "(min(width, height) / sqrt(max(1, length(data('nodes')))))"  # of a cell, in pixels


def _rating(scale: Scale) -> Spec:
    legend = {"type": "gradient", **rating_legend(scale)}
    return number("value", scale=rating_colours(scale), legend=legend)


def _gain(scale: Scale) -> Spec:
    legend = {"type": "gradient", **gain_legend(scale)}
    return number("value", scale=gain_colours(scale), legend=legend)


def _category(name: str, values: Sequence[str]) -> Spec:
    scale = {"domain": list(values), "range": list(group_colours(values).values())}
    legend = None if name == "label" else {"title": None}  # pages have one for its marks
    return category("value", scale=scale, legend=legend)


def _gain_ink(scale: Scale) -> Spec:
    strong = (scale.high - scale.low) / 2 * 0.7  # the ends of the colours are dark
    return ink(f"abs(datum.value) >= {strong}")


def _on_pale(colour: Spec) -> Spec:
    """The same ink, but that of pale cells where the value is an earlier one."""
    dark = colour["condition"]
    return {**colour, "condition": {**dark, "test": f"!datum.stale && ({dark['test']})"}}


def _labels(labels: Sequence[str]) -> dict[str, Spec]:
    colours = group_colours(labels)
    shapes = [_SHAPES.get(colour, "cross") for colour in colours.values()]
    return {
        "colour": {"domain": list(colours), "range": list(colours.values())},
        "shape": {"domain": list(colours), "range": shapes},
    }


def _place(field: str, padding: float = 0) -> Spec:
    scale = {"zero": False, "nice": False, "padding": padding}
    down = {"reverse": True} if field in ("y", "top", "high", "at_y") else {}
    return number(field, axis=None, scale={**scale, **down})


_STALE: Spec = {"condition": {"test": "datum.stale", "value": 0.35}, "value": 1}


def _box(half: str) -> Spec:
    """The transforms and channels of squares around agents."""
    ends = {"left": ("x", "-"), "right": ("x", "+"), "top": ("y", "-"), "bottom": ("y", "+")}
    return {
        "transform": [
            {"calculate": f"datum.{at} {sign} {half}", "as": name}
            for name, (at, sign) in ends.items()
        ],
        "encoding": {
            "x": _place("left"),
            "x2": {"field": "right"},
            "y": _place("top"),
            "y2": {"field": "bottom"},
        },
    }


def _squares(colours: Spec) -> Spec:
    box = _box("(isValid(datum.value) ? 0.5 : 0.44)")  # agents without a value are smaller
    width = {"expr": f"length(data('nodes')) > {MANY_NODES} ? 0 : 1.5"}
    hollow = {"condition": {"test": "!isValid(datum.value)", "value": "--line-strong"}}
    return {
        "data": {"name": "nodes"},
        "mark": {"type": "rect", "strokeWidth": width, "cursor": "pointer", "invalid": "show"},
        **box,
        "encoding": {
            **box["encoding"],
            **colours,
            "stroke": {**hollow, "value": "--surface"},
            "fillOpacity": _STALE,
            "tooltip": {"field": "tip"},
        },
    }


def _circles(colours: Spec, labels: Mapping[str, Spec]) -> Spec:
    return {
        "data": {"name": "nodes"},
        "mark": {
            "type": "circle",
            "size": _AREA,
            "strokeWidth": 3,
            "cursor": "pointer",
            "opacity": 1,
            "invalid": "show",
        },
        "encoding": {
            "x": _place("x", _MARGIN),
            "y": _place("y", _MARGIN),
            **colours,
            "stroke": category("label", scale=labels["colour"], legend=None)
            if labels["colour"]["domain"]
            else {"value": "--line-strong"},
            "fillOpacity": _STALE,
            "tooltip": {"field": "tip"},
        },
    }


_MARGIN = 28
_AREA: Spec = {"expr": "max(12, min(1500, 0.13 * width * height / max(1, length(data('nodes')))))"}


def _numbers(margin: float) -> Spec:
    size = {"expr": f"max(7, min(16, 0.36 * {_SIDE}))"}
    return {
        "data": {"name": "nodes"},
        "mark": {"type": "text", "fontSize": size, "tooltip": None},
        "encoding": {
            "x": _place("x", margin),
            "y": _place("y", margin),
            "text": {"field": "text"},
            "color": {"value": "--ink"},
            "opacity": {"condition": {"test": "datum.stale", "value": 0.6}, "value": 1},
        },
    }


def _glyphs(labels: Mapping[str, Spec]) -> Spec:
    size = {"expr": f"pow(max(4, min(11, 0.17 * {_SIDE})), 2)"}
    return {
        "data": {"name": "glyphs"},
        "transform": [
            {"calculate": f"datum.{at} - 0.33", "as": name}
            for name, at in (("near", "x"), ("high", "y"))
        ],
        "mark": {
            "type": "point",
            "filled": True,
            "opacity": 1,
            "size": size,
            "strokeWidth": 1.5,
            "tooltip": None,
        },
        "encoding": {
            "x": _place("near"),
            "y": _place("high"),
            "shape": category("label", scale=labels["shape"], legend=None),
            "color": category("label", scale=labels["colour"], legend=None),
            "stroke": {"value": "--surface"},
        },
    }


def _frames() -> list[Spec]:
    """The outlines of the chosen agent and of a cluster, on a grid."""
    box = _box("0.47")
    mark = {"type": "rect", "fillOpacity": 0, "cursor": "pointer"}
    box["encoding"]["tooltip"] = {"field": "tip"}
    return [
        {
            "data": {"name": "outlines"},
            "mark": {**mark, "stroke": colour, "strokeWidth": width},
            **box,
        }
        for colour, width in (("--surface", 6), ("--ink", 3))
    ]


def _rings() -> list[Spec]:
    """The same in a graph."""
    place = {"x": _place("x", _MARGIN), "y": _place("y", _MARGIN), "tooltip": {"field": "tip"}}
    area = {"expr": f"60 + 1.35 * ({_AREA['expr']})"}
    mark = {"type": "point", "filled": False, "size": area, "opacity": 1, "cursor": "pointer"}
    return [
        {
            "data": {"name": "outlines"},
            "encoding": place,
            "mark": {**mark, "stroke": colour, "strokeWidth": width},
        }
        for colour, width in (("--surface", 6), ("--ink", 3))
    ]


def _links(peers: Scale, margin: float) -> list[Spec]:
    """Who rated whom: a line with a halo and an arrow to the author, coloured by the rating."""
    place = {
        "x": _place("x", margin),
        "y": _place("y", margin),
        "x2": {"field": "x2"},
        "y2": {"field": "y2"},
    }
    line = {"data": {"name": "edges"}, "encoding": place}
    mark: Spec = {"type": "rule", "tooltip": None, "opacity": 1}
    dash = {"condition": {"test": "datum.way === 'in'", "value": [7, 5]}, "value": [1, 0]}
    rating = number("rating", scale=rating_colours(peers), legend=None)
    arrow = {
        "data": {"name": "edges"},
        "mark": {
            "type": "point",
            "shape": "triangle-up",
            "filled": True,
            "size": 150,
            "opacity": 1,
            "stroke": "--surface",
            "strokeWidth": 1,
            "tooltip": None,
        },
        "encoding": {
            "x": _place("at_x", margin),
            "y": _place("at_y", margin),
            "angle": number("angle", scale=None),
            "color": {"value": "--ink"},
        },
    }
    return [
        {**line, "mark": {**mark, "color": "--surface", "strokeWidth": 9}},
        {**line, "mark": {**mark, "color": "--ink", "strokeWidth": 6}},
        {
            **line,
            "mark": {**mark, "strokeWidth": 3.5},
            "encoding": {**place, "stroke": rating, "strokeDash": dash},
        },
        arrow,
    ]


def alike(rows: Rows) -> Spec:
    """Whether neighbours are alike, by round, with the band of shuffled scores.

    Args:
        rows: `round`, `assortativity`, `low`, `high`, `p`.
    """
    y = number("low", "assortativity of neighbours", scale={"zero": True})
    band: Spec = {
        "mark": {"type": "area", "color": "--line-strong", "opacity": 0.28, "tooltip": False},
        "encoding": {"y": y, "y2": {"field": "high"}},
    }
    value = number("assortativity", "assortativity of neighbours")
    line: Spec = {"mark": {"type": "line", "color": "--ink"}, "encoding": {"y": value}}
    solid = {"condition": {"test": "datum.p < 0.05", "value": "--ink"}, "value": "--surface"}
    points = {
        "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1, "strokeWidth": 1.5},
        "encoding": {
            "y": value,
            "fill": solid,
            "stroke": {"value": "--ink"},
            "tooltip": tooltip("round", "assortativity:.2f", "low:.2f", "high:.2f", "p:.3f"),
        },
    }
    if len(rows) == 1:
        band["mark"] = {"type": "rule", "color": "--line-strong", "strokeWidth": 6}
    return chart(rows, band, line, points, height=220, encoding={"x": by_round(rows)})
