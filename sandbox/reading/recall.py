"""Recall: the memories that an agent could have recalled for a call, and their distances."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from agents.memory import RecallRule
from sandbox.reading.records import Record
from storage import tables
from storage.reader import Reader, parse_further
from storage.vectors import unpack

_IDS = 500  # per query
_SHOWN = 8  # candidates


class Candidate(NamedTuple):
    """A memory that an agent had when a call was made.

    Attributes:
        memory: its number within the run.
        round: in which it was learned; -1 for a prior memory.
        question, answer: what it is about, and what the agent believes.
        distance: cosine distance (0 to 2) of its question from the question of the call.
        episode: the number of the exchange that it was learned in; None for a prior memory.
    """

    memory: int
    round: int
    question: str
    answer: str
    distance: float
    episode: int | None = None


def candidates(reader: Reader, agent: int, question_id: int, round: int) -> list[Candidate]:
    """The memories that an agent could recall in a round, the nearest question first.

    Of each question only the latest answer counts. Distances are those of
    `agents.memory.QuestionIndex`. The first ones are recalled: see `recall_rule`.

    Args:
        reader: the run.
        agent: the number of the agent.
        question_id: the question, by its id in the database.
        round: memory counts as of the end of the round before.
    """
    latest = {row.text_id: row for row in _memories(reader, agent, round)}
    q = tables.questions
    asked = reader.scalar(select(q.c.text_id).where(q.c.id == question_id))
    vectors = dict(_vectors(reader, [asked, *latest]))
    texts = reader.texts(
        number - reader.base for row in latest.values() for number in (row.text_id, row.answer_id)
    )
    unsorted = [
        Candidate(
            row.id - reader.base,
            row.round,
            texts[text_id - reader.base],
            texts[row.answer_id - reader.base],
            _distance(vectors[asked], vectors[text_id]),
            None if row.episode_id is None else row.episode_id - reader.base,
        )
        for text_id, row in latest.items()
    ]
    return sorted(unsorted, key=lambda candidate: (candidate.distance, candidate.memory))


@dataclass(frozen=True, kw_only=True)
class Recall(Record):
    """The recall of a call.

    Attributes:
        question: the question of the episode.
        round: of the episode; memory counts as of the end of the round before.
        threshold: the distance below which memories are recalled; None: whatever it is.
        embedder: the name of the embedder.
        candidates: the nearest memories, and those that were recalled.
        count: the number of memories of different questions.
        chosen: the numbers of the recalled memories, the nearest first.
        distance: the distance of the first one.
        by_distance: whether distance decided; otherwise the world showed the latest memory.
    """

    question: str
    round: int
    threshold: float | None
    embedder: str
    candidates: Sequence[Candidate]
    count: int
    chosen: Sequence[int]
    distance: float | None
    by_distance: bool


def recall(reader: Reader, number: int) -> Recall | None:
    """The recall of a call, by its number; None where its prompt template shows no memory."""
    c, e, f = tables.calls, tables.episodes, tables.forms
    q, t = tables.questions, tables.texts
    query = (
        select(
            c.c.agent,
            c.c.memory_id,
            c.c.distance,
            c.c.further,
            e.c.question_id,
            e.c.round,
            f.c.template,
        )
        .add_columns(t.c.text)
        .join(f, f.c.id == c.c.form_id)
        .join(e, e.c.id == c.c.episode_id)
        .join(q, q.c.id == e.c.question_id)
        .join(t, t.c.id == q.c.text_id)
        .where(c.c.id == reader.base + number)
    )
    call = reader.first(query)
    if call is None:
        return None  # the episode is still being played
    if call.agent is None or "past" not in call.template:
        return None
    nearest = candidates(reader, call.agent, call.question_id, call.round)
    chosen = [] if call.memory_id is None else [call.memory_id - reader.base]
    chosen += (memory for memory, _ in parse_further(call.further))
    distances = [candidate.distance for candidate in nearest if candidate.memory in chosen[:1]]
    return Recall(
        question=call.text,
        round=call.round,
        threshold=recall_rule(reader).threshold,
        embedder=reader.run.embedder,
        candidates=[
            candidate
            for rank, candidate in enumerate(nearest)
            if rank < _SHOWN or candidate.memory in chosen
        ],
        count=len(nearest),
        chosen=chosen,
        distance=call.distance,
        by_distance=not chosen or [call.distance] == distances,
    )


def recall_rule(reader: Reader) -> RecallRule:
    """Which memories an agent of a run recalls."""
    memory = json.loads(reader.run.config)["memory"]
    return RecallRule.of(memory["recall"], memory.get("top_k", 1), reader.run.threshold)


def _memories(reader: Reader, agent: int, round: int) -> Sequence[Any]:
    """Memories of earlier rounds that the run keeps, the oldest first."""
    m, q = tables.memories, tables.questions
    query = (
        select(m.c.id, m.c.round, m.c.episode_id, q.c.text_id, m.c.text_id.label("answer_id"))
        .join(q, q.c.id == m.c.question_id)
        .where(m.c.run_id == reader.run.id, m.c.agent == agent, m.c.round < round)
        .order_by(m.c.round, m.c.id)
    )
    keep = json.loads(reader.run.config)["memory"]["keep"]
    rows = list(reader.rows(query))
    return rows if keep == "all" else rows[-keep:]


def _vectors(reader: Reader, text_ids: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The vector of each question, by the id of its text."""
    q = tables.questions
    for start in range(0, len(text_ids), _IDS):
        batch = text_ids[start : start + _IDS]
        query = select(q.c.text_id, q.c.vector).where(
            q.c.run_id == reader.run.id, q.c.text_id.in_(batch), q.c.vector.is_not(None)
        )
        for text_id, vector in reader.rows(query):
            yield text_id, unpack(vector).astype(np.float64)


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return max(0.0, round(1.0 - float(np.dot(a, b)), 6))
