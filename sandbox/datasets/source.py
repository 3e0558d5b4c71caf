"""The exported runs, each read from one snapshot, and their exchanges."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from agents.scale import Declaration
from sandbox.datasets.ids import row_id
from sandbox.datasets.schema import RunSchema, Schema
from sandbox.reading.declaration import declaration_of
from storage import tables
from storage.copying import forked_from
from storage.errors import InputError
from storage.exchanges import Exchange, exchanges, exchanges_of, snapshot
from storage.reader import Reader

SCRIPTED = "scripted"
"""The model name of the backend that composes texts by rules, without a language model."""


class Origin(NamedTuple):
    """A run that exchanges are read from.

    Attributes:
        place: its index among the runs.
        reader: the run.
        connection: the snapshot that all passes over the run read.
        declaration: its stages and scales.
        first_round: the first round to export; those before belong to another exported run, which
            this one was forked from.
        people: the personas of its agents, each with its starting label, by number.
    """

    place: int
    reader: Reader
    connection: Connection
    declaration: Declaration
    first_round: int
    people: Mapping[int, Mapping[str, Any]]

    @classmethod
    def single(cls, reader: Reader, connection: Connection) -> Origin:
        """The origin of all exchanges of one run, without its personas."""
        return cls(0, reader, connection, declaration_of(reader), 0, {})

    @property
    def schema(self) -> RunSchema:
        """What the run records."""
        return RunSchema(str(self.reader.run.name), str(self.reader.run.world), self.declaration)


class SourcedExchange(NamedTuple):
    """An exchange with its run and the number of its question.

    Attributes:
        origin: its run.
        question: the number of its question.
        exchange: the exchange.
        numbers: the numbers of all questions and instructions, by text.
    """

    origin: Origin
    question: int
    exchange: Exchange
    numbers: Mapping[str, int]

    def id(self, *parts: object) -> str:
        """Return an id that `inspect` accepts."""
        run = self.origin.reader.run
        return row_id(run.name, run.digest, self.exchange.episode, *parts)

    @property
    def scripted(self) -> bool:
        """Whether any text or rating is from the scripted backend, not from a language model."""
        return SCRIPTED in self.exchange.models


Ints = npt.NDArray[np.int64]


class Source:
    """The runs of an export.

    Attributes:
        origins: the runs.
        schema: the stages and scales of all of them.
        texts: their distinct questions, and the instructions drawn from their scenes, by number.
        drawn: the number of the question that an instruction was drawn from, by the number of the
            instruction.
    """

    def __init__(self, origins: Sequence[Origin]) -> None:
        self.origins = origins
        self.schema = Schema([origin.schema for origin in origins])
        self._numbers: dict[str, int] = {}
        self._asked = [_asked(origin, self._numbers) for origin in origins]
        self.drawn: dict[int, int] = {}
        for origin, (ids, asked) in zip(origins, self._asked, strict=True):
            for episode, text in _instructions(origin):
                number = self._numbers.setdefault(text, len(self._numbers))
                self.drawn[number] = int(asked[np.searchsorted(ids, episode)])
        self.texts = list(self._numbers)

    @classmethod
    @contextmanager
    def of(cls, readers: Sequence[Reader]) -> Iterator[Source]:
        """Open a snapshot of each run; a run may still be played.

        Raises:
            InputError: a run is given twice.
        """
        with ExitStack() as stack:
            origins = [
                _origin(place, reader, stack.enter_context(snapshot(reader)), first)
                for place, (reader, first) in enumerate(_first_rounds(readers))
            ]
            yield cls(origins)

    @property
    def seed(self) -> int:
        """The first run's seed."""
        return int(self.origins[0].reader.run.seed)

    def by_round(self) -> Iterator[SourcedExchange]:
        """Yield all exchanges, run by run, in canonical order."""
        for origin in self.origins:
            for exchange in exchanges(origin.reader, connection=origin.connection):
                if exchange.round >= origin.first_round:
                    number = self._numbers[exchange.question]
                    yield SourcedExchange(origin, number, exchange, self._numbers)

    def by_question(self, groups: Sequence[int]) -> Iterator[SourcedExchange]:
        """Yield all exchanges by question, those about one by run, then by episode.

        Args:
            groups: the group of each question; questions of one group follow each other.
        """
        passes = [self._by_question(origin, np.array(groups)) for origin in self.origins]
        return heapq.merge(
            *passes, key=lambda sourced: (groups[sourced.question], sourced.question)
        )

    def _by_question(self, origin: Origin, groups: Ints) -> Iterator[SourcedExchange]:
        ids, asked = self._asked[origin.place]
        order = np.lexsort((ids, asked, groups[asked] if len(groups) else asked))
        sorted_ids = (int(ids[at]) for at in order)
        rows = exchanges_of(origin.reader, origin.connection, sorted_ids)
        for at, exchange in zip(order, rows, strict=True):
            if exchange.round >= origin.first_round:
                yield SourcedExchange(origin, int(asked[at]), exchange, self._numbers)


