"""Charts by round: curves, one scale against another, and missing ratings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from sandbox.reading.charts.comparing import run_colours
from sandbox.reading.charts.parts import (
    DASHED,
    MANY_ROUNDS,
    OUTCOMES,
    PEERS,
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

MANY_STEPS = 12  # above this the path of a plane is faint at its beginning


def curves(rows: Rows, scale: Scale, colours: Mapping[str, str]) -> Spec:
    """Means on a scale by round with their 95 % intervals, for each stage and for peers.

    The axis shows the whole scale; a page can also fit it to the values (`usermeta.rounds`).

    Args:
        rows: `round`, `series`, `mean`, `low`, `high`, `n`.
        scale: the scale of the ratings.
        colours: the colour of each series.
    """
    known = {name: colour for name, colour in colours.items() if name in distinct(rows, "series")}
    return _bands(rows, _of_means("series", scale, rows), known or colours, dashed=True)


def versus(rows: Rows, scale: Scale) -> Spec:
    """The same measure by round, of several groups of runs.

    Args:
        rows: `group`, `seed`, `round`, `mean`, `low`, `high`, `n`; `seed` is None in the rows of
            the whole group, which are drawn with their bands, and the others are thin lines.
        scale: the scale of the ratings.
    """
    return _groups(rows, _of_means("group", scale, rows))


def gains(rows: Rows, scale: Scale) -> Spec:
    """The same gain by round, of several groups of runs.

    Args:
        rows: see `versus` (points, positive where it is better).
        scale: the scale of the gains.
    """
    domain = gain_domain(rows, scale, *_ENDS)
    lines = Lines("group", "mean", "mean gain, points", domain, domain, mean_format(scale))
    return _groups(rows, lines)


def alphas(rows: Rows) -> Spec:
    """Agreement of raters by round with its 95 % interval.

    Args:
        rows: `round`, `raters`, `alpha` (at most 1), `low`, `high`, `n`.
    """
    ends = values(rows, "low", "alpha", "high") or [0.0]
    whole, fitted = [min(0.0, *ends), 1.0], [min(ends) - 0.02, min(1.0, max(ends) + 0.02)]
    names = distinct(rows, "raters")
    colours = dict(zip(names, (PEERS, "--second"), strict=False))
    return _bands(rows, Lines("raters", "alpha", "alpha", whole, fitted, ".2f"), colours)


class Lines(NamedTuple):
    """What a chart of lines by round shows.

    Attributes:
        field: the column with the name of the line.
        value: the column with its values; its interval is in `low` and `high`.
        title: of the y axis.
        whole, fitted: the domain of the y axis: all possible values, and those that there are.
        form: the d3 format of values.
    """

    field: str
    value: str
    title: str
    whole: list[float]
    fitted: list[float]
    form: str


def _of_means(field: str, scale: Scale, rows: Rows) -> Lines:
    title, fitted = f"mean, {span(scale)}", fitted_domain(rows, scale, *_ENDS)
    return Lines(field, "mean", title, [scale.low, scale.high], fitted, mean_format(scale))


def _groups(rows: Rows, lines: Lines) -> Spec:
    colours = run_colours(distinct(rows, "group"))
    whole = [row for row in rows if row["seed"] is None]
    spec = _bands(whole, lines, colours)
    seeds = [dict(row) for row in rows if row["seed"] is not None]
    y_scale = {"domain": lines.whole, "nice": False, "zero": False}
    thin = {
        "data": {"values": seeds},
        "mark": {"type": "line", "strokeWidth": 0.8, "opacity": 0.55, "tooltip": False},
        "encoding": {
            "y": number("mean", lines.title, scale=y_scale),
            "color": colour_channel("group", colours),
            "detail": category("seed"),
        },
    }
    return {**spec, "layer": [thin, *spec["layer"]]} if seeds else spec


_ENDS = ("low", "mean", "high")


def _bands(rows: Rows, lines: Lines, colours: Mapping[str, str], dashed: bool = False) -> Spec:
    """Lines by round with bands; `usermeta.rounds` is what the pages' controls need."""
    field, title = lines.field, lines.title
    scale = {"domain": lines.whole, "nice": False, "zero": False}
    colour = colour_channel(field, colours)
    few = len(set(values(rows, "round"))) <= MANY_ROUNDS
    single_points = len(values(rows, "round")) == len(colours)
    area = {"type": "area", "opacity": 0.14, "clip": True, "tooltip": False}
    band = {"type": "rule", "opacity": 0.5, "tooltip": False} if single_points else area
    ends = {"y": number("low", title, scale=scale), "y2": {"field": "high"}}
    spread = {
        "mark": {**band, "clip": True, "tooltip": False},
        "encoding": {**ends, "color": colour},
    }
    y = {"y": number(lines.value, title, scale=scale), "color": colour}
    line = {
        "mark": {"type": "line", "clip": True},
        "encoding": {**y, **(_dashes(field, list(colours)) if dashed else {})},
    }
    form = lines.form
    point = {
        "mark": {"type": "point", "filled": True, "opacity": 1 if few else 0},
        "encoding": {
            **y,
            "shape": category(field, scale={"domain": list(colours)}),
            "size": _sizes(field, list(colours), dashed),
            "tooltip": tooltip(
                field, "round", f"{lines.value}:{form}", f"low:{form}", f"high:{form}", "n:,d"
            ),
        },
    }
    used = {"series": field, "value": lines.value, "whole": lines.whole, "fitted": lines.fitted}
    return chart(
        rows,
        *(spread, line, point),
        height=240,
        encoding={"x": by_round(rows)},
        usermeta={"rounds": {**used, "colours": dict(colours), "form": form}},
    )


