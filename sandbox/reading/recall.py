"""Why a memory was recalled: what the agent could have been reminded of, and how near it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from storage import tables
from storage.reader import Reader
from storage.vectors import unpack

_IDS = 500  # at once


class Candidate(NamedTuple):
    """A memory that was there when an agent was asked.

    Attributes:
        memory: its number within the run.
        round: in which it was learned; -1 for a prior memory.
        question, answer: what it is about, and what the agent believes.
        distance: cosine distance (0 to 2) of its question from the one that was asked.
    """

    memory: int
    round: int
    question: str
    answer: str
    distance: float


def candidates(reader: Reader, agent: int, question_id: int, round: int) -> list[Candidate]:
    """What an agent could recall in a round, nearest question first; of each its latest answer.

    Distances are those of `agents.memory.Lexicon`. A memory is recalled if it is the first here and
    nearer than the run's threshold.

    Args:
        reader: the run.
        agent: who was asked.
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
    found = [
        Candidate(
            row.id - reader.base,
            row.round,
            texts[text_id - reader.base],
            texts[row.answer_id - reader.base],
            _distance(vectors[asked], vectors[text_id]),
        )
        for text_id, row in latest.items()
    ]
    return sorted(found, key=lambda one: (one.distance, one.memory))


def _memories(reader: Reader, agent: int, round: int) -> Sequence[Any]:
    """Those of rounds before, oldest first; only the most recent, where a run keeps no more."""
    m, q = tables.memories, tables.questions
    query = (
        select(m.c.id, m.c.round, q.c.text_id, m.c.text_id.label("answer_id"))
        .join(q, q.c.id == m.c.question_id)
        .where(m.c.run_id == reader.run.id, m.c.agent == agent, m.c.round < round)
        .order_by(m.c.round, m.c.id)
    )
    keep = json.loads(reader.run.config)["memory"]["keep"]
    rows = list(reader.rows(query))
    return rows if keep == "all" else rows[-keep:]


def _vectors(reader: Reader, text_ids: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The vector of each question, by the id of its text: a text's is stored once."""
    q = tables.questions
    for start in range(0, len(text_ids), _IDS):
        some = text_ids[start : start + _IDS]
        query = select(q.c.text_id, q.c.vector).where(
            q.c.run_id == reader.run.id, q.c.text_id.in_(some), q.c.vector.is_not(None)
        )
        for text_id, vector in reader.rows(query):
            yield text_id, unpack(vector).astype(np.float64)


def _distance(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    return max(0.0, round(1.0 - float(np.dot(one, two)), 6))
