"""The exported runs and their exchanges, each run read from one database snapshot."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from agents.forms import Status
from agents.scale import Declaration
from sandbox.datasets.conversations import NOTHING, Aside, Conversation, asides
from sandbox.datasets.ids import row_id
from sandbox.datasets.schema import RunSchema, Schema
from sandbox.reading.declaration import declaration_of
from sandbox.reading.policy import policy_of
from storage import tables
from storage.copying import forked_from
from storage.errors import InputError
from storage.exchanges import (
    Exchange,
    GivenRating,
    Observation,
    exchanges,
    exchanges_of,
    snapshot,
)
from storage.model_names import ModelNames
from storage.reader import Reader

Rated = TypeVar("Rated", GivenRating, Observation)

SCRIPTED = "scripted"
"""The model name of the scripted backend, which generates texts without a language model."""

_BATCH = 100  # exchanges at a time, so that memory use is bounded


class Origin(NamedTuple):
    """A run that is exported.

    Attributes:
        place: its index among the runs.
        reader: the run.
        connection: the snapshot that all passes over the run read.
        declaration: its stages and scales.
        first_round: the first round to export; earlier rounds were copied from another exported
            run, which this one was forked from.
        people: the personas of its agents with their starting labels and models, by agent number.
        policy: name, version and hash of the policy; None for a run without one.
        backends: the backend of each model, by the model's name.
    """

    place: int
    reader: Reader
    connection: Connection
    declaration: Declaration
    first_round: int
    people: Mapping[int, Mapping[str, Any]]
    policy: str | None = None
    backends: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def single(cls, reader: Reader, connection: Connection) -> Origin:
        """The origin of all exchanges of one run, without its personas."""
        return cls(0, reader, connection, declaration_of(reader), 0, {}, _policy(reader))

    @property
    def schema(self) -> RunSchema:
        """The stages and scales of the run."""
        return RunSchema(str(self.reader.run.name), str(self.reader.run.world), self.declaration)


class SourcedExchange(NamedTuple):
    """An exchange with its run and the number of its question.

    Attributes:
        origin: its run.
        question: the number of its question.
        exchange: the exchange.
        numbers: the numbers of all questions and instructions, by text.
        aside: the rules that its texts broke, and its conversation.
    """

    origin: Origin
    question: int
    exchange: Exchange
    numbers: Mapping[str, int]
    aside: Aside = NOTHING

    @property
    def conversation(self) -> Conversation | None:
        """The conversation of a user with the model; None in worlds without."""
        return self.aside.conversation

    @property
    def rater(self) -> Mapping[str, Any] | None:
        """The persona of the user who scored the conversation; None in worlds without."""
        author = self.exchange.author
        return None if self.conversation is None or author is None else self.origin.people[author]

    def id(self, *parts: object) -> str:
        """Return an id that `inspect` accepts."""
        run = self.origin.reader.run
        return row_id(run.name, run.digest, self.exchange.episode, *parts)

    def strictly_rated(self) -> SourcedExchange:
        """The same without the ratings that were read leniently; their status stays."""
        exchange = self.exchange
        return self._replace(
            exchange=exchange._replace(
                ratings=tuple(map(_strict, exchange.ratings)),
                observations=tuple(map(_strict, exchange.observations)),
            )
        )

    def whole(self) -> SourcedExchange:
        """The same without the texts that were truncated and kept to their last whole sentence."""
        exchange, scene = self.exchange, self.exchange.scene
        texts = exchange.texts.items()
        kept = {name: None if name in exchange.shortened else text for name, text in texts}
        if scene is not None:
            scene = scene._replace(notes=tuple(note for note in scene.notes if not note.shortened))
        return self._replace(exchange=exchange._replace(texts=kept, scene=scene))

    def within_policy(self) -> SourcedExchange:
        """The same without the texts of stages that broke a rule of the policy."""
        if not self.aside.broken:
            return self
        texts = self.exchange.texts.items()
        kept = {name: None if name in self.aside.broken else text for name, text in texts}
        return self._replace(exchange=self.exchange._replace(texts=kept))

    @property
    def scripted(self) -> bool:
        """Whether any text or rating is from the scripted backend, not from a language model."""
        return SCRIPTED in self.exchange.models


def _strict(given: Rated) -> Rated:
    return given._replace(rating=None) if given.status == Status.LENIENT else given


def with_asides(rows: Iterable[SourcedExchange]) -> Iterator[SourcedExchange]:
    """Yield exchanges of one run with what the database holds beside them, in batches."""
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        origin = batch[0].origin
        base = origin.reader.base
        ids = [base + one.exchange.episode for one in batch]
        found = asides(origin.connection, ids, origin.schema.conversations)
        for one in batch:
            yield one._replace(aside=found.get(base + one.exchange.episode, NOTHING))


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
        self._questions_of_episodes = [
            _questions_of_episodes(origin, self._numbers) for origin in origins
        ]
        self.drawn: dict[int, int] = {}
        for origin, (ids, asked) in zip(origins, self._questions_of_episodes, strict=True):
            for episode, text in _instructions(origin):
                number = self._numbers.setdefault(text, len(self._numbers))
                self.drawn[number] = int(asked[np.searchsorted(ids, episode)])
        self.texts = list(self._numbers)

    @classmethod
    @contextmanager
    def of(cls, readers: Sequence[Reader]) -> Iterator[Source]:
        """Open a snapshot of each run; runs may be in progress.

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
            yield from with_asides(self._by_round(origin))

    def _by_round(self, origin: Origin) -> Iterator[SourcedExchange]:
        for exchange in exchanges(origin.reader, connection=origin.connection):
            if exchange.round >= origin.first_round:
                number = self._numbers[exchange.question]
                yield SourcedExchange(origin, number, exchange, self._numbers)

    def by_question(self, groups: Sequence[int]) -> Iterator[SourcedExchange]:
        """Yield all exchanges by question, then by run, then by episode.

        Args:
            groups: the group of each question; questions of a group are consecutive.
        """
        of_runs = (self._by_question(origin, np.array(groups)) for origin in self.origins)
        passes = [with_asides(rows) for rows in of_runs]
        return heapq.merge(
            *passes, key=lambda sourced: (groups[sourced.question], sourced.question)
        )

    def _by_question(self, origin: Origin, groups: Ints) -> Iterator[SourcedExchange]:
        ids, asked = self._questions_of_episodes[origin.place]
        order = np.lexsort((ids, asked, groups[asked] if len(groups) else asked))
        sorted_ids = (int(ids[index]) for index in order)
        rows = exchanges_of(origin.reader, origin.connection, sorted_ids)
        for index, exchange in zip(order, rows, strict=True):
            if exchange.round >= origin.first_round:
                yield SourcedExchange(origin, int(asked[index]), exchange, self._numbers)