def _dashes(field: str, names: list[str]) -> Spec:
    """The first of several stages is dashed, so that it is seen below the others."""
    solid = [1, 0]
    dashes = [[5, 3] if len(names) > 1 else solid, *[solid] * (len(names) - 1)]
    return {"strokeDash": category(field, scale={"domain": names, "range": dashes})}


def _sizes(field: str, names: list[str], dashed: bool) -> Spec:
    """The points of the first of several stages are larger than those that may cover them."""
    first = {"test": f"datum['{field}'] == {json.dumps(next(iter(names), ''))}", "value": 95}
    return {"condition": first, "value": 42} if dashed and len(names) > 1 else {"value": 42}


def plane(rows: Rows, x: Scale, y: Scale) -> Spec:
    """One scale against another: the path of a run over its rounds, and the Pareto front.

    Args:
        rows: `round`, the mean of each scale by the scale's name, `front`: no other round is
            better on both.
        x: the scale along the x axis.
        y: the scale along the y axis.
    """
    front, many = {"filter": "datum.front"}, len(rows) > MANY_STEPS
    rounds = values(rows, "round")
    ends = f"datum.round == {min(rounds, default=0)} || datum.round == {max(rounds, default=0)}"
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
        "transform": [{"filter": f"datum.front || {ends}" if many else "true"}],
        "mark": {"type": "text", "dx": 11, "dy": -9, "align": "left", "color": "--soft"},
        "encoding": {"text": {"field": "round"}},
    }
    lines = tooltip("round", f"{x.name}:{mean_format(x)}", f"{y.name}:{mean_format(y)}", "front")
    encoding = {"x": _axis(rows, x), "y": _axis(rows, y)}
    path = _path(rows, x.name, y.name, many)
    return chart(rows, path, step, ring, _rounds(rows, lines), label, height=320, encoding=encoding)


def _path(rows: Rows, x: str, y: str, many: bool) -> Spec:
    """The path from round to round; of many rounds the earlier steps are fainter."""
    following = {f"{name} next": name for name in (x, y)}
    steps = [{"op": "lead", "field": name, "as": new} for new, name in following.items()]
    scale = {"range": [0.12, 0.9] if many else [1, 1]}
    return {
        "transform": [
            {"window": steps, "sort": [{"field": "round"}]},
            {"filter": f"isValid(datum['{x} next'])"},
        ],
        "mark": {"type": "rule", "color": "--line-strong", "strokeWidth": 1.2},
        "encoding": {
            "x2": {"field": f"{x} next"},
            "y2": {"field": f"{y} next"},
            "opacity": number("round", scale=scale, legend=None),
        },
    }


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
    order = {"order": {"field": "place", "type": "quantitative"}}  # from light to dark
    rows = [{**row, "place": list(OUTCOMES).index(str(row["outcome"]))} for row in rows]
    encoding |= order
    mark = {"type": "bar", "stroke": "--soft", "strokeWidth": 0.7, "width": {"band": 0.7}}
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
