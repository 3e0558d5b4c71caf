"""Charts of the spread of an idea."""

from __future__ import annotations

from sandbox.reading.charts.groups import group_colours
from sandbox.reading.charts.parts import (
    Rows,
    Spec,
    by_round,
    category,
    chart,
    colour_channel,
    distinct,
    line_by_round,
    number,
    tooltip,
)


def uses(rows: Rows) -> Spec:
    """The exchanges that say it, by round and starting label.

    Args:
        rows: `round`, `label`, `exchanges`.
    """
    encoding = {
        "x": {"field": "round", "type": "ordinal", "axis": {"labelAngle": 0}},
        "y": number("exchanges", "exchanges that say it", axis={"tickMinStep": 1, "format": ",d"}),
        "color": colour_channel("label", group_colours(distinct(rows, "label"))),
        "tooltip": tooltip("round", "label", "exchanges:,d"),
    }
    mark = {"type": "bar", "stroke": "--surface", "strokeWidth": 1, "width": {"band": 0.75}}
    return chart(rows, {"mark": mark, "encoding": encoding}, height=200)


def reached(rows: Rows) -> Spec:
    """The share of agents that have said it up to each round, by starting label.

    Args:
        rows: `round`, `label`, `share` (0 to 1), `so_far`, `agents`.
    """
    labels = distinct(rows, "label")
    line = {
        "mark": line_by_round(rows, interpolate="step-after"),
        "encoding": {
            "x": by_round(rows),
            "y": number(
                "share",
                "share of agents that have said it",
                axis={"format": ".0%"},
                scale={"domain": [0, 1]},
            ),
            "color": colour_channel("label", group_colours(labels)),
            "shape": category("label", scale={"domain": labels}),
            "tooltip": tooltip("round", "label", "share:.0%", "so_far:,d", "agents:,d"),
        },
    }
    return chart(rows, line, height=200)
