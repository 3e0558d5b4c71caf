"""Charts of comparisons: between runs, and between memories that could be recalled."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.reading.charts.parts import (
    DASHED,
    ZERO,
    Row,
    Rows,
    Spec,
    chart,
    colour_channel,
    distinct,
    number,
    row_axis,
    tooltip,
    vertical_line,
)

RUNS = ["--run-1", "--run-2", "--run-3", "--run-4", "--run-5", "--run-6"]
"""Colours of compared runs, or groups of runs; they are used for nothing else."""

EXCLUDES, INCLUDES, UNKNOWN = "interval excludes 0", "interval includes 0", "no interval"


def run_colours(groups: Sequence[str]) -> dict[str, str]:
    """A colour for each compared run or group, by position."""
    return {group: RUNS[index % len(RUNS)] for index, group in enumerate(groups)}


def differences(rows: Rows, colour: str = RUNS[1]) -> Spec:
    """Differences between two groups with their intervals; those that include 0 are grey.

    Args:
        rows: `measure`, `difference`, `low`, `high`, `p`, `p_holm`.
        colour: of the group that is compared with the baseline.
    """
    told = [{**row, "verdict": _verdict(row)} for row in rows]
    known = {EXCLUDES: colour, INCLUDES: "--line-strong", UNKNOWN: "--line-strong"}
    shown = {verdict: known[verdict] for verdict in known if verdict in distinct(told, "verdict")}
    verdicts = colour_channel("verdict", shown, legend={"title": None})
    spread = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"x": number("low", "difference"), "x2": {"field": "high"}, "color": verdicts},
    }
    lines = tooltip("measure", "difference:+.3f", "low:+.3f", "high:+.3f", "p:.3~g", "p_holm:.3~g")
    dot = {
        "mark": {"type": "point", "shape": "square", "filled": True, "size": 70, "opacity": 1},
        "encoding": {"x": number("difference"), "color": verdicts, "tooltip": lines},
    }
    return chart(
        told, ZERO, spread, dot, height=30 * max(1, len(rows)), encoding=row_axis("measure")
    )


def _verdict(row: Row) -> str:
    low, high = row["low"], row["high"]
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return UNKNOWN
    return EXCLUDES if low > 0 or high < 0 else INCLUDES


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
