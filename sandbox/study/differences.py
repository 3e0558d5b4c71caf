"""Differences between the tables of a run and those of its replay, row by row.

Ids of texts, calls and memories depend on the order in which replies arrived, so rows are compared
by what they refer to: a text by its words, a call by its name, a memory by agent, round and
question. Numbers that are sums may differ by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, and_, func, or_, select

from agents.forms import Status
from agents.scale import Declaration
from sandbox.config import Config
from sandbox.engine.run import measure_rows
from storage import tables
from storage.reader import Reader, parse_further

_EPISODES = 500  # at a time, so that memory use is bounded
_AGENTS = 200

_BY_EPISODE = (
    tables.episodes,
    tables.stage_texts,
    tables.calls,
    tables.ratings,
    tables.observations,
    tables.parts,
    tables.acts,
    tables.notes,
    tables.utterances,
    tables.verdicts,
    tables.breaches,
    tables.scores,
)
_WHOLE = (
    tables.forms,
    tables.models,
    tables.measures,
    tables.agents,
    tables.overruled,
    tables.questions,
    tables.outcomes,
    tables.rater_sums,
    tables.agent_sums,
    tables.call_sums,
)
_KEYS = {
    tables.forms: ("name",),
    tables.models: ("role",),
    tables.measures: ("name",),
    tables.memories: ("agent", "round", "question_id", "episode_id"),
    tables.calls: ("episode_id", "form_id", "agent", "turn", "attempt"),
}
"""What identifies a row, where its primary key depends on the order of arrival."""

_ARRIVAL = {
    tables.forms: ("id",),
    tables.models: ("id",),
    tables.measures: ("id",),
    tables.memories: ("id",),
    tables.calls: ("id",),
}
"""Columns that depend on the order in which rows were written."""

_TEXTS = ("text_id", "reason_id", "name_id", "about_id", "why_id", "critique_id", "prompt_id")
_TEXT_LISTS = ("prompt", "reply", "thinking")


class Difference(NamedTuple):
    """A value that differs from its recomputation.

    Attributes:
        place: the table, the row and the column.
        found: the stored value, or what was found.
        expected: the recomputed value.
    """

    place: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.place}: found {self.found}; expected {self.expected}"


Rows = dict[tuple[Any, ...], dict[str, Any]]


def differences(source: Reader, replay: Reader, config: Config) -> Iterator[Difference]:
    """Compare every table of a run with that of its replay, which has the same base of ids.

    Args:
        source: the run.
        replay: its replay from the journal.
        config: the run's config.
    """
    yield from _of_run(source, config)
    yield from _of_measures(source)
    yield from _of_records(source)
    for table in _WHOLE:
        yield from _compared(table, source, replay, table.c.run_id == source.run.id)
    m, a = tables.memories, tables.agents
    last = source.scalar(select(func.max(a.c.number)).where(a.c.run_id == source.run.id))
    for first in range(0, (last or 0) + 1, _AGENTS):
        agents = m.c.agent.between(first, first + _AGENTS - 1)
        yield from _compared(m, source, replay, (m.c.run_id == source.run.id) & agents)
    ends = []
    for reader in (source, replay):
        ids = [
            reader.scalar(select(func.max(column)).where(reader.belongs_to_run(column)))
            for column in (tables.episodes.c.id, tables.calls.c.episode_id)
        ]
        ends += [number for number in ids if number is not None]
    for start in range(source.base, max(ends, default=source.base - 1) + 1, _EPISODES):
        for table in _BY_EPISODE:
            column = table.c.id if table is tables.episodes else table.c.episode_id
            batch = column.between(start, start + _EPISODES - 1)
            yield from _compared(table, source, replay, batch)
    yield from _of_words(source, replay)


def _of_run(source: Reader, config: Config) -> Iterator[Difference]:
    """The columns of `runs` that follow from the config and the program."""
    run = source.run
    expected: dict[str, object] = {
        "name": config.name,
        "world": config.world.kind,
        "seed": config.seed,
        "rounds": config.rounds,
    }
    if config.memory.threshold is not None:
        expected["threshold"] = config.memory.threshold
    for name, value in expected.items():
        if getattr(run, name) != value:
            yield Difference(f"runs: {name}", _shown(getattr(run, name)), _shown(value))
    e = tables.episodes
    for row in source.rows(
        select(e.c.id, e.c.round).where(source.belongs_to_run(e.c.id)).order_by(e.c.id).limit(100)
    ):
        number = (row.id - source.base) // max(1, run.per_round)
        if number != row.round:
            yield Difference(f"episodes: id {row.id}: round", str(row.round), str(number))


def _of_records(source: Reader) -> Iterator[Difference]:
    """What no replay tells, but other columns: calls of the last session, errors of calls."""
    s, c = tables.sessions, tables.calls
    query = select(s).where(s.c.run_id == source.run.id).order_by(s.c.number.desc()).limit(1)
    last = source.first(query)
    if last is not None and last.ended is not None:
        count = source.count(c, c.c.id >= last.first_call)
        if last.calls != count:
            place = f"sessions: number {last.number}: calls"
            yield Difference(place, str(last.calls), str(count))
    failed = c.c.status == Status.FAILED
    wrong = or_(and_(failed, c.c.error.is_(None)), and_(~failed, c.c.error.is_not(None)))
    rows = select(c.c.id, c.c.error).where(source.belongs_to_run(c.c.id), wrong)
    for row in source.rows(rows.order_by(c.c.id)):
        place = f"calls: id {row.id}: error"
        yield Difference(place, _shown(row.error), "an error where a call failed, else none")


def _of_measures(source: Reader) -> Iterator[Difference]:
    """The rows of `measures` follow from the declaration."""
    declaration = Declaration.model_validate_json(source.run.declaration)
    expected = {(row["name"],): row for row in measure_rows(source.run.id, declaration)}
    m = tables.measures
    query = select(*(column for column in m.c if column.name != "id"))
    rows = source.rows(query.where(m.c.run_id == source.run.id))
    found = {(row.name,): dict(row._mapping) for row in rows}
    yield from _rows_compared(m, found, expected)


def _compared(table: Table, source: Reader, replay: Reader, condition: Any) -> Iterator[Difference]:
    found, expected = (_rows(table, reader, condition) for reader in (source, replay))
    yield from _rows_compared(table, found, expected)


def _rows_compared(table: Table, found: Rows, expected: Rows) -> Iterator[Difference]:
    for key in sorted(found.keys() | expected.keys(), key=repr):
        place = f"{table.name}: {_named(table, key)}"
        if key not in expected:
            yield Difference(place, "a row", "none")
        elif key not in found:
            yield Difference(place, "no row", _shown(expected[key]))
        else:
            for name, value in expected[key].items():
                if not _same(found[key][name], value):
                    yield Difference(f"{place}: {name}", _shown(found[key][name]), _shown(value))


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, float) or isinstance(expected, float):
        numbers = (int, float)
        if isinstance(found, numbers) and isinstance(expected, numbers):
            return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6)
    return type(found) is type(expected) and bool(found == expected)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 80


def _key_names(table: Table) -> Sequence[str]:
    return _KEYS.get(table) or [column.name for column in table.primary_key]


def _named(table: Table, key: tuple[Any, ...]) -> str:
    names = [name.removesuffix("_id") for name in _key_names(table)]
    return ", ".join(f"{n} {v}" for n, v in zip(names[-len(key) :], key, strict=True))


def _rows(table: Table, reader: Reader, condition: Any) -> Rows:
    """The rows of a table by key, with what their ids refer to in place of ids."""
    arrival = _ARRIVAL.get(table, ())
    stored = [dict(row._mapping) for row in reader.rows(select(table).where(condition))]
    resolve = _Resolver(reader, stored)
    rows: Rows = {}
    for row in stored:
        values = {name: resolve(name, value) for name, value in row.items() if name not in arrival}
        rows[tuple(values[name] for name in _key_names(table))] = values
    return rows


class _Resolver:
    """What the ids in some rows refer to."""

    def __init__(self, reader: Reader, rows: Sequence[dict[str, Any]]) -> None:
        self._base = reader.base
        self._names = {
            column: {row[0]: row[1] for row in reader.rows(select(table.c.id, name))}
            for column, table, name in (
                ("form_id", tables.forms, tables.forms.c.name),
                ("model_id", tables.models, tables.models.c.role),
                ("measure_id", tables.measures, tables.measures.c.name),
            )
            if rows and column in rows[0]
        }
        numbers = [
            row[name] - self._base for row in rows for name in _TEXTS if row.get(name) is not None
        ]
        for row in rows:
            for name in _TEXT_LISTS:
                if isinstance(row.get(name), str):
                    numbers += [int(part) for part in row[name].split(",") if part]
        self._texts = reader.texts(numbers)
        self._calls = _call_names(reader, {row["call_id"] for row in rows if "call_id" in row})
        memories = {row["memory_id"] for row in rows if row.get("memory_id") is not None}
        memories |= {
            self._base + number for row in rows for number, _ in parse_further(row.get("further"))
        }
        self._memories = _memory_names(reader, memories)

    def __call__(self, column: str, value: Any) -> Any:
        """The value of a column, or what it refers to."""
        if value is None:
            return None
        if column in self._names:
            return self._names[column].get(value, f"unknown {value}")
        if column in _TEXTS:
            return self._texts.get(value - self._base, f"no text {value}")
        if column in _TEXT_LISTS:
            numbers = [int(part) for part in value.split(",") if part]
            return "".join(self._texts.get(number, f"no text {number}") for number in numbers)
        if column == "call_id":
            return self._calls.get(value, f"no call {value}")
        if column == "memory_id":
            return self._memories.get(value, f"no memory {value}")
        if column == "further":
            pairs = parse_further(value)
            return [(self("memory_id", self._base + number), near) for number, near in pairs]
        if column == "outcome":
            return _plain(value)
        return value


def _plain(outcome: str) -> Any:
    """An outcome as a number where it is one: databases format decimals in different ways."""
    try:
        return float(outcome)
    except ValueError:
        return outcome


def _call_names(reader: Reader, ids: set[int]) -> dict[int, tuple[Any, ...]]:
    c, f = tables.calls, tables.forms
    columns = (c.c.id, c.c.episode_id, f.c.name, c.c.agent, c.c.turn, c.c.attempt)
    query = select(*columns).join(f, f.c.id == c.c.form_id)
    return {row[0]: tuple(row[1:]) for part in _parts(ids) for row in reader.rows(
        query.where(c.c.id.in_(part)))}  # fmt: skip


def _memory_names(reader: Reader, ids: set[int]) -> dict[int, tuple[Any, ...]]:
    m = tables.memories
    query = select(m.c.id, m.c.agent, m.c.round, m.c.question_id)
    return {row[0]: tuple(row[1:]) for part in _parts(ids) for row in reader.rows(
        query.where(m.c.id.in_(part)))}  # fmt: skip


def _parts(ids: set[int]) -> Iterator[list[int]]:
    wanted = sorted(ids)
    for start in range(0, len(wanted), 500):
        yield wanted[start : start + 500]


def _of_words(source: Reader, replay: Reader) -> Iterator[Difference]:
    """The full-text index of an SQLite file with one run; elsewhere it is not compared."""
    if source.engine.dialect.name != "sqlite":
        return
    if source.scalar(select(func.count()).select_from(tables.runs)) != 1:
        return
    found, expected = (_vocabulary(reader) for reader in (source, replay))
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            place = f"words: {key[0]!r} in {key[1]}: episodes and occurrences"
            yield Difference(place, _shown(found.get(key)), _shown(expected.get(key)))


def _vocabulary(reader: Reader) -> dict[tuple[str, str], tuple[int, int]]:
    with reader.engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, words, col)"
        )
        rows = connection.exec_driver_sql("SELECT term, col, doc, cnt FROM temp.vocabulary")
        return {(term, column): (doc, cnt) for term, column, doc, cnt in rows}


def file_problems(source: Reader) -> Iterator[Difference]:
    """What is wrong with an SQLite file itself: its pages and indexes, and its references."""
    if source.engine.dialect.name != "sqlite":
        return
    with source.engine.connect() as connection:
        yield from _integrity(connection)
        with closing(connection.exec_driver_sql("PRAGMA foreign_key_check")) as rows:
            for table, row, parent, _ in rows:
                yield Difference(f"{table}: row {row}", f"a reference to no row of {parent}", "one")


def _integrity(connection: Connection) -> Iterator[Difference]:
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield Difference("the file", " ".join(str(line).split()), "ok")
