"""Calls in the terminal: a table of calls, and one call with its exact prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agents.forms import READ
from sandbox.reading.calls import Call, CallDetail
from sandbox.reading.excerpts import excerpt
from sandbox.terminal.style import dash, plain, short, table
from sandbox.text import escape_controls
from storage.search import Term, terms


def call_table(rows: Sequence[Call], search: str | None = None) -> Table:
    """A table with a line for each call; columns without information are left out.

    Args:
        rows: the calls.
        search: what their replies contain: each is shown from there on.
    """
    searched = terms(search or "")
    cells_of = dict(_CELLS)
    if len({row.model for row in rows}) < 2:
        del cells_of["model"]
    columns = {title: [cell(row) for row in rows] for title, cell in cells_of.items()}
    shown = {title: cells for title, cells in columns.items() if title == "call" or any(cells)}
    calls = table(*shown, "reply", right=("call", "tokens", "cached"))
    calls.expand = True
    for column in calls.columns:
        column.no_wrap = True
    calls.columns[-1].ratio = 1
    calls.columns[-1].overflow = "ellipsis"
    for index, row in enumerate(rows):
        cells = [column[index] or dash() for column in shown.values()]
        calls.add_row(*cells, _reply(row, searched))
    return calls


def _status_cell(row: Call) -> Text:
    if row.status == "ok":
        return Text("ok, cut" if row.cut else "ok")
    return Text(row.status, style="yellow" if row.status in READ else "red")


def _tokens_cell(row: Call) -> Text:
    return Text(f"{row.tokens_in or 0}+{row.tokens_out or 0}")


def _cached_cell(row: Call) -> Text | None:
    return None if row.cached_tokens is None else Text(str(row.cached_tokens))


def _recalled_cell(row: Call) -> Text | None:
    if row.recalled is None:
        return None
    further = "".join(f", {memory}" for memory in row.further)
    return Text(f"{row.recalled} at {row.distance:.2f}{further}")


_CELLS: dict[str, Callable[[Call], Text | None]] = {
    "call": lambda row: Text(str(row.call)),
    "name": lambda row: plain(row.name),
    "model": lambda row: plain(PurePath(row.model).name),
    "status": _status_cell,
    "tokens": _tokens_cell,
    "cached": _cached_cell,
    "recalled": _recalled_cell,
}


def _reply(row: Call, searched: Sequence[Term]) -> Text:
    """The reply or the error, after the length of the reasoning and the expected rating."""
    parts = [] if row.raw is None else ["not wholly understood"]
    if row.thinking is not None:
        parts.append(f"{len(row.thinking.split()):,} words of thinking")
    if row.expected is not None:
        parts.append(f"expected {row.expected:.2f}")
    notes = Text(f"({', '.join(parts)}) " if parts else "", style="dim")
    said = row.reply if row.error is None else row.error
    found = excerpt(said or "", searched, 200)
    return notes + (short(said, 200) if found is None else plain(found))


def call_view(shown: CallDetail) -> RenderableType:
    """One call with its exact prompt."""
    hashed = "agrees" if shown.hash_agrees else "DOES NOT AGREE"
    facts = f"call {shown.call}  {shown.name}  seed {shown.seed}  model {shown.model}"
    reply = shown.error if shown.reply is None else shown.reply
    parts: list[RenderableType] = [
        plain(facts, "bold"),
        plain(_costs(shown), "dim"),
        Panel(plain(shown.system), title="system"),
        Panel(plain(shown.prompt), title=f"prompt (hash {shown.prompt_hash} {hashed})"),
    ]
    if shown.thinking is not None:
        parts.append(Panel(plain(shown.thinking), title="thinking"))
    parts.append(Panel(plain(reply), title=f"reply: {shown.status}"))
    if shown.raw is not None:
        title = "response, which was not wholly understood"
        parts.append(Panel(plain(escape_controls(shown.raw)), title=title))
    if shown.expected is not None:
        parts.append(plain(f"expected rating {shown.expected:.2f}"))
    return Group(*parts)


def _costs(shown: CallDetail) -> str:
    """Tokens and duration of a call."""
    cached = shown.cached_tokens
    share = "" if cached is None else f" ({cached:,} from the prefix cache)"
    tokens = f"{shown.tokens_in or 0:,} tokens in{share}, {shown.tokens_out or 0:,} out"
    return f"{tokens}, {shown.seconds:,.1f} s"
