"""The single writer of a run: rows are queued and committed in groups, in causal order."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Table, bindparam, delete, func, select, update
from sqlalchemy import text as sql

from storage import tables
from storage.bulk import Insert
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

_CLOSE_SECONDS = 5.0  # how long `close` waits for a transaction of another thread

_CACHED_TEXTS = 100_000  # texts whose ids are cached, so that they are stored once
_CACHED_FIRST = 20_000  # of these, the first texts of the run: forms, personas, questions

_refer = (
    update(tables.calls)
    .where(tables.calls.c.id == bindparam("key"))
    .values(memory_id=bindparam("memory"), distance=bindparam("near"), further=bindparam("others"))
)
_delete_calls = delete(tables.calls).where(tables.calls.c.id == bindparam("key"))


_TRANSACTION = sql(
    "SELECT CAST(txid_current() AS TEXT), set_config('enable_seqscan', 'off', TRUE), "
    "set_config('enable_hashjoin', 'off', TRUE), set_config('enable_mergejoin', 'off', TRUE), "
    "set_config('jit', 'off', TRUE)"
)
"""The number of the transaction; and within it, rows are looked up by their keys.

A commit reads the few rows that it has written. Until a server has analysed a new table, a minute
later at best, it would rather read tables from end to end.
"""
_STATUS = sql(
    "SELECT CASE WHEN CAST(:transaction AS BIGINT) < txid_snapshot_xmax(txid_current_snapshot()) "
    "THEN txid_status(CAST(:transaction AS BIGINT)) END"
)  # NULL: a server that crashed has forgotten it


class _Sent(NamedTuple):
    """A transaction.

    Attributes:
        call: the id of one of its calls; None: it has none.
        transaction: its number on a server. After a crash another one may have the same number.
    """

    call: int | None = None
    transaction: str | None = None


class _Queue:
    """What waits to be written.

    Attributes:
        rows: new rows, by table.
        complete: ids of episodes that are complete.
        deleted_calls, referring: values for `_delete_calls` and `_refer`.
    """

    def __init__(self) -> None:
        self.rows: dict[Table, list[Row]] = {table: [] for table in _ORDER}
        self.complete: list[int] = []
        self.deleted_calls: list[Row] = []
        self.referring: list[Row] = []

    def lists(self) -> Iterator[list[Any]]:
        """All of its lists."""
        yield from self.rows.values()
        yield self.complete
        yield self.deleted_calls
        yield self.referring

    def extend(self, later: _Queue) -> None:
        """Add what was queued later."""
        for items, more in zip(self.lists(), later.lists(), strict=True):
            items.extend(more)

    def __bool__(self) -> bool:
        return any(self.lists())


class Writer:
    """Queues rows of one run and commits them in groups.

    Assigns ids, counting up from the run's first id. Nothing is written before `commit`, and a row
    is never committed later than one that was queued after it. Rows that are queued without another
    coroutine in between are committed together.

    A group can be written by another thread, while the thread that queues rows goes on: `take`
    closes the group, in the thread that queues, and `write` writes it, in any thread.

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
        self._queue = _Queue()
        self._taken = _Queue()
        self._sent = _Queue()
        self._insert = {table: Insert(engine, table) for table in _ORDER}
        self._summaries = Summaries(engine, run_id)
        self._closed = False
        self._writing = threading.Lock()
        self._doubtful: _Sent | None = None
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
        self._queue.rows[tables.texts].append({"id": self.base + number, "text": text})
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
        self._queue.rows[table].append(row)

    def add_all(self, table: Table, rows: Sequence[Row]) -> None:
        """Queue rows for the next commit."""
        self._queue.rows[table].extend(rows)

    def mark_complete(self, episode_id: int) -> None:
        """Mark an episode as complete with the next commit: no more rows are written for it."""
        self._queue.complete.append(episode_id)

    def delete_call(self, call_id: int) -> None:
        """Delete a journalled call with the next commit, so that it is requested again."""
        self._queue.deleted_calls.append({"key": call_id})

    def refer(
        self, call_id: int, memory_id: int, distance: float | None, further: str | None
    ) -> None:
        """Store, with the next commit, which memories the prompt of a journalled call shows."""
        values = {"memory": memory_id, "near": distance, "others": further}
        self._queue.referring.append({"key": call_id, **values})

    def commit(self) -> None:
        """Write all queued rows in one transaction: `take` and `write`."""
        self.take()
        self.write()

    def take(self) -> None:
        """Close the group of queued rows, for `write`; no `write` may be under way."""
        queued, self._queue = self._queue, _Queue()
        self._taken.extend(queued)

    def write(self) -> None:
        """Write the rows that were taken, in one transaction.

        When the connection to a server was lost while a transaction was ended, the next call asks
        the server what became of it, so that no row is written twice.

        Raises:
            sqlalchemy.exc.DBAPIError: the transaction failed; the next call writes the same rows.
            StorageFault: the same; see `storage.errors`.
        """
        with self._writing:
            if self._closed:
                raise RuntimeError("the session has ended: nothing more is written")
            self._write_taken()

    def _write_taken(self) -> None:
        self._settle()
        self._sent.extend(self._taken)
        self._taken = _Queue()
        if not self._sent:
            return
        calls = self._sent.rows[tables.calls]
        sent = _Sent(calls[0]["id"] if calls else None)
        try:
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    sent = sent._replace(transaction=connection.scalar(_TRANSACTION))
                self._insert_all(connection, self._sent)
        except Unreachable:
            self._doubtful = sent
            raise
        self._sent = _Queue()

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
                self._sent = _Queue()
        self._doubtful = None

    def close(self) -> None:
        """Write all queued rows, and nothing more after that.

        A `write` that is under way in another thread has a few seconds to end.
        """
        ended = self._writing.acquire(timeout=_CLOSE_SECONDS)
        try:
            if ended:
                self.take()
                self._write_taken()
        finally:
            self._closed = True
            if ended:
                self._writing.release()

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
        queued, self._queue = self._queue, _Queue()
        self._insert_all(connection, queued)

    def _insert_all(self, connection: Connection, queue: _Queue) -> None:
        if queue.deleted_calls:
            for deleted in queue.deleted_calls:
                self._summaries.add_calls(connection, deleted["key"], deleted["key"], -1)
            connection.execute(_delete_calls, queue.deleted_calls)
        if queue.referring:
            connection.execute(_refer, queue.referring)
        for table, rows in queue.rows.items():
            if rows:
                self._insert[table](connection, rows)
        calls = queue.rows[tables.calls]
        if calls:
            self._summaries.add_calls(connection, calls[0]["id"], calls[-1]["id"])
        if queue.complete:
            self._summaries.complete_episodes(connection, queue.complete)
