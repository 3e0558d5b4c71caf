"""Reports in Markdown: everything that is put into the template is escaped, unless it is `Md`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from sandbox.reading.text_diff import Piece
from sandbox.text import duration, escape_controls
from sandbox.viewer.filters import decimal, signed, whole
from sandbox.viewer.report.tables import Cell, Table

_MARKUP = re.compile(r"[\\`*_\[\]<>|#$~&@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_MARKS = {"same": ("", ""), "gone": ("[-", "-]"), "new": ("{+", "+}")}


class Md(str):
    """Text that is Markdown already."""


def inline(value: object) -> Md:
    """Somebody's text within a line, in which nothing is markup, a link or another line."""
    return value if isinstance(value, Md) else Md(_MARKUP.sub(r"\\\g<0>", _line(value)))


def _line(value: object) -> str:
    return " ".join(escape_controls(value).split())


def fence(text: object, language: str = "text") -> Md:
    """A text by itself, between fences that are longer than any run of backticks in it."""
    shown = escape_controls(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Md(f"{ticks}{language}\n{shown}\n{ticks}")


def changed(pieces: Sequence[Piece]) -> Md:
    """A changed text between fences, with what is gone [-so-] and what is new {+so+}."""
    return fence("".join(map(_marked, pieces)))


def _marked(piece: Piece) -> str:
    """The marks stand close around the words; white space stays outside."""
    text, (before, after) = piece.text, _MARKS[piece.kind]
    bare = text.strip()
    if not bare:
        return text
    lead, _, trail = text.partition(bare)
    return f"{lead}{before}{bare}{after}{trail}"


def table(one: Table) -> Md:
    """A table, with what stands in small behind the text."""
    aligned = ["---" if place < one.words else "---:" for place in range(len(one.columns))]
    return Md("\n".join(_rows([[Cell(name) for name in one.columns], aligned, *one.rows])))


def _rows(rows: Sequence[Sequence[Cell | str]]) -> Iterator[str]:
    for row in rows:
        yield f"| {' | '.join(cell if isinstance(cell, str) else _cell(cell) for cell in row)} |"


def _cell(cell: Cell) -> str:
    return inline(cell.text) + (f" ({inline(cell.detail)})" if cell.detail else "")


def address(path: str) -> Md:
    """A path as the target of a link."""
    return Md(quote(path))


def environment() -> Environment:
    """The templates, which escape everything that they are given."""
    made = Environment(
        loader=PackageLoader("sandbox.viewer"),
        autoescape=False,  # that is for HTML; `inline` escapes
        undefined=StrictUndefined,
        finalize=inline,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: list[Any] = [fence, changed, table, address, decimal, signed, whole, duration]
    made.filters.update({one.__name__: one for one in filters})
    return made
