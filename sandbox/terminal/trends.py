"""Trends over rounds in the terminal: first against last rounds, slopes, and the gap of groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sandbox.reading.statistics import Interval
from sandbox.reading.trends import Trends
from sandbox.terminal.style import plain, table


def trend_view(found: Sequence[Trends]) -> RenderableType:
    """A row for all authors and for each group of every measure, and one for the gap of two."""
    shown = [one for one in found if one.window and one.groups[0].agents]
    numbers = ("first", "last", "change", "95 %", "per round")
    rows = table("measure", "authors", *numbers, right=numbers)
    for one in shown:
        for cells in _rows(one):
            rows.add_row(*map(plain, cells))
    first = next(iter(shown), None)
    if first is None:
        return Text()
    legend = (
        f"first, last: means over authors in the first and the last {first.window} of "
        f"{first.rounds} rounds; change and slope: of the same authors"
    )
    return Group(rows, plain(legend, "dim"))


def _rows(found: Trends) -> Iterator[tuple[str, ...]]:
    title = found.measure.replace("_", " ") + (" (low is better)" if found.better == "low" else "")
    for group in found.groups:
        ends = (_plain(group.first), _plain(group.last))
        yield title, f"{group.group} ({group.agents:,})", *ends, *_change(group.change, group.slope)
    gap = found.gap
    if gap is not None:
        ends = (_signed(gap.first.difference), _signed(gap.last.difference))
        yield title, f"gap {' - '.join(gap.groups)}", *ends, *_change(gap.change, gap.slope)


def _change(change: Interval, slope: Interval) -> tuple[str, str, str]:
    ends = "-" if change.low is None else f"{_signed(change.low)} to {_signed(change.high)}"
    return _signed(change.difference), ends, _signed(slope.difference, 3)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _signed(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"
