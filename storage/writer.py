"""The one writer of a run: rows wait here and are committed in groups, in causal order."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, bindparam, delete, func, insert, select

from storage import tables
from storage.summaries import Summaries
from storage.tables import first_id

Row = dict[str, Any]

_ORDER = (
    tables.texts,
    tables.questions,
    tables.agents,
    tables.calls,
    tables.episodes,
    tables.stage_texts,
    tables.memories,
    tables.ratings,
    tables.observations,
    tables.parts,
    tables.acts,
    tables.notes,
)
"""Referred tables first. All rows of a group become visible at once."""

_REMEMBERED = 100_000  # texts whose ids are at hand, so that they are stored once
_STATIC = 20_000  # of these, the first ones of the run: forms, personas, questions

_delete_calls = delete(tables.calls).where(tables.calls.c.id == bindparam("key"))


def _insert_statement(engine: Engine, table: Table) -> str:
    """The driver's own statement, which takes rows as they are: every row has every column.

    What sums up other rows is left to `Summaries`.
    """
    columns = [column.name for column in table.c if column.info != tables.SUMMARY]
    return str(insert(table).compile(engine, column_keys=columns))


class Writer:
    """Collects rows of one run and commits them in groups.

    Ids are handed out here, counting up from the run's first id. Nothing is written before
    `commit`; what was handed over before another row is committed before it or together with it.
    """

    def __init__(self, engine: Engine, run_id: int) -> None:
        self.run_id = run_id
        self.base = first_id(run_id)
        self._engine = engine
        self._waiting: dict[Table, list[Row]] = {table: [] for table in _ORDER}
        self._insert = {table: _insert_statement(engine, table) for table in _ORDER}
        self._summaries = Summaries(engine, run_id)
        self._looked = 0.0
        self._observed: list[int] = []
        self._deleted_calls: list[Row] = []
        self._text_ids: OrderedDict[str, int] = OrderedDict()
        self._next = dict.fromkeys((tables.texts, tables.calls, tables.memories), 0)

    def open(self) -> None:
        """Read where the run's ids have got to, and the texts that are most likely to return."""
        with self._engine.connect() as connection:
            for table in self._next:
                self._next[table] = self._last(connection, table) + 1
            self._load_texts(connection)

    def _last(self, connection: Connection, table: Table) -> int:
        column = table.c.id
        mine = column.between(self.base, first_id(self.run_id + 1) - 1)
        last = connection.scalar(select(func.max(column)).where(mine))
        return -1 if last is None else int(last) - self.base

    def _load_texts(self, connection: Connection) -> None:
        column = tables.texts.c.id
        end = self.base + self._next[tables.texts]
        recent = max(self.base + _STATIC, end - (_REMEMBERED - _STATIC))
        for low, high in ((self.base, self.base + _STATIC), (recent, end)):
            rows = connection.execute(select(tables.texts).where(column >= low, column < high))
            for row in rows:
                self._text_ids[row.text] = row.id - self.base

    def new_id(self, table: Table) -> int:
        """The next id of a table (texts, calls or memories), counted from the run's first."""
        number = self._next[table]
        self._next[table] = number + 1
        return number

    def text(self, text: str) -> int:
        """The number of a text within the run; it is stored if it is not known."""
        number = self._text_ids.get(text)
        if number is not None:
            self._text_ids.move_to_end(text)
            return number
        number = self.new_id(tables.texts)
        self._waiting[tables.texts].append({"id": self.base + number, "text": text})
        self.known(text, number)
        return number

    def known(self, text: str, number: int) -> None:
        """Tell that a text is already stored under this number."""
        self._text_ids[text] = number
        if len(self._text_ids) > _REMEMBERED:
            self._text_ids.popitem(last=False)

    def text_list(self, texts: Iterable[str]) -> str:
        """Store texts in order; returns their numbers as the columns `prompt` and `reply` do."""
        return ",".join([str(self.text(text)) for text in texts])

    def add(self, table: Table, row: Row) -> None:
        """Hand over a row, to be committed with the next group."""
        self._waiting[table].append(row)

    def add_all(self, table: Table, rows: Sequence[Row]) -> None:
        """Hand over rows, to be committed with the next group."""
        self._waiting[table].extend(rows)

    def observed(self, episode_id: int) -> None:
        """Mark an episode as complete: nothing more will be written about it."""
        self._observed.append(episode_id)

    def delete_call(self, call_id: int) -> None:
        """Delete a journalled call so that it is requested again."""
        self._deleted_calls.append({"key": call_id})

    def commit(self) -> None:
        """Write everything that was handed over, in one transaction.

        Raises:
            sqlalchemy.exc.DBAPIError: it could not be written; everything is still waiting here.
            FileNotFoundError: the database file is no longer where it was.
        """
        self._look_after_file()
        with self._engine.begin() as connection:
            self._write(connection)
        self._clear()

    def _look_after_file(self) -> None:
        """A file that is deleted or moved away can be written to for hours, and all is lost."""
        place = self._engine.url.database
        if self._engine.dialect.name != "sqlite" or time.monotonic() < self._looked + 1:
            return
        self._looked = time.monotonic()
        if not os.path.exists(str(place)):
            raise FileNotFoundError(f"{place} is gone")

    def flush(self, connection: Connection) -> None:
        """Write everything that was handed over, within a transaction of the caller's."""
        self._write(connection)
        self._clear()

    def _write(self, connection: Connection) -> None:
        if self._deleted_calls:
            for deleted in self._deleted_calls:
                self._summaries.calls(connection, deleted["key"], deleted["key"], -1)
            connection.execute(_delete_calls, self._deleted_calls)
        for table, rows in self._waiting.items():
            if rows:
                connection.exec_driver_sql(self._insert[table], rows)
        calls = self._waiting[tables.calls]
        if calls:
            self._summaries.calls(connection, calls[0]["id"], calls[-1]["id"])
        if self._observed:
            self._summaries.episodes(connection, self._observed)

    def _clear(self) -> None:
        for rows in self._waiting.values():
            rows.clear()
        self._observed.clear()
        self._deleted_calls.clear()
