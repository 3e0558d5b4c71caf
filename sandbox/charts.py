"""Charts as Vega-Lite specs: plain dicts over plain rows, drawn by the viewer and by reports.

Call `themed` before drawing one without a page; `VERSION` is the Vega-Lite that they are for.
Every function takes rows that may be empty, and gives a spec without a value that nobody measured:
None stays a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sandbox.chart_parts import (
    DASHED,
    DIVERGING,
    KINDS,
    OUTCOMES,
    RAMP,
    SERIES,
    VERSION,
    ZERO,
    Rows,
    Spec,
    by_round,
    category,
    chart,
    coloured,
    fitted,
    number,
    palette,
    seen,
    themed,
    titled,
    tooltip,
    upright,
    values,
)

__all__ = [
    "VERSION",
    "agreement",
    "bias",
    "curves",
    "differences",
    "distribution",
    "history",
    "influence",
    "matrix",
    "missing",
    "palette",
    "plane",
    "recall",
    "society",
    "themed",
    "versus",
]

SHOWN = 15  # of a long list: so many from the top, and where it has one from the bottom
MANY_EDGES = 2000  # from here on a map shows the edges of one agent at a time
MANY_NODES = 2500  # from here on the cells of a map touch


# By round


def curves(rows: Rows) -> Spec:
    """One scale by round: means with their 95 % interval, of drafts, revisions and peers.

    Args:
        rows: `round`, `series` (draft, revision or peers), `mean`, `low`, `high` (1-7), `n`.
    """
    known = {name: colour for name, colour in SERIES.items() if name in seen(rows, "series")}
    return _bands(rows, "series", known or SERIES)


def versus(rows: Rows) -> Spec:
    """The same curve of several runs.

    Args:
        rows: `run`, `round`, `mean`, `low`, `high` (1-7).
    """
    runs = seen(rows, "run")
    return _bands(rows, "run", {run: KINDS[i % len(KINDS)] for i, run in enumerate(runs)})


def _bands(rows: Rows, field: str, colours: Mapping[str, str]) -> Spec:
    scale = {"domain": fitted(rows, "low", "mean", "high"), "nice": False, "zero": False}
    colour = coloured(field, colours)
    once = len(values(rows, "round")) == len(colours)
    band = {"type": "rule", "opacity": 0.5} if once else {"type": "area", "opacity": 0.14}
    ends = {"y": number("low", "mean, 1\u20137", scale=scale), "y2": {"field": "high"}}
    spread = {"mark": {**band, "tooltip": False}, "encoding": {**ends, "color": colour}}
    means = {
        "mark": {"type": "line", "point": {"size": 42, "filled": True}},
        "encoding": {
            "y": number("mean", "mean, 1\u20137", scale=scale),
            "color": colour,
            "shape": category(field, scale={"domain": list(colours)}),
            "tooltip": tooltip(field, "round", "mean:.2f", "low:.2f", "high:.2f", "n"),
        },
    }
    return chart(rows, spread, means, height=240, encoding={"x": by_round()})


def plane(rows: Rows) -> Spec:
    """Alignment against engagement: the path of a run through its rounds, and its Pareto front.

    Args:
        rows: `round`, `alignment`, `engagement` (1-7), `front`: no other round beats both.
    """
    front = {"filter": "datum.front"}
    few = "datum.front || datum.round <= 1" if len(rows) > 12 else "true"
    path: Spec = {
        "mark": {"type": "line", "color": "--line-strong", "strokeWidth": 1.2},
        "encoding": {"order": {"field": "round"}},
    }
    step = {
        "transform": [front],
        "mark": {
            "type": "line",
            "interpolate": "step-before",
            "color": "--draft",
            "strokeDash": [5, 3],
        },
        "encoding": {"order": {"field": "alignment"}},
    }
    ring = {
        "transform": [front],
        "mark": {"type": "point", "size": 190, "color": "--draft", "strokeWidth": 2},
    }
    label = {
        "transform": [{"filter": few}],
        "mark": {"type": "text", "dx": 11, "dy": -9, "align": "left", "color": "--soft"},
        "encoding": {"text": {"field": "round"}},
    }
    return chart(rows, path, step, ring, _rounds(), label, height=320, encoding=_axes(rows))


def _axes(rows: Rows) -> Spec:
    def axis(field: str) -> Spec:
        scale = {"domain": fitted(rows, field), "nice": False, "zero": False, "padding": 16}
        return number(field, f"{field}, mean", scale=scale, axis={"grid": True, "tickCount": 6})

    return {"x": axis("alignment"), "y": axis("engagement")}


def _rounds() -> Spec:
    colour = number("round", scale={"range": RAMP}, legend={"format": "d", "tickMinStep": 1})
    lines = tooltip("round", "alignment:.2f", "engagement:.2f", "front")
    point = {"type": "circle", "size": 80, "opacity": 1, "stroke": "--soft", "strokeWidth": 0.6}
    return {"mark": point, "encoding": {"color": colour, "tooltip": lines}}


def missing(rows: Rows) -> Spec:
    """Ratings that could not be read, by round and by what became of the reply.

    Args:
        rows: `round`, `outcome` (cut, empty, unreadable or failed), `count`.
    """
    encoding = {
        "x": {"field": "round", "type": "ordinal", "axis": {"labelAngle": 0}},
        "y": number("count", "ratings missing", axis={"tickMinStep": 1, "format": "d"}),
        "color": coloured("outcome", OUTCOMES),
        "tooltip": tooltip("round", "outcome", "count"),
    }
    mark = {"type": "bar", "stroke": "--surface", "strokeWidth": 1, "width": {"band": 0.7}}
    return chart(rows, {"mark": mark, "encoding": encoding}, height=200)


def history(rows: Rows) -> Spec:
    """One agent's own scores: from draft to revision, by round.

    Args:
        rows: `round`, `stage` (draft or revision), `score` (1-7).
    """
    scale, axis = {"domain": [0.7, 7.3], "nice": False}, {"values": [1, 2, 3, 4, 5, 6, 7]}
    span = {
        "mark": {"type": "rule", "strokeWidth": 3, "color": "--line-strong", "opacity": 0.6},
        "encoding": {
            "y": number("score", "score, 1\u20137", aggregate="min", scale=scale, axis=axis),
            "y2": {"field": "score", "aggregate": "max"},
        },
    }
    colour = coloured("stage", {stage: SERIES[stage] for stage in ("draft", "revision")})
    ends = {
        "mark": {"type": "point", "size": 80, "filled": True, "opacity": 1},
        "encoding": {
            "y": number("score", "score, 1\u20137", scale=scale, axis=axis),
            "color": colour,
            "shape": category("stage", scale={"domain": ["draft", "revision"]}),
            "tooltip": tooltip("round", "stage", "score"),
        },
    }
    return chart(rows, span, ends, height=200, encoding={"x": by_round()})


# Ratings


def distribution(rows: Rows) -> Spec:
    """How often each rating was given, by who gave it.

    Args:
        rows: `rating` (1-7), `who`, `count`.
    """
    kinds = {who: SERIES.get(who, KINDS[i % 6]) for i, who in enumerate(seen(rows, "who"))}
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
        "encoding": {"text": _text("drafts", "~s"), "color": ink},
    }
    return chart(rows, cell, count, height=300, encoding=encoding)


# Agents


def bias(rows: Rows) -> Spec:
    """How much higher an agent rates than others rate the same drafts, with its interval.

    Args:
        rows: `agent`, `name`, `label`, `deviation`, `low`, `high` (points of the scale), `n`;
            of many agents the 15 highest and the 15 lowest are shown.
    """
    known = [row for row in rows if row.get("deviation") is not None]
    ordered = sorted(known, key=lambda row: -values([row], "deviation")[0])
    some = ordered if len(ordered) <= 2 * SHOWN else ordered[:SHOWN] + ordered[-SHOWN:]
    labels = {label: KINDS[i % 6] for i, label in enumerate(sorted(seen(rows, "label")))}
    colour = coloured("label", labels)
    x = "points above what others give"
    spread = {
        "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.65},
        "encoding": {"x": number("low", x), "x2": {"field": "high"}, "color": colour},
    }
    lines = tooltip("who", "label", "deviation:+.2f", "low:+.2f", "high:+.2f", "n:,d")
    dot = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "encoding": {
            "x": number("deviation", x),
            "color": colour,
            "shape": category("label", scale={"domain": list(labels)}),
            "tooltip": lines,
        },
    }
    return chart(
        titled(some), ZERO, spread, dot, height=19 * max(1, len(some)), encoding=_listed("who")
    )


def _listed(field: str) -> Spec:
    """The rows in their order, one below the other."""
    axis = {"grid": True, "domain": False, "labelColor": "--ink"}
    return {"y": category(field, sort=None, axis=axis)}


def influence(rows: Rows) -> Spec:
    """The raters whose advice is taken most; the first 15 rows.

    Args:
        rows: `agent`, `name`, `label`, `centrality` (0-1), `taken` (pieces of advice).
    """
    bar = {
        "mark": {"type": "bar", "height": {"band": 0.68}, "cornerRadiusEnd": 1},
        "encoding": {
            "color": category("label", scale={"range": KINDS}),
            "tooltip": tooltip("who", "label", "centrality:.3f", "taken:,d"),
        },
    }
    taken = {
        "mark": {"type": "text", "align": "left", "dx": 5, "color": "--soft"},
        "encoding": {"text": _text("taken", ",d")},
    }
    x = {"x": number("centrality", scale={"padding": 24, "nice": False})}
    encoding, first = _listed("who") | x, titled(rows[:SHOWN])
    return chart(first, bar, taken, height=22 * max(1, len(first)), encoding=encoding)


# Comparing, and remembering


def differences(rows: Rows) -> Spec:
    """Differences between two runs with their intervals; what crosses the line may be nothing.

    Args:
        rows: `measure`, `difference`, `low`, `high`.
    """
    clear = "datum.low > 0 || datum.high < 0"
    colour = {"condition": {"test": clear, "value": "--revision"}, "value": "--soft"}
    spread = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"x": number("low", "difference"), "x2": {"field": "high"}, "color": colour},
    }
    lines = tooltip("measure", "difference:+.3f", "low:+.3f", "high:+.3f")
    dot = {
        "mark": {"type": "point", "shape": "square", "filled": True, "size": 70, "opacity": 1},
        "encoding": {"x": number("difference"), "color": colour, "tooltip": lines},
    }
    return chart(
        rows, ZERO, spread, dot, height=30 * max(1, len(rows)), encoding=_listed("measure")
    )


def recall(rows: Rows, threshold: float) -> Spec:
    """Memories by their distance from the question: those below the threshold can be recalled.

    Args:
        rows: `rank`, `question`, `distance` (cosine, 0-2), `chosen`.
        threshold: the distance that divides them.
    """
    memories = [{**row, "memory": f"{row['rank']}. {row['question']}"} for row in rows]
    line = upright(threshold, strokeWidth=1.5, **DASHED)
    chosen = {"test": "datum.chosen", "value": "--revision"}
    stem = {
        "mark": {"type": "rule", "color": "--line-strong", "opacity": 0.5},
        "encoding": {"x": number("distance", "cosine distance"), "x2": {"datum": 0}},
    }
    dot = {
        "mark": {"type": "point", "size": 75, "stroke": "--revision", "strokeWidth": 1.5},
        "encoding": {
            "x": number("distance", "cosine distance", axis={"tickCount": 5}),
            "fill": {"condition": chosen, "value": "--surface"},
            "tooltip": tooltip("rank", "question", "distance:.4f", "chosen"),
        },
    }
    return chart(
        memories, line, stem, dot, height=22 * max(1, len(rows)), encoding=_listed("memory")
    )


# The map

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
