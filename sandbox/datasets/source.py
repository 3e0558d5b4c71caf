"""The runs that are exported, as they were at one moment, and their exchanges."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from sandbox.datasets.ids import row_id
from storage import tables
from storage.copying import forked_from
from storage.errors import InputError
from storage.exchanges import Exchange, exchanges, exchanges_of, snapshot
from storage.reader import Reader

SCRIPTED = "scripted"
"""The model name of the backend that composes texts by rules, without a language model."""


class Origin(NamedTuple):
    """One of the runs.

    Attributes:
        place: its place among them, from 0.
        reader: the run.
        connection: where all passes over the run read from.
        first_round: rounds before are those of another run that is exported as well, which it
            was forked from.
        people: the personas of its agents, each with its starting label, by number.
    """

    place: int
    reader: Reader
    connection: Connection
    first_round: int
    people: Mapping[int, Mapping[str, Any]]


class Told(NamedTuple):
    """An exchange, where it is from, and what is asked in it.

    Attributes:
        origin: its run.
        question: the number of its question.
        exchange: what was said.
        numbers: the numbers of all questions and instructions.
    """

    origin: Origin
    question: int
    exchange: Exchange
    numbers: Mapping[str, int]

    def id(self, *parts: object) -> str:
        """An id that `inspect` takes back to the exchange."""
        run = self.origin.reader.run
        return row_id(run.name, run.digest, self.exchange.episode, *parts)

    @property
    def scripted(self) -> bool:
        """Whether any text or rating was composed by rules, without a language model."""
        return SCRIPTED in self.exchange.models


Ints = npt.NDArray[np.int64]


class Source:
    """The runs of an export.

    Attributes:
        origins: the runs.
        texts: the distinct questions of all of them, and the instructions drawn from their scenes;
            the number of one is its place.
        drawn: for each number of an instruction that of the question it was drawn from.
    """

    def __init__(self, origins: Sequence[Origin]) -> None:
        self.origins = origins
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
        """The runs of these readers; each may still be going on.

        Raises:
            InputError: a run is there twice.
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

    def by_round(self) -> Iterator[Told]:
        """All exchanges, run by run, in canonical order."""
        for origin in self.origins:
            for one in exchanges(origin.reader, connection=origin.connection):
                if one.round >= origin.first_round:
                    yield Told(origin, self._numbers[one.question], one, self._numbers)

    def by_question(self, groups: Sequence[int]) -> Iterator[Told]:
        """All exchanges, those about one question together: by run, then by episode.

        Args:
            groups: the group of each question; those of one group follow each other.
        """
        passes = [self._by_question(origin, np.array(groups)) for origin in self.origins]
        return heapq.merge(*passes, key=lambda told: (groups[told.question], told.question))

    def _by_question(self, origin: Origin, groups: Ints) -> Iterator[Told]:
        ids, asked = self._asked[origin.place]
        order = np.lexsort((ids, asked, groups[asked] if len(groups) else asked))
        sorted_ids = (int(ids[at]) for at in order)
        rows = exchanges_of(origin.reader, origin.connection, sorted_ids)
        for at, one in zip(order, rows, strict=True):
            if one.round >= origin.first_round:
                yield Told(origin, int(asked[at]), one, self._numbers)


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
    return Origin(place, reader, connection, first_round, people)


def _instructions(origin: Origin) -> Iterator[tuple[int, str]]:
    """The instructions drawn from a run's scenes, each with the id of its episode."""
    n, t = tables.notes, tables.texts
    query = (
        select(n.c.episode_id, t.c.text)
        .join(t, t.c.id == n.c.text_id)
        .where(origin.reader.mine(n.c.episode_id), n.c.kind == "instruction")
        .order_by(n.c.episode_id, n.c.number)
    )
    yield from (tuple(row) for row in origin.connection.execute(query))


def _asked(origin: Origin, numbers: dict[str, int]) -> tuple[Ints, Ints]:
    """The ids of a run's episodes and the number of what each is about, 16 bytes an episode."""
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
    """The runs, each with the first round that no other one, or one before, holds as well."""
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
    """What a run was forked from, and what that was, each with the last round taken over."""
    origin = forked_from(reader)
    while origin is not None:
        yield origin
        origin = origin.get("forked_from")