def _origin(place: int, reader: Reader, connection: Connection, first_round: int) -> Origin:
    a = tables.agents
    query = select(a.c.number, a.c.label, a.c.persona).where(a.c.run_id == reader.run.id)
    read: dict[tuple[str, str], Mapping[str, Any]] = {}
    people = {
        row.number: read.setdefault(
            (row.label, row.persona), {**json.loads(row.persona), "label": row.label}
        )
        for row in connection.execute(query)
    }
    return Origin(place, reader, connection, declaration_of(reader), first_round, people)


def _instructions(origin: Origin) -> Iterator[tuple[int, str]]:
    """Yield the instructions drawn from a run's scenes, each with the id of its episode."""
    n, t = tables.notes, tables.texts
    query = (
        select(n.c.episode_id, t.c.text)
        .join(t, t.c.id == n.c.text_id)
        .where(origin.reader.belongs_to_run(n.c.episode_id), n.c.kind == "instruction")
        .order_by(n.c.episode_id, n.c.number)
    )
    yield from (tuple(row) for row in origin.connection.execute(query))


def _asked(origin: Origin, numbers: dict[str, int]) -> tuple[Ints, Ints]:
    """Return the ids of a run's episodes and the number of each one's question.

    They take 16 bytes an episode.
    """
    e, q, t = tables.episodes, tables.questions, tables.texts
    mine = e.c.run_id == origin.reader.run.id
    joined = select(q.c.text_id).join(e, e.c.question_id == q.c.id).where(mine).distinct()
    wanted = select(t).where(t.c.id.in_(joined)).order_by(t.c.id)
    known = {
        row.id: numbers.setdefault(row.text, len(numbers))
        for row in origin.connection.execute(wanted)
    }
    query = select(e.c.id, q.c.text_id).join(q, q.c.id == e.c.question_id).where(mine)
    rows = origin.connection.execute(
        query.order_by(e.c.id), execution_options={"yield_per": 10_000}
    )
    pairs = np.fromiter(
        ((row.id, known[row.text_id]) for row in rows), dtype=[("id", "i8"), ("asked", "i8")]
    )
    return pairs["id"].copy(), pairs["asked"].copy()


def _first_rounds(readers: Sequence[Reader]) -> Iterator[tuple[Reader, int]]:
    """Yield the runs, each with its first round that no other of them has exported."""
    held: dict[tuple[str, str], float] = {}
    for reader in readers:
        key = (reader.run.name, reader.run.digest or str(reader.engine.url))
        if key in held:
            raise InputError(f"RUN: found {reader.run.name} twice; expected each run once")
        held[key] = float("inf")
    for reader in readers:
        taken_over = {(one["run"], one["digest"]): int(one["round"]) for one in _origins(reader)}
        shared = (min(held.get(key, -1), last) for key, last in taken_over.items())
        yield reader, int(max(shared, default=-1)) + 1
        held |= {key: max(held.get(key, -1), last) for key, last in taken_over.items()}


def _origins(reader: Reader) -> Iterator[dict[str, Any]]:
    """Yield the run that a run was forked from, the run before it, and so on.

    Each names the last round that was copied.
    """
    origin = forked_from(reader)
    while origin is not None:
        yield origin
        origin = origin.get("forked_from")
