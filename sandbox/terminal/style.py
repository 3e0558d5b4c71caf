"""Tables, colours and text helpers that all terminal views share.

Model text is untrusted: it never becomes markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agents.scale import Scale
from sandbox.text import printable

SCRIPTED = "Replies were composed by the scripted backend, not by a language model."

_COLOURS = ("red", "dark_orange3", "yellow", "yellow", "green", "green", "green")
"""From the worse end of a scale to the better one."""


def plain(text: object, style: str = "") -> Text:
    """Untrusted text as rich text, without markup or control characters."""
    return Text(printable(text), style=style)


def dash() -> Text:
    """The sign for a missing value."""
    return Text("-", style="dim")


def number(value: float | None, scale: Scale | None, digits: int = 2) -> Text:
    """A rating, coloured by its position between the ends of its scale; a dash for None."""
    if value is None:
        return dash()
    return Text(f"{value:.{digits}f}", style="" if scale is None else _colour(value, scale))


def _colour(value: float, scale: Scale) -> str:
    share = (value - scale.low) / (scale.high - scale.low)
    share = share if scale.better == "high" else 1 - share
    steps = len(_COLOURS) - 1
    return _COLOURS[min(steps, max(0, round(steps * share)))]


def change(ratings: Sequence[float | None], scale: Scale, digits: int = 0) -> Text:
    """The ratings of the first and the last stage; if there is a single stage, its rating."""
    if not ratings:
        return dash()
    ends = ratings if len(ratings) == 1 else (ratings[0], ratings[-1])
    digits = digits if scale.integer else max(1, digits)
    return Text(" \u2192 ").join(number(value, scale, digits) for value in ends)


def short(text: str | None, width: int = 60) -> Text:
    """The beginning of a text, in one line."""
    if text is None:
        return dash()
    line = " ".join(printable(text).split())
    return Text(line if len(line) <= width else line[: width - 1] + "\u2026")


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Create an empty table in the common style."""
    empty = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        empty.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return empty


class Fitting:
    """A table in several widths, of which the widest that fits the terminal is printed.

    Args:
        tables: from the widest to the narrowest.
    """

    def __init__(self, *tables: Table) -> None:
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The widest table that fits, or the narrowest."""
        wide = options.update(width=_WIDEST)
        fitting = (
            one
            for one in self.tables
            if Measurement.get(console, wide, one).maximum <= options.max_width
        )
        yield next(fitting, self.tables[-1])


def rounded(count: int) -> str:
    """A count in few characters: 9,999, 20k, 1.2M."""
    if count < 10_000:
        return f"{count:,}"
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if count >= 0.9995 * size:
            return f"{count / size:.1f}{unit}"
    return f"{count / 1000:.0f}k"


def show(console: Console, view: RenderableType) -> None:
    """Print a view without cropping lines that are wider than the terminal.

    Where the output is no terminal, as in a pipe, a row of a table and a line of text are one line.
    """
    if console.is_terminal:
        console.print(view, crop=False)
        return
    width = console.width
    for part in _parts(view):
        console.width = max(width, _natural_width(console, part))
        console.print(part, crop=False)


def _parts(view: RenderableType) -> Iterator[RenderableType]:
    if isinstance(view, Group):
        for part in view.renderables:
            yield from _parts(part)
    elif isinstance(view, Fitting):
        yield view.tables[0]
    else:
        yield view


def _natural_width(console: Console, part: RenderableType) -> int:
    """The width at which no line is wrapped; 0 for other parts than tables and lines of text."""
    padded = isinstance(part, Padding) and isinstance(part.renderable, Table)
    if not (padded or isinstance(part, Table | Text)):
        return 0
    options = console.options.update(width=_WIDEST)
    return Measurement.get(console, options, part).maximum


_WIDEST = 100_000
