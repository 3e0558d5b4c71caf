"""What a filter shows, to take away: CSV for spreadsheets, JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sandbox.datasets.formats.exchanges import columns, exchange_row
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import Origin, SourcedExchange
from sandbox.reading import views
from sandbox.viewer import listing, people
from sandbox.viewer.addresses import Query
from storage.errors import InputError
from storage.reader import Reader

Row = Mapping[str, Any]

TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(rows: Iterable[Row], kind: str, columns: Sequence[str]) -> Iterator[str]:
    """Rows as the lines of a file.

    In CSV the first line names the columns, also where no row follows; what is nested is JSON, and
    a text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    if kind == "jsonl":
        yield from (json.dumps(dict(row), ensure_ascii=False, default=str) + "\n" for row in rows)
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(columns)
    yield buffer.getvalue()
    for row in rows:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([cell(row[column]) for column in columns])
        yield buffer.getvalue()


def cell(value: Any) -> Any:
    """A value as a spreadsheet may have it."""
    if isinstance(value, dict | list | tuple):
        value = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def exchanges(reader: Reader, query: Query) -> Iterator[Row]:
    """The exchanges that an address asks for, as rows of the format `exchanges`."""
    with reader.engine.connect() as connection:
        origin = Origin.single(reader, connection)
    schema = Schema([origin.schema])
    for one in listing.exported(reader, query):
        yield exchange_row(SourcedExchange(origin, 0, one, {}), schema)


def agents(reader: Reader, query: Query) -> Iterator[Row]:
    """The agents that an address asks for."""
    yield from people.agent_rows(reader, query)


def memories(reader: Reader, query: Query) -> Iterator[Row]:
    """What an agent believes, the latest first, as its page is filtered; `agent` is its number.

    Raises:
        InputError: there is no such agent, or no number.
    """
    number = query.number("agent")
    if number is None:
        raise InputError("agent: found none; expected the number of an agent")
    people.one(reader, number)
    yield from people.believed(reader, number, query)


def calls(reader: Reader, query: Query) -> Iterator[Row]:
    """The calls that an address asks for, the latest first, with their replies."""
    values = {key: value for key, value in query.values.items() if key not in ("before", "after")}
    while True:
        found = listing.call_stretch(reader, Query(values))
        by_number = {
            call.call_id - reader.base: call
            for some in reader.calls_of(sorted({row["episode"] for row in found.rows})).values()
            for call in some
        }
        for row in found.rows:
            yield _call(reader, by_number[row["call"]], row)
        if found.before is None:
            return
        values["before"] = str(found.before)


_CALLS = (
    *("call", "episode", "round", "name", "form", "agent", "turn", "attempt", "model"),
    *("status", "cut", "error", "reply", "thinking", "tokens_in", "tokens_out", "cached_tokens"),
    *("seconds", "prompt"),
)


def _call(reader: Reader, call: Any, row: Row) -> Row:
    """A call with the columns of `_CALLS`."""
    return {
        **{"call": row["call"], "episode": row["episode"], "round": row["round"]},
        "name": views.call_name(reader, call, row["episode"]),
        **{key: getattr(call, key) for key in ("form", "agent", "turn", "attempt", "model")},
        **{key: getattr(call, key) for key in ("status", "cut", "error", "reply", "thinking")},
        **{key: getattr(call, key) for key in ("tokens_in", "tokens_out", "cached_tokens")},
        "seconds": call.took / 1000,
        "prompt": call.prompt,
    }


_MEMORIES = ("memory", "round", "episode", "question", "answer", "was")


def _exchange_columns(reader: Reader) -> tuple[str, ...]:
    with reader.engine.connect() as connection:
        schema = Schema([Origin.single(reader, connection).schema])
    return tuple(columns(schema))


class Kind(NamedTuple):
    """A table of a run that can be downloaded: its columns, and the rows that a query selects."""

    columns: Callable[[Reader], Sequence[str]]
    rows: Callable[[Reader, Query], Iterator[Row]]


KINDS: Mapping[str, Kind] = {
    "exchanges": Kind(_exchange_columns, exchanges),
    "agents": Kind(lambda reader: people.COLUMNS, agents),
    "memories": Kind(lambda reader: _MEMORIES, memories),
    "calls": Kind(lambda reader: _CALLS, calls),
}
"""By the name of the file."""
