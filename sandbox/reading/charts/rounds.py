"""Charts by round: curves, one scale against another, and missing ratings."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.reading.charts.comparing import run_colours
from sandbox.reading.charts.parts import (
    DASHED,
    OUTCOMES,
    RAMP,
    Rows,
    Spec,
    by_round,
    category,
    chart,
    colour_channel,
    distinct,
    number,
    round_ticks,
    tooltip,
    values,
)
from sandbox.reading.charts.ranges import (
    Scale,
    fitted_domain,
    gain_domain,
    mean_format,
    span,
    ticks,
    whole_domain,
)

MANY_ROUNDS = 40  # above this a curve has no points


def curves(rows: Rows, scale: Scale, colours: Mapping[str, str]) -> Spec:
    """Means on a scale by round with their 95 % intervals, for each stage and for peers.

    Args:
        rows: `round`, `series`, `mean`, `low`, `high`, `n`.
        scale: the scale of the ratings.
        colours: the colour of each series.
    """
    known = {name: colour for name, colour in colours.items() if name in distinct(rows, "series")}
    domain = fitted_domain(rows, scale, *_ENDS)
    return _bands(
        rows, "series", known or colours, f"mean, {span(scale)}", domain, mean_format(scale)
    )


def versus(rows: Rows, scale: Scale) -> Spec:
    """The same measure by round, of several groups of runs.

    Args:
        rows: `group`, `seed`, `round`, `mean`, `low`, `high`, `n`; `seed` is None in the rows of
            the whole group, which are drawn with their bands, and the others are thin lines.
        scale: the scale of the ratings.
    """
    domain = fitted_domain(rows, scale, *_ENDS)
    return _groups(rows, f"mean, {span(scale)}", domain, mean_format(scale))


def gains(rows: Rows, scale: Scale) -> Spec:
    """The same gain by round, of several groups of runs.

    Args:
        rows: see `versus` (points, positive where it is better).
        scale: the scale of the gains.
    """
    domain = gain_domain(rows, scale, *_ENDS)
    return _groups(rows, "mean gain, points", domain, mean_format(scale))


def _groups(rows: Rows, title: str, domain: list[float], form: str) -> Spec:
    colours = run_colours(distinct(rows, "group"))
    whole = [row for row in rows if row["seed"] is None]
    spec = _bands(whole, "group", colours, title, domain, form)
    seeds = [dict(row) for row in rows if row["seed"] is not None]
    thin = {
        "data": {"values": seeds},
        "mark": {"type": "line", "strokeWidth": 0.8, "opacity": 0.55, "tooltip": False},
        "encoding": {
            "y": number("mean", title, scale={"domain": domain, "nice": False, "zero": False}),
            "color": colour_channel("group", colours),
            "detail": category("seed"),
        },
    }
    return {**spec, "layer": [thin, *spec["layer"]]} if seeds else spec


_ENDS = ("low", "mean", "high")


def _bands(
    rows: Rows, field: str, colours: Mapping[str, str], title: str, domain: list[float], form: str
) -> Spec:
    scale = {"domain": domain, "nice": False, "zero": False}
    colour = colour_channel(field, colours)
    few = len(set(values(rows, "round"))) <= MANY_ROUNDS
    single_points = len(values(rows, "round")) == len(colours)
    band = {"type": "rule", "opacity": 0.5} if single_points else {"type": "area", "opacity": 0.14}
    ends = {"y": number("low", title, scale=scale), "y2": {"field": "high"}}
    spread = {"mark": {**band, "tooltip": False}, "encoding": {**ends, "color": colour}}
    means = {
        "mark": {"type": "line", "point": {"size": 42, "filled": True} if few else False},
        "encoding": {
            "y": number("mean", title, scale=scale),
            "color": colour,
            "shape": category(field, scale={"domain": list(colours)}),
            "tooltip": tooltip(
                field, "round", f"mean:{form}", f"low:{form}", f"high:{form}", "n:,d"
            ),
        },
    }
    return chart(rows, spread, means, height=240, encoding={"x": by_round(rows)})


def plane(rows: Rows, x: Scale, y: Scale) -> Spec:
    """One scale against another: the path of a run over its rounds, and the Pareto front.

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
    lines = tooltip("round", f"{x.name}:{mean_format(x)}", f"{y.name}:{mean_format(y)}", "front")
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
    colour = number("round", scale={"range": RAMP}, legend=round_ticks(rows))
    point = {"type": "circle", "size": 80, "opacity": 1, "stroke": "--soft", "strokeWidth": 0.6}
    return {"mark": point, "encoding": {"color": colour, "tooltip": lines}}


def missing(rows: Rows) -> Spec:
    """Ratings that could not be parsed, by round and by the status of the reply.

    Args:
        rows: `round`, `outcome` (cut, empty, unreadable or failed), `count`.
    """
    encoding = {
        "x": {"field": "round", "type": "ordinal", "axis": {"labelAngle": 0}},
        "y": number("count", "ratings missing", axis={"tickMinStep": 1, "format": "d"}),
        "color": colour_channel("outcome", OUTCOMES),
        "tooltip": tooltip("round", "outcome", "count:,d"),
    }
    mark = {"type": "bar", "stroke": "--surface", "strokeWidth": 1, "width": {"band": 0.7}}
    return chart(rows, {"mark": mark, "encoding": encoding}, height=200)


def history(rows: Rows, scale: Scale, colours: Mapping[str, str]) -> Spec:
    """The scores of one agent by round and stage.

    Args:
        rows: `round`, `stage`, `score`.
        scale: the scale of the ratings.
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
            "color": colour_channel("stage", colours),
            "shape": category("stage", scale={"domain": list(colours)}),
            "tooltip": tooltip("round", "stage", "score"),
        },
    }
    return chart(rows, lines, ends, height=200, encoding={"x": by_round(rows)})
