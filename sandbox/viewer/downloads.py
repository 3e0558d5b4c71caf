"""What a filter shows, to take away: CSV for spreadsheets, JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agents.scale import Declaration
from sandbox.datasets.formats.exchanges import columns, exchange_row
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import Origin, SourcedExchange
from sandbox.reading.agents import agent_measures, agents, read_agent
from sandbox.reading.calls import stream_calls
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import stream_exchanges
from sandbox.reading.memory import internal_memory
from sandbox.viewer.addresses import Query
from sandbox.viewer.queries import agent_order, call_filter, exchange_filter, memory_origin
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


def _exchange_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """The exchanges that an address asks for, as rows of the format `exchanges`."""
    with reader.engine.connect() as connection:
        origin = Origin.single(reader, connection)
    schema = Schema([origin.schema])
    for one in stream_exchanges(reader, exchange_filter(query, declaration_of(reader))):
        yield exchange_row(SourcedExchange(origin, 0, one, {}), schema)


def _agent_columns(declared: Declaration) -> list[str]:
    return [
        *("agent", "label", "name", "age", "place", "occupation", "mean_rating"),
        *(one.name for one in agent_measures(declared)),
        *("failed", "episodes", "mean_given", "deviation", "missing", "given", "memories"),
    ]


def _agent_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """The agents that an address asks for."""
    declared = declaration_of(reader)
    order, columns = agent_order(query, declared), _agent_columns(declared)
    for one in agents(reader, query.text("q"), query.text("label"), order):
        row = {
            **one.as_dict(),
            **one.measures,
            "episodes": one.episodes,
            "failed": one.failed,
            "mean_given": one.given.mean,
            "deviation": one.given.deviation,
            "missing": one.given.missing,
            "given": one.given.ratings,
        }
        yield {column: row[column] for column in columns}


def _memory_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """What an agent believes, the latest first, as its page is filtered; `agent` is its number.

    Raises:
        InputError: there is no such agent, or no number.
    """
    number = query.number("agent")
    if number is None:
        raise InputError("agent: found none; expected the number of an agent")
    read_agent(reader, number)
    round, origin = query.number("round"), memory_origin(query)
    for one in internal_memory(reader, number, round, query.text("q"), origin):
        yield one.as_dict()


_CALLS = (
    *("call", "episode", "round", "name", "form", "agent", "turn", "attempt", "model"),
    *("status", "cut", "error", "reply", "thinking", "tokens_in", "tokens_out", "cached_tokens"),
    *("seconds", "prompt"),
)


def _call_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """The calls that an address asks for, the latest first, with their texts."""
    for one in stream_calls(reader, call_filter(query)):
        yield {column: getattr(one, column) for column in _CALLS}


def _exchange_columns(reader: Reader) -> tuple[str, ...]:
    with reader.engine.connect() as connection:
        schema = Schema([Origin.single(reader, connection).schema])
    return tuple(columns(schema))


class Kind(NamedTuple):
    """A table of a run that can be downloaded: its columns, and the rows that a query selects."""

    columns: Callable[[Reader], Sequence[str]]
    rows: Callable[[Reader, Query], Iterator[Row]]


_MEMORIES = ("memory", "round", "episode", "question", "answer", "was")

KINDS: Mapping[str, Kind] = {
    "exchanges": Kind(_exchange_columns, _exchange_rows),
    "agents": Kind(lambda reader: _agent_columns(declaration_of(reader)), _agent_rows),
    "memories": Kind(lambda reader: _MEMORIES, _memory_rows),
    "calls": Kind(lambda reader: _CALLS, _call_rows),
}
"""By the name of the file."""
