"""The society of a run: written once from the config, then read from the database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from agents.agent import Agent
from agents.embedding import Embedder
from agents.memory import PRIOR, QuestionIndex, Recalled, RecallRule
from agents.policy import Policy, overruled
from sandbox.backends.embedding import embedder_of
from sandbox.config import Config, MemoryConfig
from sandbox.reading.agents import read_agents
from sandbox.sources import Question, read_questions
from storage import tables
from storage.errors import InputError
from storage.reader import Reader
from storage.vectors import pack, unpack
from storage.writer import Writer
from worlds.base import Meeting, Pair

_FLUSH = 100  # agents per batch of rows


@dataclass
class Society:
    """Agents with their memories, and questions.

    Attributes:
        agents: by number.
        question_index: the distinct questions, asked or remembered.
        questions: the list of questions, which is cycled, as (number in the index, row).
        rule: which memories an agent recalls.
    """

    agents: list[Agent]
    question_index: QuestionIndex
    questions: list[tuple[int, int]]
    rule: RecallRule

    def question(self, meeting: Meeting) -> tuple[int, int]:
        """Return the question of a meeting: its number in the index, and its row."""
        return self.questions[meeting.question % len(self.questions)]

    def recall(self, agent: Agent, question: int, round: int) -> Recalled | None:
        """Return an agent's memory nearest to a question, as of the end of the previous round."""
        return agent.memory.recall(self.question_index, question, round, self.rule)

    def latest(self, agent: Agent, round: int) -> Recalled | None:
        """Return an agent's latest memory, as of the end of the previous round."""
        return agent.memory.latest(self.question_index, round)


def write_society(
    writer: Writer,
    connection: Connection,
    agents: Sequence[Agent],
    questions: Sequence[Question],
    inherited: Sequence[Sequence[Pair]],
    embedder: Embedder,
    policy: Policy,
) -> None:
    """Write a new society in the caller's transaction: agents, questions, prior memories.

    Args:
        writer: of the new run.
        connection: the transaction.
        agents: by number.
        questions: the list of questions.
        inherited: the prior memories of each agent.
        embedder: embeds the questions.
        policy: the rules that may overrule what the agents prefer.
    """
    for agent in agents:
        writer.text(agent.introduction)
        writer.add(tables.agents, _agent_row(writer.run_id, agent))
        for number, one in enumerate(overruled(policy, agent.persona.preferences)):
            key = {"run_id": writer.run_id, "agent": agent.number, "number": number}
            writer.add(tables.overruled, {**key, "wish": one.wish, "rule": one.rule})
    prior = dict.fromkeys(pair.question for pairs in inherited for pair in pairs)
    listed: list[Listed] = [*questions]
    in_list = {question.text for question in questions}
    listed += [(text, None, None) for text in prior if text not in in_list]
    ids = _write_questions(writer, listed, embedder)
    for agent, pairs in zip(agents, inherited, strict=True):
        for pair in pairs:
            writer.add(tables.memories, _prior_row(writer, agent, ids[pair.question], pair))
        if agent.number % _FLUSH == 0:
            writer.flush(connection)
    writer.flush(connection)


def _agent_row(run_id: int, agent: Agent) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "number": agent.number,
        "label": agent.label,
        "persona": agent.persona.model_dump_json(exclude_none=True),
        "x": agent.x,
        "y": agent.y,
        "neighbours": None if agent.links is None else ",".join(map(str, agent.links)),
        "node": agent.node,
        "community": agent.community,
    }


Listed = tuple[str, str | None, str | None]
"""The text, the source and the topic of a question."""


def _write_questions(
    writer: Writer,
    listed: Sequence[Listed],
    embedder: Embedder,
    start: int = 0,
    stored: Collection[str] = (),
    dim: int | None = None,
) -> dict[str, int]:
    """Add rows for a list of questions, with one vector for each distinct text.

    Args:
        writer: of the run.
        listed: texts with their sources and topics; prior questions have none.
        embedder: embeds the texts.
        start: the number of the first question.
        stored: texts whose vectors are stored already.
        dim: the length of the stored vectors.

    Returns:
        The row of each distinct text.
    """
    distinct = [text for text in dict.fromkeys(text for text, *_ in listed) if text not in stored]
    rows = embedder.embed(distinct)
    if distinct and dim not in (None, rows.shape[1]):
        raise InputError(
            f"memory.embedder: found vectors of {rows.shape[1]} numbers from {embedder.name}; "
            f"expected {dim}, the length of those that are stored"
        )
    vectors = dict(zip(distinct, rows, strict=True))
    ids: dict[str, int] = {}
    for number, (text, source, topic) in enumerate(listed, start):
        first = text not in ids and text not in stored
        ids.setdefault(text, writer.base + number)
        row = {
            "id": writer.base + number,
            "run_id": writer.run_id,
            "source": source,
            "text_id": writer.base + writer.text(text),
            "topic": topic,
            "vector": pack(vectors[text]) if first else None,
        }
        writer.add(tables.questions, row)
    return ids


