"""Charts by round: curves, the alignment-engagement plane, what is missing."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.reading.charts.parts import (
    KINDS,
    OUTCOMES,
    RAMP,
    SERIES,
    Rows,
    Spec,
    by_round,
    category,
    chart,
    coloured,
    fitted,
    number,
    seen,
    tooltip,
    values,
    whole,
)

MANY_ROUNDS = 40  # from here on a curve has no points


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
    return _bands(rows, "run", _of_runs(rows))


def gains(rows: Rows) -> Spec:
    """The same curve of several runs, of gains.

    Args:
        rows: `run`, `round`, `mean`, `low`, `high` (-6 to 6).
    """
    return _bands(rows, "run", _of_runs(rows), "mean gain, points", (-6.0, 6.0))


def _of_runs(rows: Rows) -> dict[str, str]:
    return {run: KINDS[i % len(KINDS)] for i, run in enumerate(seen(rows, "run"))}


def _bands(
    rows: Rows,
    field: str,
    colours: Mapping[str, str],
    title: str = "mean, 1\u20137",
    within: tuple[float, float] = (1.0, 7.0),
) -> Spec:
    domain = fitted(rows, "low", "mean", "high", low=within[0], high=within[1])
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
    return chart(rows, path, step, ring, _rounds(rows), label, height=320, encoding=_axes(rows))


def _axes(rows: Rows) -> Spec:
    def axis(field: str) -> Spec:
        scale = {"domain": fitted(rows, field), "nice": False, "zero": False, "padding": 16}
        return number(field, f"{field}, mean", scale=scale, axis={"grid": True, "tickCount": 6})

    return {"x": axis("alignment"), "y": axis("engagement")}


def _rounds(rows: Rows) -> Spec:
    colour = number("round", scale={"range": RAMP}, legend=whole(rows))
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
    return chart(rows, span, ends, height=200, encoding={"x": by_round(rows)})
