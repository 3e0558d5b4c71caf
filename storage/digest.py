"""The digest of a run: two runs have the same result if their digests are equal.

A SHA-256 over agents, episodes, scenes, conversations, ratings, observations, parsed replies,
memories and breaches of rules in canonical order, with full texts. It excludes times, ids, model
names and everything else that depends on the order of arrival. Each item is one line of JSON whose
fields are listed explicitly, so that renaming a class or reordering its fields changes no digest.
Increase `VERSION` when the lines change; a run stores the version of its digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import select

from storage import tables
from storage.exchanges import Observation, exchanges
from storage.reader import Journalled, Reader
from storage.scenes import Scene

VERSION = 1


_BATCH = 500  # episodes at a time, so that memory use is bounded


def digest(reader: Reader) -> str:
    """Compute the digest of a run, in hexadecimal."""
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
    numbers = []
    for exchange in exchanges(reader):
        numbers.append(exchange.episode)
        yield [
            "episode",
            exchange.episode,
            exchange.author,
            exchange.question,
            exchange.failed_at,
        ]
        yield ["texts", *exchange.texts.values()]
        for peer in exchange.ratings:
            yield ["rating", peer.rater, peer.label, peer.rating, peer.reason, peer.status]
        for observation in exchange.observations:
            yield _observation(observation)
        if exchange.scene is not None:
            yield from _scene(exchange.scene)
    for start in range(0, len(numbers), _BATCH):
        yield from _calls(reader, numbers[start : start + _BATCH])
    yield from _memories(reader)
    yield from _of_policy(reader)


def _observation(observation: Observation) -> list[Any]:
    line = [
        "observation",
        observation.stage,
        observation.scale,
        observation.rating,
        observation.reason,
        observation.status,
    ]
    if observation.agent is None:
        return line
    return [*line, observation.agent, observation.other]


def _scene(scene: Scene) -> Iterator[list[Any]]:
    for part in scene.parts:
        yield ["ScenePart", part.name, part.about, part.agent]
    for act in scene.acts:
        yield [
            "SceneAct",
            act.step,
            act.part,
            act.reacts_to,
            act.text,
            act.passed,
            act.why,
            act.seen_by,
            act.harm,
            act.critique,
        ]
    for note in scene.notes:
        yield ["SceneNote", note.kind, note.text]


def _calls(reader: Reader, episodes: Sequence[int]) -> Iterator[list[Any]]:
    """Calls sorted by episode and name, since the order of arrival must not matter."""
    for episode, calls in sorted(reader.calls_of(episodes).items()):
        for call in sorted(calls, key=_sort_key):
            name = (call.form, call.agent, call.turn, call.attempt)
            yield ["call", episode, *name, call.status, call.reply]


def _sort_key(call: Journalled) -> tuple[str, bool, int, int, int]:
    return call.form, call.agent is not None, call.agent or 0, call.turn, call.attempt


def _of_policy(reader: Reader) -> Iterator[list[Any]]:
    """What a policy and a world of users add; a run that has none of it has no such line."""
    w, u, v, b = tables.overruled, tables.utterances, tables.verdicts, tables.breaches
    for row in reader.rows(
        select(w).where(w.c.run_id == reader.run.id).order_by(w.c.agent, w.c.number)
    ):
        yield ["overruled", row.agent, row.number, row.wish, row.rule]
    prompt, answer = tables.texts.alias(), tables.texts.alias()
    utterances = (
        select(u, prompt.c.text.label("prompt"), answer.c.text)
        .join(prompt, prompt.c.id == u.c.prompt_id)
        .outerjoin(answer, answer.c.id == u.c.text_id)
        .where(reader.belongs_to_run(u.c.episode_id))
        .order_by(u.c.episode_id, u.c.number)
    )
    for row in reader.rows(utterances):
        yield [
            "utterance",
            row.episode_id - reader.base,
            row.number,
            row.kind,
            row.turn,
            row.candidate,
            row.prompt,
            row.text,
            row.refused,
            row.chosen,
            row.score,
            row.manner,
            row.request,
            row.rule,
        ]
    for table, name, columns in (
        (v, "verdict", ("kind", "subject", "utterance", "value", "expected")),
        (b, "breach", ("rule", "tier", "action", "found")),
    ):
        query = select(table).where(reader.belongs_to_run(table.c.episode_id))
        for row in reader.rows(query.order_by(table.c.episode_id, table.c.number)):
            values = [row._mapping[column] for column in columns]
            yield [name, row.episode_id - reader.base, row.number, *values]


def _memories(reader: Reader) -> Iterator[list[Any]]:
    m, q = tables.memories, tables.questions
    asked, answer = tables.texts.alias(), tables.texts.alias()
    query = (
        select(m.c.agent, m.c.round, asked.c.text.label("asked"), answer.c.text)
        .join(q, q.c.id == m.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .join(answer, answer.c.id == m.c.text_id)
        .where(reader.belongs_to_run(m.c.id))
        .order_by(m.c.agent, m.c.round, m.c.id)
    )
    for row in reader.rows(query):
        yield ["memory", row.agent, row.round, row.asked, row.text]