def _origin(place: int, reader: Reader, connection: Connection, first_round: int) -> Origin:
    a = tables.agents
    query = select(a.c.number, a.c.label, a.c.persona).where(a.c.run_id == reader.run.id)
    models = ModelNames.of(reader, connection).of_agents(connection, reader.run.id)
    read: dict[tuple[str, str, str | None], Mapping[str, Any]] = {}
    people = {
        row.number: read.setdefault(
            (row.label, row.persona, models.get(row.number)),
            {**json.loads(row.persona), "label": row.label, "model": models.get(row.number)},
        )
        for row in connection.execute(query)
    }
    return Origin(
        place=place,
        reader=reader,
        connection=connection,
        declaration=declaration_of(reader),
        first_round=first_round,
        people=people,
        policy=_policy(reader),
        backends=_backends(reader, connection),
    )


def _backends(reader: Reader, connection: Connection) -> dict[str, str]:
    names, m = ModelNames.of(reader, connection).names, tables.models
    rows = connection.execute(select(m.c.id, m.c.settings).where(m.c.run_id == reader.run.id))
    return {names[row.id]: str(json.loads(row.settings)["backend"]) for row in rows}


def _policy(reader: Reader) -> str | None:
    policy = policy_of(reader)
    return None if policy is None else policy.title


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


def _questions_of_episodes(origin: Origin, numbers: dict[str, int]) -> tuple[Ints, Ints]:
    """Return the ids of the episodes of a run, and the number of each episode's question.

    Needs 16 bytes per episode.
    """
    e, q, t = tables.episodes, tables.questions, tables.texts
    of_run = e.c.run_id == origin.reader.run.id
    joined = select(q.c.text_id).join(e, e.c.question_id == q.c.id).where(of_run).distinct()
    wanted = select(t).where(t.c.id.in_(joined)).order_by(t.c.id)
    known = {
        row.id: numbers.setdefault(row.text, len(numbers))
        for row in origin.connection.execute(wanted)
    }
    query = select(e.c.id, q.c.text_id).join(q, q.c.id == e.c.question_id).where(of_run)
    rows = origin.connection.execute(
        query.order_by(e.c.id), execution_options={"yield_per": 10_000}
    )
    pairs = np.fromiter(
        ((row.id, known[row.text_id]) for row in rows), dtype=[("id", "i8"), ("asked", "i8")]
    )
    return pairs["id"].copy(), pairs["asked"].copy()


def _first_rounds(readers: Sequence[Reader]) -> Iterator[tuple[Reader, int]]:
    """Yield the runs, each with the first round that is not exported from another run."""
    exported: dict[tuple[str, str], float] = {}
    for reader in readers:
        key = (reader.run.name, reader.run.digest or str(reader.engine.url))
        if key in exported:
            raise InputError(f"RUN: found {reader.run.name} twice; expected different runs")
        exported[key] = float("inf")
    for reader in readers:
        copied = {(fork["run"], fork["digest"]): int(fork["round"]) for fork in _origins(reader)}
        shared = (min(exported.get(key, -1), last) for key, last in copied.items())
        yield reader, int(max(shared, default=-1)) + 1
        exported |= {key: max(exported.get(key, -1), last) for key, last in copied.items()}


def _origins(reader: Reader) -> Iterator[dict[str, Any]]:
    """Yield the run that a run was forked from, the run before it, and so on.

    Each names the last round that was copied.
    """
    origin = forked_from(reader)
    while origin is not None:
        yield origin
        origin = origin.get("forked_from")
