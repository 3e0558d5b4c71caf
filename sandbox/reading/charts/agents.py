"""Charts of agents: who rates high, whose advice is taken."""

from __future__ import annotations

from sandbox.reading.charts.parts import (
    ZERO,
    Rows,
    Spec,
    category,
    chart,
    coloured,
    kind_colours,
    listed,
    number,
    seen,
    titled,
    tooltip,
    values,
)

SHOWN = 15  # of a long list: so many from the top, and where it has one from the bottom


def bias(rows: Rows) -> Spec:
    """How much higher an agent rates than others rate the same texts, with its interval.

    Args:
        rows: `agent`, `name`, `label`, `deviation`, `low`, `high` (points of the scale), `n`;
            of many agents the 15 highest and the 15 lowest are shown.
    """
    known = [row for row in rows if row.get("deviation") is not None]
    ordered = sorted(known, key=lambda row: -values([row], "deviation")[0])
    some = ordered if len(ordered) <= 2 * SHOWN else ordered[:SHOWN] + ordered[-SHOWN:]
    labels = kind_colours(sorted(seen(rows, "label")))
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
        titled(some), ZERO, spread, dot, height=19 * max(1, len(some)), encoding=listed("who")
    )
