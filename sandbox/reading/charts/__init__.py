"""Charts as Vega-Lite specs: plain dicts over plain rows, drawn by the viewer and by reports.

Call `themed` before drawing one without a page; `VERSION` is the Vega-Lite that they are for.
Every function takes rows that may be empty, and gives a spec without a value that nobody measured:
None stays a gap.
"""

from sandbox.reading.charts.agents import bias
from sandbox.reading.charts.comparing import differences, recall
from sandbox.reading.charts.map import society
from sandbox.reading.charts.parts import OUTCOMES, VERSION, Rows, Spec, themed
from sandbox.reading.charts.ratings import agreement, distribution, matrix
from sandbox.reading.charts.rounds import curves, gains, history, missing, plane, versus

__all__ = [
    "OUTCOMES",
    "VERSION",
    "Rows",
    "Spec",
    "agreement",
    "bias",
    "curves",
    "differences",
    "distribution",
    "gains",
    "history",
    "matrix",
    "missing",
    "plane",
    "recall",
    "society",
    "themed",
    "versus",
]
