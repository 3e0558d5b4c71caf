"""Copying a run's start, or its first rounds, into another database or into the same one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, func, insert, select

from storage import tables
from storage.reader import Reader, text_numbers
from storage.summaries import summarise
from storage.tables import first_id
from storage.writer import Writer

Row = dict[str, Any]

_BATCH = 2000
_BEFORE_ALL = -1  # the round of prior memories

_TEXT_IDS = (
    "text_id",
    "reason_id",
    "name_id",
    "about_id",
    "why_id",
    "critique_id",
)
_IDS = ("id", "question_id", "episode_id", "call_id", "memory_id", *_TEXT_IDS)


def forked_from(reader: Reader) -> Row | None:
    """The column `origin` of a fork, parsed; None for any other run."""
    if reader.run.origin is None:
        return None
    found: Row = json.loads(reader.run.origin)["forked_from"]
    return found


def copy_start(source: Reader, target: Engine) -> None:
    """Copy the run itself and what was there before its first call, in one transaction.

    That is its forms, models, agents, questions and prior memories; of a fork also the rounds that
    it took over. Ids of its rows stay as they are, so `target` must not hold the run yet.
    """
    origin = forked_from(source)
    with target.begin() as connection:
        connection.execute(insert(tables.runs), dict(source.run._mapping))
        last = _BEFORE_ALL if origin is None else int(origin["round"])
        copy_rounds(source, connection, source.run.id, last)


def copy_rounds(source: Reader, connection: Connection, run_id: int, last: int) -> None:
    """Copy a run as it was after a round, into a run whose own row is there already.

    Rows are streamed: what is kept in memory is one byte for each text of the source. Only texts
    that the copied rows use are copied. All episodes of the rounds must be complete.

    Args:
        source: the run to copy from; of its database a connection of its own is used.
        connection: a transaction of the database to copy to.
        run_id: the run to copy to; ids are shifted by the distance of the runs' first ids.
        last: the last round to copy; -1 copies what was there before the first call.
    """
    copier = _Copier(source, connection, run_id)
    q, m, a = tables.questions, tables.memories, tables.agents
    copier.copy(a, select(a).where(a.c.run_id == source.run.id).order_by(a.c.number))
    copier.copy(q, select(q).where(source.mine(q.c.id)).order_by(q.c.id))
    c, e, r, o = tables.calls, tables.episodes, tables.ratings, tables.observations
    end = source.base + (last + 1) * source.run.per_round - 1
    s = tables.stage_texts
    for table, column, order in (
        (e, e.c.id, ()),
        (s, s.c.episode_id, (s.c.stage,)),
        (c, c.c.episode_id, (c.c.id,)),
        (r, r.c.episode_id, (r.c.rater,)),
        (o, o.c.episode_id, (o.c.stage, o.c.scale, o.c.agent, o.c.other)),
        *((one, one.c.episode_id, (one.c.number,)) for one in _OF_SCENES),
    ):
        query = select(table).where(column.between(source.base, end))
        copier.copy(table, query.order_by(column, *order))
    copier.copy(m, select(m).where(source.mine(m.c.id), m.c.round <= last).order_by(m.c.id))
    summarise(connection, run_id)


_OF_SCENES = (tables.parts, tables.acts, tables.notes)


class _Copier:
    """Moves rows of one run to another, and before them the texts that they use."""

    def __init__(self, source: Reader, connection: Connection, run_id: int) -> None:
        self._source = source
        self._connection = connection
        self._run_id = run_id
        self._base = first_id(run_id)
        text_id = tables.texts.c.id
        last = source.scalar(select(func.max(text_id)).where(source.mine(text_id)))
        self._copied = bytearray(0 if last is None else last - source.base + 1)
        self._forms = self._renumbered(tables.forms)
        self._models = self._renumbered(tables.models)
        self._renumbered(tables.measures)

    def _renumbered(self, table: Table) -> dict[int, int]:
        """Copy rows whose ids the database hands out; returns their new ids by the old ones."""
        query = select(table).where(table.c.run_id == self._source.run.id).order_by(table.c.id)
        found = {}
        for row in self._source.rows(query):
            values = dict(row._mapping) | {"run_id": self._run_id}
            old = values.pop("id")
            made = self._connection.execute(insert(table).values(values).returning(table.c.id))
            found[old] = made.scalar_one()
        return found

    def copy(self, table: Table, query: Select[Any]) -> None:
        """Copy the rows of a query, in its order."""
        for batch in _batches(dict(row._mapping) for row in self._source.rows(query)):
            self._copy_texts({number for row in batch for number in self._texts_of(row)})
            self._connection.execute(insert(table), [self._moved(row) for row in batch])

    def _texts_of(self, row: Row) -> Iterator[int]:
        base = self._source.base
        yield from (row[name] - base for name in _TEXT_IDS if row.get(name) is not None)
        if "prompt" in row:
            yield from text_numbers(row["prompt"])
            yield from text_numbers(row["reply"])
            yield from text_numbers(row["thinking"])

    def _copy_texts(self, numbers: set[int]) -> None:
        missing = [number for number in numbers if not self._copied[number]]
        found = self._source.texts(missing)
        for number in found:
            self._copied[number] = 1
        rows = [{"id": self._base + number, "text": text} for number, text in found.items()]
        if rows:
            self._connection.execute(insert(tables.texts), rows)

    def _moved(self, row: Row) -> Row:
        shift = self._base - self._source.base
        for name in _IDS:
            if row.get(name) is not None:
                row[name] += shift
        if "run_id" in row:
            row["run_id"] = self._run_id
        if "form_id" in row:
            row["form_id"] = self._forms[row["form_id"]]
            row["model_id"] = self._models[row["model_id"]]
        return row


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while batch := list(islice(left, _BATCH)):
        yield batch


class JoiningWriter(Writer):
    """A writer within a transaction: it goes on from the rows that the transaction has written.

    Args:
        connection: the transaction; `flush` is to be called with it.
        run_id: the run to write.
    """

    def __init__(self, connection: Connection, run_id: int) -> None:
        super().__init__(connection.engine, run_id)
        for table in self._next:
            self._next[table] = self._last(connection, table) + 1
        self._load_texts(connection)
