"""The single writer of a run: rows are queued and committed in groups, in causal order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Table, bindparam, delete, func, insert, select, update
from sqlalchemy import text as sql

from storage import tables
from storage.errors import Unreachable
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
    tables.utterances,
    tables.verdicts,
    tables.breaches,
    tables.overruled,
)
"""Insert order: referenced tables first."""

_CACHED_TEXTS = 100_000  # texts whose ids are cached, so that they are stored once
_CACHED_FIRST = 20_000  # of these, the first texts of the run: forms, personas, questions

_refer = (
    update(tables.calls)
    .where(tables.calls.c.id == bindparam("key"))
    .values(memory_id=bindparam("memory"), distance=bindparam("near"), further=bindparam("others"))
)
_delete_calls = delete(tables.calls).where(tables.calls.c.id == bindparam("key"))


def _insert_statement(engine: Engine, table: Table) -> str:
    """Compile an INSERT for the driver; every row must have every column.

    Summary columns are left out: `Summaries` fills them.
    """
    columns = [column.name for column in table.c if column.info != tables.SUMMARY]
    return str(insert(table).compile(engine, column_keys=columns))


_TRANSACTION = sql("SELECT CAST(txid_current() AS TEXT)")
_STATUS = sql(
    "SELECT CASE WHEN CAST(:transaction AS BIGINT) < txid_snapshot_xmax(txid_current_snapshot()) "
    "THEN txid_status(CAST(:transaction AS BIGINT)) END"
)  # NULL: a server that crashed has forgotten it


class _Sent(NamedTuple):
    """What a transaction writes.

    Attributes:
        lengths: those of the queues when it began.
        call: the id of one of its calls; None: it has none.
        transaction: its number on a server. After a crash another one may have the same number.
    """

    lengths: list[int]
    call: int | None = None
    transaction: str | None = None


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
        self._closed = False
        self._doubtful: _Sent | None = None
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

    def refer(
        self, call_id: int, memory_id: int, distance: float | None, further: str | None
    ) -> None:
        """Store, with the next commit, which memories the prompt of a journalled call shows."""
        values = {"memory": memory_id, "near": distance, "others": further}
        self._referring.append({"key": call_id, **values})

    def commit(self) -> None:
        """Write all queued rows in one transaction.

        When the connection to a server was lost while a transaction was ended, the next commit asks
        the server what became of it, so that no row is written twice.

        Raises:
            sqlalchemy.exc.DBAPIError: the transaction failed; the rows are still queued.
            StorageFault: the same; see `storage.errors`.
        """
        if self._closed:
            raise RuntimeError("the session has ended: nothing more is written")
        self._settle()
        calls = self._queue[tables.calls]
        sent = _Sent(self._lengths(), calls[0]["id"] if calls else None)
        try:
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    sent = sent._replace(transaction=connection.scalar(_TRANSACTION))
                self._write(connection)
        except Unreachable:
            self._doubtful = sent
            raise
        self._forget(sent)

    def _settle(self) -> None:
        """Forget the rows of a transaction whose end is unknown, if it was committed after all."""
        doubtful = self._doubtful
        if doubtful is not None and doubtful.transaction is not None:
            with self._engine.connect() as connection:
                values = {"transaction": doubtful.transaction}
                status = connection.scalar(_STATUS, values)
                c, found = tables.calls, doubtful.call
                if found is not None:
                    found = connection.scalar(select(c.c.id).where(c.c.id == found))
            if status == "in progress":
                raise Unreachable("the server has not ended the former transaction yet")
            if status == "committed" and found == doubtful.call:
                self._forget(doubtful)
        self._doubtful = None

    def _lengths(self) -> list[int]:
        return [len(rows) for rows in self._rows()]

    def _rows(self) -> Iterator[list[Any]]:
        """All lists of what waits to be written."""
        yield from self._queue.values()
        yield self._complete
        yield self._deleted_calls
        yield self._referring

    def _forget(self, sent: _Sent) -> None:
        """Remove what was written; rows that were queued afterwards stay."""
        for rows, length in zip(self._rows(), sent.lengths, strict=True):
            del rows[:length]

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
            StorageFault: the same.
        """
        self._store_in_session(waiting=waiting)

    def store_environment(self, environment: str) -> None:
        """Store what the latest session is played with, as JSON, at once.

        Raises:
            sqlalchemy.exc.DBAPIError: the transaction failed.
            StorageFault: the same.
        """
        self._store_in_session(environment=environment)

    def _store_in_session(self, **values: str | None) -> None:
        s = tables.sessions
        latest = select(func.max(s.c.number)).where(s.c.run_id == self.run_id).scalar_subquery()
        of_session = (s.c.run_id == self.run_id, s.c.number == latest)
        with self._engine.begin() as connection:
            connection.execute(update(s).where(*of_session).values(**values))

    def flush(self, connection: Connection) -> None:
        """Write all queued rows within a transaction of the caller."""
        self._write(connection)
        self._forget(_Sent(self._lengths()))

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
