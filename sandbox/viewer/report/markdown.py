"""Reports in Markdown: the template environment escapes every value that is not `Md`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from sandbox.reading.text_diff import Piece
from sandbox.text import duration, escape_controls
from sandbox.viewer.filters import decimal, integer, signed
from sandbox.viewer.report.tables import Cell, Table

_MARKUP = re.compile(r"[\\`*_\[\]<>|#$~&@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_MARKS = {"same": ("", ""), "gone": ("[-", "-]"), "new": ("{+", "+}")}


class Md(str):
    """Text that is already Markdown and is not escaped."""


def inline(value: object) -> Md:
    """Escape a text for use within a line: no markup, links or line breaks."""
    return value if isinstance(value, Md) else Md(_MARKUP.sub(r"\\\g<0>", _line(value)))


def _line(value: object) -> str:
    return " ".join(escape_controls(value).split())


def fence(text: object, language: str = "text") -> Md:
    """A fenced code block, with a fence longer than any run of backticks in the text."""
    shown = escape_controls(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Md(f"{ticks}{language}\n{shown}\n{ticks}")


def word_diff(pieces: Sequence[Piece]) -> Md:
    """A fenced diff in the style of ``git diff --word-diff``: [-deleted-] {+inserted+}."""
    return fence("".join(map(_marked, pieces)))


def _marked(piece: Piece) -> str:
    """Put the markers directly around the words, with white space outside."""
    text, (before, after) = piece.text, _MARKS[piece.kind]
    bare = text.strip()
    if not bare:
        return text
    lead, _, trail = text.partition(bare)
    return f"{lead}{before}{bare}{after}{trail}"


def table(table: Table) -> Md:
    """A Markdown table; the detail of a cell follows its text in parentheses."""
    rule = ["---" if index < table.text_columns else "---:" for index in range(len(table.columns))]
    return Md("\n".join(_rows([[Cell(name) for name in table.columns], rule, *table.rows])))


def _rows(rows: Sequence[Sequence[Cell | str]]) -> Iterator[str]:
    for row in rows:
        yield f"| {' | '.join(cell if isinstance(cell, str) else _cell(cell) for cell in row)} |"


def _cell(cell: Cell) -> str:
    return inline(cell.text) + (f" ({inline(cell.detail)})" if cell.detail else "")


def link_target(path: str) -> Md:
    """A path, quoted as the target of a link."""
    return Md(quote(path))


def environment() -> Environment:
    """The Jinja environment of Markdown reports; `inline` escapes every value."""
    templates = Environment(
        loader=PackageLoader("sandbox.viewer"),
        autoescape=False,  # it would escape HTML, not Markdown
        undefined=StrictUndefined,
        finalize=inline,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: list[Any] = [fence, word_diff, table, link_target, decimal, signed, integer, duration]
    templates.filters.update({function.__name__: function for function in filters})
    return templates
