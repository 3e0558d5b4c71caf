"""Charts of personalisation within bounds: shares and gains with intervals, indices by round."""

from __future__ import annotations

from sandbox.reading.charts.parts import (
    ZERO,
    Rows,
    Spec,
    by_round,
    category,
    chart,
    colour_channel,
    distinct,
    kind_colours,
    number,
    row_axis,
    tooltip,
)


def shares(rows: Rows, field: str) -> Spec:
    """Shares with their 95 % intervals, one below the other.

    Args:
        rows: the column `field`, `share`, `low`, `high` (0 to 1), `count`, `n`, `missing`.
        field: the name of each row.
    """
    scale = {"domain": [0, 1], "nice": False, "padding": 8}
    axis = {"format": ".0%", "tickCount": 5}
    return _intervals(
        rows,
        field,
        number("share", "share obeyed", scale=scale, axis=axis),
        tooltip(field, "share:.1%", "low:.1%", "high:.1%", "count:,d", "n:,d", "missing:,d"),
    )


def group_gains(rows: Rows) -> Spec:
    """Mean gains of groups with their 95 % intervals, one below the other.

    Args:
        rows: `group`, `gain`, `low`, `high` (points), `users`, `n`.
    """
    return _intervals(
        rows,
        "group",
        number("gain", "mean gain, points"),
        tooltip("group", "gain:+.2f", "low:+.2f", "high:+.2f", "users:,d", "n:,d"),
        ZERO,
    )


def _intervals(rows: Rows, field: str, x: Spec, lines: list[Spec], *below: Spec) -> Spec:
    spread = {
        "mark": {"type": "rule", "strokeWidth": 2, "color": "--second"},
        "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
    }
    dot = {
        "mark": {
            "type": "point",
            "shape": "square",
            "filled": True,
            "size": 70,
            "opacity": 1,
            "color": "--second",
        },
        "encoding": {"x": x, "tooltip": lines},
    }
    height = 30 * max(1, len(rows))
    return chart(rows, *below, spread, dot, height=height, encoding=row_axis(field))


def indices(rows: Rows) -> Spec:
    """Several indices from 0 to 1 by round.

    Args:
        rows: `round`, `index` (the name), `value`, `n`.
    """
    colours = kind_colours(distinct(rows, "index"))
    lines = {
        "mark": {"type": "line", "point": {"size": 42, "filled": True}},
        "encoding": {
            "x": by_round(rows),
            "y": number("value", "index", scale={"domain": [0, 1], "nice": False}),
            "color": colour_channel("index", colours, legend={"labelLimit": 260}),
            "shape": category("index", scale={"domain": list(colours)}),
            "tooltip": tooltip("index", "round", "value:.3f", "n:,d"),
        },
    }
    return chart(rows, lines, height=240)
