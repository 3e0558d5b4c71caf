"""Charts of comparisons: between runs, and between memories that could be recalled."""

from __future__ import annotations

from sandbox.reading.charts.parts import (
    DASHED,
    ZERO,
    Rows,
    Spec,
    chart,
    number,
    row_axis,
    tooltip,
    vertical_line,
)


def differences(rows: Rows) -> Spec:
    """Differences between two runs with their intervals; those that include 0 are grey.

    Args:
        rows: `measure`, `difference`, `low`, `high`.
    """
    clear = "datum.low > 0 || datum.high < 0"
    colour = {"condition": {"test": clear, "value": "--second"}, "value": "--soft"}
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
        rows, ZERO, spread, dot, height=30 * max(1, len(rows)), encoding=row_axis("measure")
    )


def recall(rows: Rows, threshold: float | None) -> Spec:
    """Memories by their distance from the question: the nearest are recalled.

    Args:
        rows: `rank`, `question`, `distance` (cosine, 0-2), `chosen`.
        threshold: the distance below which a memory is recalled; None: whatever it is.
    """
    memories = [{**row, "memory": f"{row['rank']}. {row['question']}"} for row in rows]
    bound = [] if threshold is None else [vertical_line(threshold, strokeWidth=1.5, **DASHED)]
    chosen = {"test": "datum.chosen", "value": "--second"}
    stem = {
        "mark": {"type": "rule", "color": "--line-strong", "opacity": 0.5},
        "encoding": {"x": number("distance", "cosine distance"), "x2": {"datum": 0}},
    }
    dot = {
        "mark": {"type": "point", "size": 75, "stroke": "--second", "strokeWidth": 1.5},
        "encoding": {
            "x": number("distance", "cosine distance", axis={"tickCount": 5}),
            "fill": {"condition": chosen, "value": "--surface"},
            "tooltip": tooltip("rank", "question", "distance:.4f", "chosen"),
        },
    }
    return chart(
        memories, *bound, stem, dot, height=22 * max(1, len(rows)), encoding=row_axis("memory")
    )
