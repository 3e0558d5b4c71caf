"""The table of trends over rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sandbox.reading.statistics import Interval
from sandbox.reading.trends import Gap, Trends
from sandbox.viewer.filters import decimal, integer, signed
from sandbox.viewer.report.tables import Cell, Table


def trend_table(found: Sequence[Trends]) -> Table:
    """First against last rounds and slopes, of all authors and by group, with the gap of two.

    Args:
        found: the trends of measures over the same rounds.
    """
    shown = [one for one in found if one.window and one.groups[0].agents]
    rows = [row for one in shown for row in _rows(one)]
    about = ""
    if shown:
        window, rounds = shown[0].window, shown[0].rounds
        first, last = rounds_title(0, window), rounds_title(rounds - window, rounds)
        about = (
            f"Means over authors in {first} and in {last}. The change is the mean of the "
            "authors\u2019 own changes, the slope that of their least-squares slopes, in points "
            "per round; 95 % intervals over authors (Student\u2019s t; for the gap of two groups "
            "Welch\u2019s)."
        )
    columns = ["Measure", "Authors", "n", "first rounds", "last rounds", "change", "per round"]
    return Table("trends", "First and last rounds", about, columns, rows, text_columns=2)


def rounds_title(start: int, end: int) -> str:
    """`round 0`, or `rounds 0 to 4`: from `start` to before `end`."""
    return f"round {start}" if end - start == 1 else f"rounds {start} to {end - 1}"


def _rows(found: Trends) -> Iterator[list[Cell]]:
    title = found.measure.replace("_", " ")
    remark = "" if found.better == "high" else "lower is better"
    for group in found.groups:
        yield [
            Cell(title, remark),
            Cell(group.group),
            Cell(integer(group.agents)),
            Cell(decimal(group.first)),
            Cell(decimal(group.last)),
            _signed(group.change),
            _signed(group.slope, 3),
        ]
    if found.gap is not None:
        yield [
            Cell(title, remark),
            Cell("gap", " \u2212 ".join(found.gap.groups)),
            *_gap(found.gap),
        ]


def _gap(gap: Gap) -> list[Cell]:
    n = gap.first.n if isinstance(gap.first.n, list) else [gap.first.n]
    return [
        Cell(integer(sum(n))),
        _signed(gap.first),
        _signed(gap.last),
        _signed(gap.change),
        _signed(gap.slope, 3),
    ]


def _signed(interval: Interval, digits: int = 2) -> Cell:
    return Cell(signed(interval.difference, digits), ends(interval, digits))


def ends(interval: Interval, digits: int = 2) -> str:
    """The ends of an interval, for small print; empty if it is not defined."""
    if interval.low is None:
        return ""
    return f"{signed(interval.low, digits)}\xa0to\xa0{signed(interval.high, digits)}"
