"""The digest of a run: what "the same result" means.

A SHA-256 over agents, episodes, ratings, observations, parsed replies and memories, in canonical
order and with the texts themselves; times, ids and everything that depends on the order of arrival
are left out. Each item is one line of JSON.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, select

from storage import tables
from storage.reader import Reader, join_texts, text_numbers

_BATCH = 500  # episodes at a time: memory does not grow with the run


def digest(reader: Reader) -> str:
    """The digest of a run, in hexadecimal."""
    total = sha256()
    for line in _lines(reader):
        total.update(json.dumps(line, ensure_ascii=False).encode())
        total.update(b"\n")
    return total.hexdigest()


def _lines(reader: Reader) -> Iterator[list[Any]]:
    a = tables.agents
    agents = select(a).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    for row in reader.rows(agents):
        yield ["agent", row.number, row.label, json.loads(row.persona), row.neighbours]
    e = tables.episodes
    ids = [
        row.id for row in reader.rows(select(e.c.id).where(reader.mine(e.c.id)).order_by(e.c.id))
    ]
    for start in range(0, len(ids), _BATCH):
        yield from _episodes(reader, ids[start : start + _BATCH])
    yield from _memories(reader)


def _episodes(reader: Reader, ids: Sequence[int]) -> Iterator[list[Any]]:
    e, q = tables.episodes, tables.questions
    asked, draft, revision = (tables.texts.alias() for _ in range(3))
    query = (
        select(
            e,
            asked.c.text.label("asked"),
            draft.c.text.label("draft"),
            revision.c.text.label("revision"),
        )
        .join(q, q.c.id == e.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .outerjoin(draft, draft.c.id == e.c.draft_id)
        .outerjoin(revision, revision.c.id == e.c.revision_id)
        .where(e.c.id.between(ids[0], ids[-1]))
        .order_by(e.c.id)
    )
    parts = [
        _judged(reader, ids, tables.ratings, "rater"),
        _judged(reader, ids, tables.observations, "stage", "scale"),
        _calls(reader, ids),
    ]
    for row in reader.rows(query):
        yield ["episode", row.round, row.author, row.asked, row.failed_at, row.draft, row.revision]
        for part in parts:
            yield from part.get(row.id, ())


def _judged(
    reader: Reader, ids: Sequence[int], table: Any, *keys: str
) -> dict[int, list[list[Any]]]:
    t = tables.texts
    query = (
        select(table, t.c.text)
        .outerjoin(t, t.c.id == table.c.reason_id)
        .where(table.c.episode_id.between(ids[0], ids[-1]))
    )
    found = defaultdict(list)
    for row in reader.rows(query):
        key = [getattr(row, name) for name in keys]
        found[row.episode_id].append([table.name, *key, row.rating, row.text, row.status])
    return {episode: sorted(lines, key=_order) for episode, lines in found.items()}


def _calls(reader: Reader, ids: Sequence[int]) -> dict[int, list[list[Any]]]:
    c, f = tables.calls, tables.forms
    query = (
        select(c.c.episode_id, f.c.name, c.c.agent, c.c.turn, c.c.attempt, c.c.status, c.c.reply)
        .join(f, f.c.id == c.c.form_id)
        .where(c.c.episode_id.between(ids[0], ids[-1]))
    )
    rows: list[Row[Any]] = list(reader.rows(query))
    texts = reader.texts(number for row in rows for number in text_numbers(row.reply))
    found = defaultdict(list)
    for row in rows:
        reply = None if row.reply is None else join_texts(row.reply, texts)
        name = [row.name, row.agent, row.turn, row.attempt]
        found[row.episode_id].append(["call", *name, row.status, reply])
    return {episode: sorted(lines, key=_order) for episode, lines in found.items()}


def _memories(reader: Reader) -> Iterator[list[Any]]:
    m, q = tables.memories, tables.questions
    asked, answer = tables.texts.alias(), tables.texts.alias()
    query = (
        select(m.c.agent, m.c.round, asked.c.text.label("asked"), answer.c.text)
        .join(q, q.c.id == m.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .join(answer, answer.c.id == m.c.text_id)
        .where(reader.mine(m.c.id))
        .order_by(m.c.agent, m.c.round, m.c.id)
    )
    for row in reader.rows(query):
        yield ["memory", row.agent, row.round, row.asked, row.text]


def _order(line: Sequence[Any]) -> list[tuple[bool, str | int]]:
    """Sorts a missing value before all others, whatever a database does with NULL."""
    return [(part is not None, "" if part is None else part) for part in line[:5]]
