"""The single writer of a run: rows are queued and committed in groups, in causal order."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, bindparam, delete, func, insert, select, update

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
"""Insert order: referenced tables first."""

_CACHED_TEXTS = 100_000  # texts whose ids are cached, so that they are stored once
_CACHED_FIRST = 20_000  # of these, the first texts of the run: forms, personas, questions

_refer = (
    update(tables.calls)
    .where(tables.calls.c.id == bindparam("key"))
    .values(memory_id=bindparam("memory"), distance=bindparam("near"))
)
_delete_calls = delete(tables.calls).where(tables.calls.c.id == bindparam("key"))


def _insert_statement(engine: Engine, table: Table) -> str:
    """Compile an INSERT for the driver; every row must have every column.

    Summary columns are left out: `Summaries` fills them.
    """
    columns = [column.name for column in table.c if column.info != tables.SUMMARY]
    return str(insert(table).compile(engine, column_keys=columns))


class Writer:
    """Queues rows of one run and commits them in groups.

    Assigns ids, counting up from the run's first id. Nothing is written before `commit`, and a row
    is never committed later than one that was queued after it.

    Args:
        engine: the database.
        run_id: the run to write.

    Attributes:
        base: the first id of the run's rows.
    """

    def __init__(self, engine: Engine, run_id: int) -> None:
        self.run_id = run_id
        self.base = first_id(run_id)
        self._engine = engine
        self._queue: dict[Table, list[Row]] = {table: [] for table in _ORDER}
        self._insert = {table: _insert_statement(engine, table) for table in _ORDER}
        self._summaries = Summaries(engine, run_id)
        self._file_checked = 0.0
        self._closed = False
        self._complete: list[int] = []
        self._deleted_calls: list[Row] = []
        self._referring: list[Row] = []
        self._text_ids: OrderedDict[str, int] = OrderedDict()
        self._next = dict.fromkeys((tables.texts, tables.calls, tables.memories), 0)

    def open(self) -> None:
        """Read the last ids of the run, and cache the texts that are likely to be used again."""
        with self._engine.connect() as connection:
            for table in self._next:
                self._next[table] = self._last(connection, table) + 1
            self._load_texts(connection)

    def _last(self, connection: Connection, table: Table) -> int:
        column = table.c.id
        of_this_run = column.between(self.base, first_id(self.run_id + 1) - 1)
        last = connection.scalar(select(func.max(column)).where(of_this_run))
        return -1 if last is None else int(last) - self.base

    def _load_texts(self, connection: Connection) -> None:
        column = tables.texts.c.id
        end = self.base + self._next[tables.texts]
        recent = max(self.base + _CACHED_FIRST, end - (_CACHED_TEXTS - _CACHED_FIRST))
        for low, high in ((self.base, self.base + _CACHED_FIRST), (recent, end)):
            rows = connection.execute(select(tables.texts).where(column >= low, column < high))
            for row in rows:
                self._text_ids[row.text] = row.id - self.base

    def new_id(self, table: Table) -> int:
        """Assign the next id of a table (texts, calls, memories), counted from the run's first."""
        number = self._next[table]
        self._next[table] = number + 1
        return number

    def text(self, text: str) -> int:
        """The number of a text within the run; queues the text unless it is cached."""
        number = self._text_ids.get(text)
        if number is not None:
            self._text_ids.move_to_end(text)
            return number
        number = self.new_id(tables.texts)
        self._queue[tables.texts].append({"id": self.base + number, "text": text})
        self.cache_text(text, number)
        return number

    def cache_text(self, text: str, number: int) -> None:
        """Cache the number of a text that is stored already."""
        self._text_ids[text] = number
        if len(self._text_ids) > _CACHED_TEXTS:
            self._text_ids.popitem(last=False)

    def text_list(self, texts: Iterable[str]) -> str:
        """Store texts; returns their numbers in the format of the columns `prompt` and `reply`."""
        cached, use = self._text_ids.get, self._text_ids.move_to_end
        numbers = []
        for text in texts:
            number = cached(text)
            if number is None:
                number = self.text(text)
            else:
                use(text)
            numbers.append(str(number))
        return ",".join(numbers)

    def add(self, table: Table, row: Row) -> None:
        """Queue a row for the next commit."""
        self._queue[table].append(row)

    def add_all(self, table: Table, rows: Sequence[Row]) -> None:
        """Queue rows for the next commit."""
        self._queue[table].extend(rows)

    def mark_complete(self, episode_id: int) -> None:
        """Mark an episode as complete with the next commit: no more rows are written for it."""
        self._complete.append(episode_id)

    def delete_call(self, call_id: int) -> None:
        """Delete a journalled call with the next commit, so that it is requested again."""
        self._deleted_calls.append({"key": call_id})

    def refer(self, call_id: int, memory_id: int, distance: float | None) -> None:
        """Store, with the next commit, which memory the prompt of a journalled call shows."""
        self._referring.append({"key": call_id, "memory": memory_id, "near": distance})

    def commit(self) -> None:
        """Write all queued rows in one transaction.

        Raises:
            sqlalchemy.exc.DBAPIError: the transaction failed; the rows are still queued.
            FileNotFoundError: the database file was deleted or moved.
        """
        if self._closed:
            raise RuntimeError("the session has ended: nothing more is written")
        self._check_file_exists()
        with self._engine.begin() as connection:
            self._write(connection)
        self._clear()

    def _check_file_exists(self) -> None:
        """Check once a second: SQLite goes on writing to a deleted file, and all of it is lost."""
        path = self._engine.url.database
        if self._engine.dialect.name != "sqlite" or time.monotonic() < self._file_checked + 1:
            return
        self._file_checked = time.monotonic()
        if not os.path.exists(str(path)):
            raise FileNotFoundError(f"{path} is gone")

    def close(self) -> None:
        """Write all queued rows, and nothing more after that."""
        try:
            if any(self._queue.values()):
                self.commit()
        finally:
            self._closed = True

    def store_waiting(self, waiting: str | None) -> None:
        """Store what the latest session waits for, at once; None: nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: the transaction failed.
        """
        s = tables.sessions
        latest = select(func.max(s.c.number)).where(s.c.run_id == self.run_id).scalar_subquery()
        of_session = (s.c.run_id == self.run_id, s.c.number == latest)
        with self._engine.begin() as connection:
            connection.execute(update(s).where(*of_session).values(waiting=waiting))

    def flush(self, connection: Connection) -> None:
        """Write all queued rows within a transaction of the caller."""
        self._write(connection)
        self._clear()

    def _write(self, connection: Connection) -> None:
        if self._deleted_calls:
            for deleted in self._deleted_calls:
                self._summaries.add_calls(connection, deleted["key"], deleted["key"], -1)
            connection.execute(_delete_calls, self._deleted_calls)
        if self._referring:
            connection.execute(_refer, self._referring)
        for table, rows in self._queue.items():
            if rows:
                connection.exec_driver_sql(self._insert[table], rows)
        calls = self._queue[tables.calls]
        if calls:
            self._summaries.add_calls(connection, calls[0]["id"], calls[-1]["id"])
        if self._complete:
            self._summaries.complete_episodes(connection, self._complete)

    def _clear(self) -> None:
        for rows in self._queue.values():
            rows.clear()
        self._complete.clear()
        self._deleted_calls.clear()
        self._referring.clear()
