"""Charts of raters: their leniency, and the observer against peers."""

from __future__ import annotations

from sandbox.reading.charts.groups import group_colours
from sandbox.reading.charts.parts import (
    ZERO,
    Rows,
    Spec,
    category,
    chart,
    colour_channel,
    distinct,
    number,
    row_axis,
    tooltip,
    values,
    with_agent_label,
)

SHOWN = 15  # rows from each end of a long list


def bias(rows: Rows) -> Spec:
    """How much higher an agent rates than other raters of the same texts, with its interval.

    Args:
        rows: `agent`, `name`, `label`, `deviation`, `low`, `high` (points of the scale), `n`, and
            in pages `href`; of many agents the 15 highest and the 15 lowest are shown.
    """
    known = [row for row in rows if row.get("deviation") is not None]
    ordered = sorted(known, key=lambda row: -values([row], "deviation")[0])
    shown = ordered if len(ordered) <= 2 * SHOWN else ordered[:SHOWN] + ordered[-SHOWN:]
    labels = group_colours(distinct(rows, "label"))
    colour = colour_channel("label", labels)
    x = "difference from co-raters, points"
    link = {"href": {"field": "href"}} if any("href" in row for row in shown) else {}
    spread = {
        "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.65},
        "encoding": {"x": number("low", x), "x2": {"field": "high"}, "color": colour, **link},
    }
    lines = tooltip("who", "label", "deviation:+.2f", "low:+.2f", "high:+.2f", "n:,d")
    dot = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "encoding": {
            "x": number("deviation", x),
            "color": colour,
            "shape": category("label", scale={"domain": list(labels)}),
            "tooltip": lines,
            **link,
        },
    }
    return chart(
        with_agent_label(shown),
        ZERO,
        spread,
        dot,
        height=19 * max(1, len(shown)),
        encoding=row_axis("who"),
    )


def observer_bias(rows: Rows) -> Spec:
    """How much higher the observer rates than peers, by starting label, with intervals.

    Args:
        rows: `label`, `difference`, `low`, `high` (points of the scale), `n`, `authors`.
    """
    labels = group_colours(distinct(rows, "label"))
    colour = colour_channel("label", labels, legend=None)
    x = "observer minus peers, points"
    spread = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"x": number("low", x), "x2": {"field": "high"}, "color": colour},
    }
    lines = tooltip("label", "difference:+.2f", "low:+.2f", "high:+.2f", "n:,d", "authors:,d")
    dot = {
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
        "encoding": {
            "x": number("difference", x),
            "color": colour,
            "shape": category("label", scale={"domain": list(labels)}, legend=None),
            "tooltip": lines,
        },
    }
    height = 34 * max(1, len(rows))
    return chart(rows, ZERO, spread, dot, height=height, encoding=row_axis("label"))
