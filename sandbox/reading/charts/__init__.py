"""Charts as Vega-Lite specs: plain dicts over plain rows, drawn by the viewer and by reports.

Call `themed` before drawing a spec outside a page; `VERSION` is the version of Vega-Lite. All
functions accept empty rows. None is drawn as a gap. The range of ratings is that of the `Scale`
argument; the names of scales and stages come with the rows.
"""

from sandbox.reading.charts.agents import bias, observer_bias
from sandbox.reading.charts.bounds import group_gains, indices, shares
from sandbox.reading.charts.comparing import differences, recall, run_colours
from sandbox.reading.charts.groups import gap_curves, group_colours, group_curves
from sandbox.reading.charts.map import MANY_NUMBERS, alike, society, with_nodes
from sandbox.reading.charts.parts import (
    FONT_SIZE,
    OUTCOMES,
    PEERS,
    VERSION,
    Rows,
    Spec,
    panels,
    stage_colours,
    themed,
    with_font_size,
    with_title,
)
from sandbox.reading.charts.ranges import Scale, rating_bars
from sandbox.reading.charts.ratings import agreement, distribution, lengths, margins, matrix
from sandbox.reading.charts.rounds import alphas, curves, gains, history, missing, plane, versus
from sandbox.reading.charts.spread import reached, uses

__all__ = [
    "FONT_SIZE",
    "MANY_NUMBERS",
    "OUTCOMES",
    "PEERS",
    "VERSION",
    "Rows",
    "Scale",
    "Spec",
    "agreement",
    "alike",
    "alphas",
    "bias",
    "curves",
    "differences",
    "distribution",
    "gains",
    "gap_curves",
    "group_colours",
    "group_curves",
    "group_gains",
    "history",
    "indices",
    "lengths",
    "margins",
    "matrix",
    "missing",
    "observer_bias",
    "panels",
    "plane",
    "rating_bars",
    "reached",
    "recall",
    "run_colours",
    "shares",
    "society",
    "stage_colours",
    "themed",
    "uses",
    "versus",
    "with_font_size",
    "with_nodes",
    "with_title",
]
