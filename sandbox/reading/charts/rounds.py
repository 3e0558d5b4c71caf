"""Charts by round: curves, one scale against another, ratings that are missing."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.reading.charts.parts import (
    DASHED,
    OUTCOMES,
    RAMP,
    Rows,
    Spec,
    by_round,
    category,
    chart,
    coloured,
    kind_colours,
    number,
    seen,
    tooltip,
    values,
    whole,
)
from sandbox.reading.charts.ranges import (
    Scale,
    fitted_domain,
    gain_domain,
    span,
    ticks,
    whole_domain,
)

MANY_ROUNDS = 40  # from here on a curve has no points


def curves(rows: Rows, scale: Scale, colours: Mapping[str, str]) -> Spec:
    """One scale by round: means with their 95 % interval, of each stage and of peers.

    Args:
        rows: `round`, `series`, `mean`, `low`, `high`, `n`.
        scale: what is rated.
        colours: the colour of each series.
    """
    known = {name: colour for name, colour in colours.items() if name in seen(rows, "series")}
    domain = fitted_domain(rows, scale, *_ENDS)
    return _bands(rows, "series", known or colours, f"mean, {span(scale)}", domain)


def versus(rows: Rows, scale: Scale) -> Spec:
    """The same curve of several runs.

    Args:
        rows: `run`, `round`, `mean`, `low`, `high`.
        scale: what is rated.
    """
    colours = kind_colours(seen(rows, "run"))
    domain = fitted_domain(rows, scale, *_ENDS)
    return _bands(rows, "run", colours, f"mean, {span(scale)}", domain)


def gains(rows: Rows, scale: Scale) -> Spec:
    """The same curve of several runs, of gains.

    Args:
        rows: `run`, `round`, `mean`, `low`, `high` (points, positive where it is better).
        scale: on which something is gained.
    """
    colours = kind_colours(seen(rows, "run"))
    return _bands(rows, "run", colours, "mean gain, points", gain_domain(rows, scale, *_ENDS))


_ENDS = ("low", "mean", "high")


def _bands(
    rows: Rows, field: str, colours: Mapping[str, str], title: str, domain: list[float]
) -> Spec:
    scale = {"domain": domain, "nice": False, "zero": False}
    colour = coloured(field, colours)
    few = len(set(values(rows, "round"))) <= MANY_ROUNDS
    once = len(values(rows, "round")) == len(colours)
    band = {"type": "rule", "opacity": 0.5} if once else {"type": "area", "opacity": 0.14}
    ends = {"y": number("low", title, scale=scale), "y2": {"field": "high"}}
    spread = {"mark": {**band, "tooltip": False}, "encoding": {**ends, "color": colour}}
    means = {
        "mark": {"type": "line", "point": {"size": 42, "filled": True} if few else False},
        "encoding": {
            "y": number("mean", title, scale=scale),
            "color": colour,
            "shape": category(field, scale={"domain": list(colours)}),
            "tooltip": tooltip(field, "round", "mean:.2f", "low:.2f", "high:.2f", "n"),
        },
    }
    return chart(rows, spread, means, height=240, encoding={"x": by_round(rows)})


def plane(rows: Rows, x: Scale, y: Scale) -> Spec:
    """One scale against another: the path of a run through its rounds, and its Pareto front.

    Args:
        rows: `round`, the mean of each scale by the scale's name, `front`: no other round is
            better on both.
        x: the scale along the x axis.
        y: the scale along the y axis.
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
            "interpolate": "step-before" if x.better == "high" else "step-after",
            **DASHED,
        },
        "encoding": {"order": {"field": x.name}},
    }
    ring = {
        "transform": [front],
        "mark": {"type": "point", "size": 190, "color": "--first", "strokeWidth": 2},
    }
    label = {
        "transform": [{"filter": few}],
        "mark": {"type": "text", "dx": 11, "dy": -9, "align": "left", "color": "--soft"},
        "encoding": {"text": {"field": "round"}},
    }
    lines = tooltip("round", f"{x.name}:.2f", f"{y.name}:.2f", "front")
    encoding = {"x": _axis(rows, x), "y": _axis(rows, y)}
    return chart(rows, path, step, ring, _rounds(rows, lines), label, height=320, encoding=encoding)


def _axis(rows: Rows, scale: Scale) -> Spec:
    domain = fitted_domain(rows, scale, scale.name)
    direction = "" if scale.better == "high" else ", lower is better"
    return number(
        scale.name,
        f"{scale.title}, mean{direction}",
        scale={"domain": domain, "nice": False, "zero": False, "padding": 16},
        axis={"grid": True, "tickCount": 6},
    )


def _rounds(rows: Rows, lines: list[Spec]) -> Spec:
    colour = number("round", scale={"range": RAMP}, legend=whole(rows))
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


def history(rows: Rows, scale: Scale, colours: Mapping[str, str]) -> Spec:
    """One agent's own scores by round: from the first stage to the last.

    Args:
        rows: `round`, `stage`, `score`.
        scale: what is rated.
        colours: the colour of each stage.
    """
    title, axis = f"score, {span(scale)}", ticks(scale)
    domain = {"domain": whole_domain(scale), "nice": False}
    lines = {
        "mark": {"type": "rule", "strokeWidth": 3, "color": "--line-strong", "opacity": 0.6},
        "encoding": {
            "y": number("score", title, aggregate="min", scale=domain, axis=axis),
            "y2": {"field": "score", "aggregate": "max"},
        },
    }
    ends = {
        "mark": {"type": "point", "size": 80, "filled": True, "opacity": 1},
        "encoding": {
            "y": number("score", title, scale=domain, axis=axis),
            "color": coloured("stage", colours),
            "shape": category("stage", scale={"domain": list(colours)}),
            "tooltip": tooltip("round", "stage", "score"),
        },
    }
    return chart(rows, lines, ends, height=200, encoding={"x": by_round(rows)})