def missing_questions(reader: Reader, config: Config) -> list[Question]:
    """Read the additional questions that a run needs for more rounds, from the config's file.

    A list that was read to its end is complete: it is cycled for any number of rounds.

    Args:
        reader: the stored run.
        config: the run's config with another number of rounds.

    Raises:
        InputError: the file cannot be read, or does not begin with the questions that are stored.
    """
    stored = [text for text, source in _stored_questions(reader) if source is not None]
    before = _question_limit(Config.from_json(reader.run.config), reader.run.per_round)
    limit = _question_limit(config, reader.run.per_round)
    if limit <= max(before, len(stored)) or len(stored) < before:
        return []
    current = read_questions(config.questions, limit)
    for number, text in enumerate(stored):
        if number == len(current) or current[number].text != text:
            position = "its end" if number == len(current) else current[number].source
            raise InputError(
                f"questions: {config.questions}: found {position} where run {reader.run.name} has "
                f"question {number}, {text[:60]!r}; expected the file that the run was started with"
            )
    return current[len(stored) :]


def _question_limit(config: Config, agents: int) -> int:
    wanted = agents * config.rounds
    return min(wanted, config.question_count or wanted)


def _stored_questions(reader: Reader) -> Iterator[tuple[str, str | None]]:
    q, t = tables.questions, tables.texts
    query = select(t.c.text, q.c.source).join(t, t.c.id == q.c.text_id)
    for row in reader.rows(query.where(reader.belongs_to_run(q.c.id)).order_by(q.c.id)):
        yield row.text, row.source


def add_questions(
    writer: Writer, reader: Reader, questions: Sequence[Question], embedder: Embedder
) -> None:
    """Pass the rows of additional questions to the writer.

    Args:
        writer: of the run to extend.
        reader: reads the stored questions: of that run, or of the run it was copied from.
        questions: the result of `missing_questions`.
        embedder: embeds the questions.

    Raises:
        InputError: the stored vectors are from another embedder.
    """
    if embedder.name != reader.run.embedder:
        raise InputError(
            f"memory.embedder: found {embedder.name}; expected {reader.run.embedder}, which "
            f"embedded the stored questions of run {reader.run.name}"
        )
    stored = [text for text, _ in _stored_questions(reader)]
    _write_questions(writer, questions, embedder, len(stored), frozenset(stored), _dim(reader))


def _dim(reader: Reader) -> int | None:
    """Return the length of a run's stored vectors; None if there are none."""
    q = tables.questions
    query = (
        select(q.c.vector).where(reader.belongs_to_run(q.c.id), q.c.vector.is_not(None)).limit(1)
    )
    return next((len(unpack(row.vector)) for row in reader.rows(query)), None)


def extend_questions(reader: Reader, config: Config) -> None:
    """Add the questions that a run needs for more rounds, in one transaction.

    Args:
        reader: the stored run, in a database that is open for writing.
        config: the run's config with another number of rounds; it is not stored here.

    Raises:
        InputError: see `missing_questions` and `add_questions`.
    """
    questions = missing_questions(reader, config)
    if questions:
        writer = Writer(reader.engine, reader.run.id)
        writer.open()
        add_questions(writer, reader, questions, embedder_of(config.memory.embedder))
        writer.commit()


def _prior_row(writer: Writer, agent: Agent, question_id: int, pair: Pair) -> dict[str, Any]:
    return {
        "id": writer.base + writer.new_id(tables.memories),
        "run_id": writer.run_id,
        "agent": agent.number,
        "round": PRIOR,
        "question_id": question_id,
        "text_id": writer.base + writer.text(pair.answer),
        "episode_id": None,
    }


def read_society(reader: Reader, memory: MemoryConfig) -> Society:
    """Read a society with its memories.

    Args:
        reader: the run.
        memory: its settings of memory.
    """
    question_index = QuestionIndex()
    numbers: dict[int, int] = {}  # question id: number in the index
    questions = _read_questions(reader, question_index, numbers)
    agents = read_agents(reader, memory.limit)
    _read_memories(reader, agents, numbers)
    return Society(agents, question_index, questions, memory.rule(reader.run.threshold))


def _read_questions(
    reader: Reader, question_index: QuestionIndex, numbers: dict[int, int]
) -> list[tuple[int, int]]:
    q, t = tables.questions, tables.texts
    query = select(q, t.c.text).join(t, t.c.id == q.c.text_id).where(reader.belongs_to_run(q.c.id))
    # Listed questions first, in order, so that numbers do not depend on later extensions.
    rows = list(reader.rows(query.order_by(q.c.source.is_(None), q.c.id)))
    packed = {row.text: row.vector for row in rows if row.vector is not None}
    texts = list(dict.fromkeys(row.text for row in rows))
    question_index.add(texts, np.array([unpack(packed[text]) for text in texts], np.float32))
    numbers.update((row.id, question_index.numbers[row.text]) for row in rows)
    return [(numbers[row.id], row.id) for row in rows if row.source is not None]


def _read_memories(reader: Reader, agents: Sequence[Agent], numbers: dict[int, int]) -> None:
    m, t = tables.memories, tables.texts
    query = (
        select(m, t.c.text)
        .join(t, t.c.id == m.c.text_id)
        .where(reader.belongs_to_run(m.c.id))
        .order_by(m.c.agent, m.c.round, m.c.id)
    )
    answers: dict[int, str] = {}  # prior answers are shared by many agents
    for row in reader.rows(query):
        answer = answers.setdefault(row.text_id, row.text)
        agents[row.agent].memory.remember(
            row.round, numbers[row.question_id], answer, row.id, row.text_id - reader.base
        )
