"""Charts by round and group: means of each group, and the gap between two groups."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.reading.charts.parts import (
    Rows,
    Spec,
    by_round,
    category,
    chart,
    colour_channel,
    distinct,
    fitted_legend,
    line_by_round,
    number,
    tooltip,
    values,
)
from sandbox.reading.charts.ranges import Scale, fitted_domain, mean_format, span

GROUPS = ["--label-1", "--label-2", "--label-3", "--label-4", "--run-5", "--run-6"]

_LABELS = {"good": GROUPS[0], "bad": GROUPS[1], "neutral": GROUPS[2]}
_DASHES = ([5, 3], [1, 0], [8, 3, 2, 3], [2, 2], [10, 4])
_DOTTED = [1, 3]  # ratings of peers
_TITLE = 32  # characters of an axis title that fit beside the chart


def group_colours(groups: Sequence[str]) -> dict[str, str]:
    """A colour for each group; a starting label has the same in every figure."""
    free = [colour for colour in GROUPS if colour not in {_LABELS.get(name) for name in groups}]
    return {
        name: _LABELS.get(name) or free[i % len(free)]
        for i, name in zip(_positions(groups), groups, strict=True)
    }


def _positions(groups: Sequence[str]) -> list[int]:
    """The number of groups without a fixed colour before each group."""
    return [sum(name not in _LABELS for name in groups[:i]) for i in range(len(groups))]


def group_curves(rows: Rows, scale: Scale, stages: Sequence[str]) -> Spec:
    """Means of groups on a scale by round, with their 95 % intervals.

    Args:
        rows: `round`, `group`, `series` (a stage or `peers`), `mean`, `low`, `high`, `n`.
        scale: the scale of the ratings.
        stages: the stages in order; the last one is drawn as a solid line, earlier ones dashed.
    """
    fitted, whole = fitted_domain(rows, scale, "low", "mean", "high"), [scale.low, scale.high]
    axis = {"scale": {"domain": whole, "nice": False, "zero": False}}
    title, form = f"mean, {span(scale)}", mean_format(scale)
    groups, series = distinct(rows, "group"), distinct(rows, "series")
    colours = group_colours(groups)
    colour = colour_channel("group", colours)
    ends = {"y": number("low", title, **axis), "y2": {"field": "high"}}
    band: Spec = {
        "mark": {"type": "area", "opacity": 0.1, "tooltip": False},
        "encoding": {**ends, "color": colour, "detail": category("series")},
    }
    if _one_round(rows):
        band["mark"] = _RULE
    means: Spec = {
        "mark": line_by_round(rows),
        "encoding": {
            "y": number("mean", title, **axis),
            "color": colour,
            "strokeDash": _dashes(series, stages),
            "shape": category("group", scale={"domain": groups}),
            "tooltip": tooltip(
                "group", "series", "round", f"mean:{form}", f"low:{form}", f"high:{form}", "n:,d"
            ),
        },
    }
    layers = [band, means] if len(groups) == 2 else [means]
    used: Spec = {"series": "group", "detail": "series", "value": "mean", "colours": colours}
    used |= {"whole": whole, "fitted": fitted, "form": form}
    encoding = {"x": by_round(rows)}
    spec: Spec = {"layer": layers}
    return chart(rows, spec, height=280, encoding=encoding, usermeta={"rounds": used})


_RULE: Spec = {"type": "rule", "opacity": 0.5, "tooltip": False}


def _one_round(rows: Rows) -> bool:
    """Whether an interval has no width to fill: it is drawn as a line."""
    return len(set(values(rows, "round"))) == 1


def _dashes(series: Sequence[str], stages: Sequence[str]) -> Spec:
    """Solid for the last stage, dashed for earlier ones, dotted for peers."""
    order = [stage for stage in stages if stage in series]
    dashes = {order[-1]: _DASHES[1]} if order else {}
    rest = [_DASHES[0], *_DASHES[2:]]
    dashes |= {stage: rest[i % len(rest)] for i, stage in enumerate(order[:-1])}
    dashes |= {name: _DOTTED for name in series if name not in dashes}
    scale = {"domain": series, "range": [dashes[name] for name in series]}
    return category("series", scale=scale, legend=fitted_legend(series))


def gap_curves(rows: Rows, scale: Scale, colours: dict[str, str]) -> Spec:
    """The difference of two groups by round, with its 95 % interval; a line at no difference.

    Args:
        rows: `round`, `series`, `gap`, `low`, `high` (points), `groups` (what is subtracted).
        scale: the scale of the ratings.
        colours: the colour of each series.
    """
    ends = [0.0, *values(rows, "low", "gap", "high")]
    room = max((max(ends) - min(ends)) * 0.08, (scale.high - scale.low) / 60)
    domain = [min(ends) - room, max(ends) + room]
    axis = {"scale": {"domain": domain, "nice": False, "zero": False}}
    form = mean_format(scale)
    known = {name: colours[name] for name in distinct(rows, "series")}
    subtracted = next(iter(distinct(rows, "groups")), "")
    title = f"{subtracted if 0 < len(subtracted) <= _TITLE else 'difference'}, points"
    zero: Spec = {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": "--line-strong"},
        "encoding": {"y": {"datum": 0}},
    }
    band: Spec = {
        "mark": {"type": "area", "opacity": 0.14, "tooltip": False},
        "encoding": {
            "x": by_round(rows),
            "y": number("low", title, **axis),
            "y2": {"field": "high"},
            "color": colour_channel("series", known),
        },
    }
    if _one_round(rows):
        band["mark"] = _RULE
    means: Spec = {
        "mark": line_by_round(rows),
        "encoding": {
            "x": by_round(rows),
            "y": number("gap", title, **axis),
            "color": colour_channel("series", known),
            "shape": category("series", scale={"domain": list(known)}),
            "tooltip": tooltip(
                "series", "round", "groups", f"gap:{form}", f"low:{form}", f"high:{form}"
            ),
        },
    }
    return chart(rows, zero, band, means, height=200)
