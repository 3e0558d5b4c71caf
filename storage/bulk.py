"""Insert many rows at once, as each kind of database does it fastest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, Table, event

from storage import tables

Row = dict[str, Any]

_SIZES = (256, 64, 16, 4, 1)
"""Rows of one INSERT: few different statements, which SQLite keeps compiled."""


class Insert:
    """Inserts rows into a table: INSERT of many rows in SQLite, COPY in PostgreSQL.

    Every row must have every column, but for summary columns: `storage.summaries` fills them.

    Args:
        engine: the database.
        table: the table.
    """

    def __init__(self, engine: Engine, table: Table) -> None:
        columns = [column.name for column in table.c if column.info != tables.SUMMARY]
        names = f"{table.name} ({', '.join(columns)})"
        row = f"({', '.join('?' * len(columns))})"
        self._values = itemgetter(*columns)
        self._copy = f"COPY {names} FROM STDIN" if engine.dialect.name == "postgresql" else None
        self._inserts = [
            (size, f"INSERT INTO {names} VALUES {', '.join([row] * size)}") for size in _SIZES
        ]

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Insert rows in a transaction."""
        values = [self._values(row) for row in rows]
        if self._copy is not None:
            connection.exec_driver_sql(self._copy, values)
            return
        start = 0
        for size, statement in self._inserts:
            while start + size <= len(values):
                group = values[start : start + size]
                connection.exec_driver_sql(statement, tuple(chain.from_iterable(group)))
                start += size


def copy_rows(engine: Engine) -> None:
    """Let an engine of PostgreSQL execute ``COPY ... FROM STDIN``, with rows as its parameters.

    It passes through SQLAlchemy as any other statement, so errors are those of any other one.
    """
    event.listen(engine, "do_execute", _copied_row)
    event.listen(engine, "do_executemany", _copied)


def _copied_row(cursor: Any, statement: str, row: Any, context: Any) -> bool:
    return _copied(cursor, statement, [row], context)


def _copied(cursor: Any, statement: str, rows: Sequence[Any], _context: Any) -> bool:
    """Whether a statement was executed here."""
    if not statement.startswith("COPY "):
        return False
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
    return True
