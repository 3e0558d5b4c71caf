"""Charts as Vega-Lite specs: plain dicts over plain rows, drawn by the viewer and by reports.

Call `themed` before drawing one without a page; `VERSION` is the Vega-Lite that they are for.
Every function takes rows that may be empty. A value of None stays a gap. The range of ratings is
that of the `Scale` that a function is given; names of scales and stages come with the rows.
"""

from sandbox.reading.charts.agents import bias
from sandbox.reading.charts.comparing import differences, recall
from sandbox.reading.charts.map import society
from sandbox.reading.charts.parts import (
    OUTCOMES,
    PEERS,
    VERSION,
    Rows,
    Spec,
    headed,
    panels,
    stage_colours,
    themed,
)
from sandbox.reading.charts.ranges import Scale, rating_bars
from sandbox.reading.charts.ratings import agreement, distribution, lengths, margins, matrix
from sandbox.reading.charts.rounds import curves, gains, history, missing, plane, versus

__all__ = [
    "OUTCOMES",
    "PEERS",
    "VERSION",
    "Rows",
    "Scale",
    "Spec",
    "agreement",
    "bias",
    "curves",
    "differences",
    "distribution",
    "gains",
    "headed",
    "history",
    "lengths",
    "margins",
    "matrix",
    "missing",
    "panels",
    "plane",
    "rating_bars",
    "recall",
    "society",
    "stage_colours",
    "themed",
    "versus",
]
