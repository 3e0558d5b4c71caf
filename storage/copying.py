"""Copy the initial state or the first rounds of a run, within a database or to another one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, func, insert, select

from storage import tables
from storage.reader import Reader, parse_text_list
from storage.summaries import summarise
from storage.tables import first_id
from storage.writer import Writer

Row = dict[str, Any]

_BATCH = 2000
_PRIOR_ROUND = -1  # the round of prior memories

_TEXT_IDS = (
    "text_id",
    "reason_id",
    "name_id",
    "about_id",
    "why_id",
    "critique_id",
    "prompt_id",
)
_IDS = ("id", "question_id", "episode_id", "call_id", "memory_id", *_TEXT_IDS)


def forked_from(reader: Reader) -> Row | None:
    """Parse the column `origin` of a fork; None for any other run."""
    if reader.run.origin is None:
        return None
    origin: Row = json.loads(reader.run.origin)["forked_from"]
    return origin


def copy_start(source: Reader, target: Engine) -> None:
    """Copy a run as it was before its first call, in one transaction.

    Copies the run's row, prompt templates, models, agents, questions and prior memories, and for a
    fork also the rounds that were copied when it was made. Ids are kept, so `target` must not
    contain the run yet.
    """
    origin = forked_from(source)
    with target.begin() as connection:
        connection.execute(insert(tables.runs), dict(source.run._mapping))
        last = _PRIOR_ROUND if origin is None else int(origin["round"])
        copy_rounds(source, connection, source.run.id, last)


def copy_rounds(source: Reader, connection: Connection, run_id: int, last: int) -> None:
    """Copy a run up to and including a round, into a run whose row exists already.

    Rows are streamed; memory use is one byte for each text of the source. Only texts that the
    copied rows refer to are copied. All episodes of the copied rounds must be complete.

    Args:
        source: the run to copy from; it is read over a connection of its own.
        connection: a transaction on the target database.
        run_id: the run to copy to; ids are shifted by the difference of the two first ids.
        last: the last round to copy; -1 copies the state before the first call.
    """
    copier = _Copier(source, connection, run_id)
    q, m, a = tables.questions, tables.memories, tables.agents
    copier.copy(a, select(a).where(a.c.run_id == source.run.id).order_by(a.c.number))
    w = tables.overruled
    wishes = select(w).where(w.c.run_id == source.run.id).order_by(w.c.agent, w.c.number)
    copier.copy(w, wishes)
    copier.copy(q, select(q).where(source.belongs_to_run(q.c.id)).order_by(q.c.id))
    c, e, r, o = tables.calls, tables.episodes, tables.ratings, tables.observations
    end = source.base + (last + 1) * source.run.per_round - 1
    s = tables.stage_texts
    for table, column, order in (
        (e, e.c.id, ()),
        (s, s.c.episode_id, (s.c.stage,)),
        (c, c.c.episode_id, (c.c.id,)),
        (r, r.c.episode_id, (r.c.rater,)),
        (o, o.c.episode_id, (o.c.stage, o.c.scale, o.c.agent, o.c.other)),
        *((table, table.c.episode_id, (table.c.number,)) for table in _NUMBERED),
    ):
        query = select(table).where(column.between(source.base, end))
        copier.copy(table, query.order_by(column, *order))
    copier.copy(
        m, select(m).where(source.belongs_to_run(m.c.id), m.c.round <= last).order_by(m.c.id)
    )
    summarise(connection, run_id)


_NUMBERED = (
    tables.parts,
    tables.acts,
    tables.notes,
    tables.utterances,
    tables.verdicts,
    tables.breaches,
)
"""Tables with numbered rows of an episode."""


class _Copier:
    """Copies rows from one run to another, each after the texts that it refers to."""

    def __init__(self, source: Reader, connection: Connection, run_id: int) -> None:
        self._source = source
        self._connection = connection
        self._run_id = run_id
        self._base = first_id(run_id)
        text_id = tables.texts.c.id
        last = source.scalar(select(func.max(text_id)).where(source.belongs_to_run(text_id)))
        self._copied = bytearray(0 if last is None else last - source.base + 1)
        self._forms = self._copy_with_new_ids(tables.forms)
        self._models = self._copy_with_new_ids(tables.models)
        self._copy_with_new_ids(tables.measures)

    def _copy_with_new_ids(self, table: Table) -> dict[int, int]:
        """Copy rows whose ids the database assigns; returns a mapping from old to new ids."""
        query = select(table).where(table.c.run_id == self._source.run.id).order_by(table.c.id)
        new_ids = {}
        for row in self._source.rows(query):
            values = dict(row._mapping) | {"run_id": self._run_id}
            old = values.pop("id")
            result = self._connection.execute(insert(table).values(values).returning(table.c.id))
            new_ids[old] = result.scalar_one()
        return new_ids

    def copy(self, table: Table, query: Select[Any]) -> None:
        """Copy the rows of a query, in the order of the query."""
        for batch in _batches(dict(row._mapping) for row in self._source.rows(query)):
            self._copy_texts({number for row in batch for number in self._text_numbers(row)})
            self._connection.execute(insert(table), [self._shifted(row) for row in batch])

    def _text_numbers(self, row: Row) -> Iterator[int]:
        base = self._source.base
        yield from (row[name] - base for name in _TEXT_IDS if row.get(name) is not None)
        if "prompt" in row:
            yield from parse_text_list(row["prompt"])
            yield from parse_text_list(row["reply"])
            yield from parse_text_list(row["thinking"])

    def _copy_texts(self, numbers: set[int]) -> None:
        missing = [number for number in numbers if not self._copied[number]]
        texts = self._source.texts(missing)
        for number in texts:
            self._copied[number] = 1
        rows = [{"id": self._base + number, "text": text} for number, text in texts.items()]
        if rows:
            self._connection.execute(insert(tables.texts), rows)

    def _shifted(self, row: Row) -> Row:
        """The row with ids of the target run; changes it in place."""
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
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


class TransactionWriter(Writer):
    """A writer that works inside a transaction and continues after the rows written in it.

    Args:
        connection: the transaction; pass it to `flush`.
        run_id: the run to write.
    """

    def __init__(self, connection: Connection, run_id: int) -> None:
        super().__init__(connection.engine, run_id)
        for table in self._next:
            self._next[table] = self._last(connection, table) + 1
        self._load_texts(connection)
