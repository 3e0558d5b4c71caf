"""Downloads of filtered rows: CSV for spreadsheets, JSON Lines for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from agents.scale import Declaration
from sandbox.datasets.formats.exchanges import columns, exchange_row
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import Origin, SourcedExchange, with_asides
from sandbox.reading.agents import TREND_ORDERS, agent_measures, agents, read_agent
from sandbox.reading.calls import stream_calls
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import stream_exchanges
from sandbox.reading.memory import internal_memory
from sandbox.reading.raters import RaterRow, raters, sorted_raters
from sandbox.viewer.addresses import Query
from sandbox.viewer.queries import (
    agent_order,
    agent_trend,
    call_filter,
    exchange_filter,
    memory_origin,
    rater_order,
)
from storage.errors import InputError
from storage.reader import Reader

Row = Mapping[str, Any]

TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}

_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(rows: Iterable[Row], kind: str, columns: Sequence[str]) -> Iterator[str]:
    """Serialize rows as the lines of a file.

    Numbers have at most 12 significant digits, so that 0.6 is not written as 0.6000000000000005.
    CSV always has a header, nested values are JSON, and a text that a spreadsheet would interpret
    as a formula is prefixed with an apostrophe.

    Args:
        rows: the rows.
        kind: one of `TYPES`.
        columns: the columns of the CSV header, in order.
    """
    if kind == "jsonl":
        for row in rows:
            yield json.dumps(_shortened(row), ensure_ascii=False, default=str) + "\n"
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(columns)
    yield buffer.getvalue()
    for row in rows:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([csv_cell(row[column]) for column in columns])
        yield buffer.getvalue()


def csv_cell(value: Any) -> Any:
    """A value as a CSV cell, safe from formula injection."""
    value = _shortened(value)
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, str) and value.startswith(_FORMULA_PREFIXES):
        return f"'{value}"
    return value


def _shortened(value: Any) -> Any:
    """A value, and what is nested in it, with floats rounded to `_DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: _shortened(part) for name, part in value.items()}
    return [_shortened(part) for part in value] if isinstance(value, list | tuple) else value


_DIGITS = 12


def _exchange_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """The filtered exchanges, as rows of the format `exchanges`."""
    with reader.engine.connect() as connection:
        origin = Origin.single(reader, connection)
        schema = Schema([origin.schema])
        found = stream_exchanges(reader, exchange_filter(query, declaration_of(reader)))
        sourced = (SourcedExchange(origin, 0, exchange, {}) for exchange in found)
        for one in with_asides(sourced):
            yield exchange_row(one, schema)


def _agent_columns(declared: Declaration) -> list[str]:
    return [
        "agent",
        "label",
        "name",
        "age",
        "place",
        "occupation",
        "mean_rating",
        *(measure.name for measure in agent_measures(declared)),
        "failed",
        "episodes",
        "mean_given",
        "deviation",
        "missing",
        "given",
        "memories",
        *TREND_ORDERS,
    ]


def _agent_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """The filtered agents."""
    declared = declaration_of(reader)
    order, columns = agent_order(query, declared), _agent_columns(declared)
    trend = agent_trend(query, declared)
    for agent in agents(reader, query.text("q"), query.text("label"), order, trend):
        row = {
            **dict.fromkeys(TREND_ORDERS),
            **({} if agent.trend is None else agent.trend.as_dict()),
            **agent.as_dict(),
            **agent.measures,
            "episodes": agent.episodes,
            "failed": agent.failed,
            "mean_given": agent.given.mean,
            "deviation": agent.given.deviation,
            "missing": agent.given.missing,
            "given": agent.given.ratings,
        }
        yield {column: row[column] for column in columns}


def _memory_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """The filtered internal memory of the agent with the number `agent`, newest first.

    Raises:
        InputError: the parameter is missing, or there is no such agent.
    """
    number = query.number("agent")
    if number is None:
        raise InputError("agent: found nothing; expected the number of an agent")
    read_agent(reader, number)
    round, origin = query.number("round"), memory_origin(query)
    for memory in internal_memory(reader, number, round, query.text("q"), origin):
        yield memory.as_dict()


_CALL_COLUMNS = (
    "call",
    "episode",
    "round",
    "name",
    "form",
    "agent",
    "turn",
    "attempt",
    "model",
    "status",
    "cut",
    "error",
    "reply",
    "thinking",
    "raw",
    "tokens_in",
    "tokens_out",
    "cached_tokens",
    "seconds",
    "prompt",
)


def _call_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """The filtered calls with their texts, newest first."""
    for call in stream_calls(reader, call_filter(query)):
        yield {column: getattr(call, column) for column in _CALL_COLUMNS}


def _rater_rows(reader: Reader, query: Query) -> Iterator[Row]:
    """All raters, in the order of the table."""
    for row in sorted_raters(raters(reader), rater_order(query)):
        yield row.as_dict()


_RATER_COLUMNS = tuple(field.name for field in fields(RaterRow))


def _exchange_columns(reader: Reader) -> tuple[str, ...]:
    with reader.engine.connect() as connection:
        schema = Schema([Origin.single(reader, connection).schema])
    return tuple(columns(schema))


class Download(NamedTuple):
    """A table of a run that can be downloaded: its columns, and the rows that a query selects."""

    columns: Callable[[Reader], Sequence[str]]
    rows: Callable[[Reader, Query], Iterator[Row]]


_MEMORY_COLUMNS = ("memory", "round", "episode", "question", "answer", "was")

DOWNLOADS: Mapping[str, Download] = {
    "exchanges": Download(_exchange_columns, _exchange_rows),
    "agents": Download(lambda reader: _agent_columns(declaration_of(reader)), _agent_rows),
    "memories": Download(lambda reader: _MEMORY_COLUMNS, _memory_rows),
    "raters": Download(lambda reader: _RATER_COLUMNS, _rater_rows),
    "calls": Download(lambda reader: _CALL_COLUMNS, _call_rows),
}
"""The downloadable tables, by file name without suffix."""
