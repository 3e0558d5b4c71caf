"""Copying a run's start into another database: what was there before the first call."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Select, insert, select, union

from storage import tables
from storage.reader import Reader

_BATCH = 2000


def copy_start(source: Reader, target: Engine) -> None:
    """Copy the run itself, its forms, models, agents, questions, prior memories and their texts.

    Ids stay as they are, so `target` must not hold the run yet.
    """
    run, q, m = source.run.id, tables.questions, tables.memories
    prior = select(m).where(source.mine(m.c.id), m.c.episode_id.is_(None))
    used = union(
        select(q.c.text_id).where(source.mine(q.c.id)), prior.with_only_columns(m.c.text_id)
    ).subquery()
    queries: list[tuple[Any, Select[Any]]] = [
        (tables.runs, select(tables.runs).where(tables.runs.c.id == run)),
        *(
            (table, select(table).where(table.c.run_id == run))
            for table in (tables.forms, tables.models, tables.agents)
        ),
        (tables.texts, select(tables.texts).where(tables.texts.c.id.in_(select(used)))),
        (q, select(q).where(source.mine(q.c.id))),
        (m, prior),
    ]
    for table, query in queries:
        _copy(source, target, table, query)


def _copy(source: Reader, target: Engine, table: Any, query: Select[Any]) -> None:
    rows: list[dict[str, Any]] = []
    for row in source.rows(query):
        rows.append(dict(row._mapping))
        if len(rows) == _BATCH:
            _write(target, table, rows)
            rows = []
    _write(target, table, rows)


def _write(target: Engine, table: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        with target.begin() as connection:
            connection.execute(insert(table), rows)
