"""Read a run: rows as plain values, streamed where there may be many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row, Select, func, select

from storage import tables
from storage.errors import InputError
from storage.json_columns import check_run
from storage.tables import first_id


class Journalled(NamedTuple):
    """A call of the journal, with its full texts."""

    call_id: int
    form: str
    agent: int | None
    turn: int
    attempt: int
    prompt: str  # the user message
    prompt_hash: bytes
    reply: str | None
    cut: bool
    status: str
    error: str | None
    tokens_in: int | None
    tokens_out: int | None
    cached_tokens: int | None
    started: int
    took: int
    memory_id: int | None
    distance: float | None
    thinking: str | None
    expected: float | None
    raw: str | None
    further: str | None
    model: str

    @property
    def key(self) -> tuple[object, ...]:
        """Unique within the episode: form, agent, turn and attempt."""
        return (self.form, self.agent, self.turn, self.attempt)


class Reader:
    """Reads one run of a database.

    Args:
        engine: the database.
        run: the row of the run in the table `runs`.

    Raises:
        ValueError: the row is damaged: a JSON column has another content than is written.

    Attributes:
        base: the first id of the run's rows.
        stages: the names of the stages of an episode, in order.
    """

    def __init__(self, engine: Engine, run: Row[Any]) -> None:
        check_run(run)
        self.engine = engine
        self.run = run
        self.base = first_id(run.id)
        self._end = first_id(run.id + 1)
        self.stages: tuple[str, ...] = tuple(
            stage["name"] for stage in json.loads(run.declaration)["stages"]
        )

    @classmethod
    def find(cls, engine: Engine, name: str | None, place: str) -> Reader:
        """Open the run of this name, or with None the only run of the database.

        Raises:
            InputError: there is no such run, or several and no name.
        """
        with engine.connect() as connection:
            names = list(connection.scalars(select(tables.runs.c.name).order_by(tables.runs.c.id)))
        if not names:
            raise InputError(f"{place}: found an empty database; expected one with runs")
        if name is None and len(names) != 1:
            raise InputError(f"{place}: found {', '.join(names)}; expected #NAME of one of them")
        wanted = name or names[0]
        with engine.connect() as connection:
            row = connection.execute(
                select(tables.runs).where(tables.runs.c.name == wanted)
            ).first()
        if row is None:
            raise InputError(f"{place}: no run {wanted}; found {', '.join(names) or 'no run'}")
        return cls(engine, row)

    def rows(self, query: Select[Any]) -> Iterator[Any]:
        """Stream the rows of a query."""
        with self.engine.connect() as connection:
            streaming = connection.execution_options(yield_per=2000)
            with streaming.execute(query) as result:
                yield from result

    def first(self, query: Select[Any]) -> Any:
        """The first row of a query; None if there is none."""
        with self.engine.connect() as connection:
            return connection.execute(query).first()

    def scalar(self, query: Select[Any]) -> Any:
        """The first column of the first row of a query; None if there is none."""
        with self.engine.connect() as connection:
            return connection.scalar(query)

    def count(self, table: Any, *conditions: Any) -> int:
        """Count the rows of this run in a table with a column `id`."""
        query = (
            select(func.count())
            .select_from(table)
            .where(self.belongs_to_run(table.c.id), *conditions)
        )
        return int(self.scalar(query))

    def belongs_to_run(self, column: Any) -> Any:
        """The SQL condition that an id is in this run's range of ids."""
        return column.between(self.base, self._end - 1)

    def texts(self, numbers: Iterable[int]) -> dict[int, str]:
        """Read texts by their number within the run."""
        wanted = sorted({self.base + number for number in numbers})
        texts: dict[int, str] = {}
        with self.engine.connect() as connection:
            for start in range(0, len(wanted), 500):
                ids = wanted[start : start + 500]
                query = select(tables.texts).where(tables.texts.c.id.in_(ids))
                texts.update((row.id - self.base, row.text) for row in connection.execute(query))
        return texts

    def episodes_with_calls(self, *, incomplete_only: bool = False) -> set[int]:
        """The numbers of the episodes that have calls, or only of those that are not complete."""
        c, e = tables.calls, tables.episodes
        query = select(c.c.episode_id).distinct().where(self.belongs_to_run(c.c.episode_id))
        if incomplete_only:
            complete = select(e.c.id).where(self.belongs_to_run(e.c.id), e.c.observed)
            query = query.where(c.c.episode_id.not_in(complete))
        return {row.episode_id - self.base for row in self.rows(query)}

    def journal(self, episode: int) -> list[Journalled]:
        """The calls of one episode, by its number within the run, in journal order."""
        return self.calls_of([episode]).get(episode, [])

    def calls_of(self, episodes: Sequence[int]) -> dict[int, list[Journalled]]:
        """The calls of several episodes, by episode number, each list in journal order."""
        ids = [self.base + episode for episode in episodes]
        c, f, m = tables.calls, tables.forms, tables.models
        query = (
            select(c, f.c.name.label("form"), m.c.name.label("model"))
            .join(f, f.c.id == c.c.form_id)
            .join(m, m.c.id == c.c.model_id)
            .where(c.c.episode_id.in_(ids))
            .order_by(c.c.id)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        numbers = {
            number
            for row in rows
            for part in (row.prompt, row.reply, row.thinking)
            for number in parse_text_list(part)
        }
        texts = self.texts(numbers)
        calls: dict[int, list[Journalled]] = {}
        for row in rows:
            calls.setdefault(row.episode_id - self.base, []).append(_journalled(row, texts))
        return calls


def parse_text_list(part: str | None) -> list[int]:
    """Parse a column `prompt`, `reply` or `thinking` into the numbers of its texts."""
    return [int(number) for number in part.split(",")] if part else []


def parse_further(part: str | None) -> list[tuple[int, float]]:
    """Parse a column `further` into numbers of memories within the run, with their distances."""
    pairs = [pair.split(":") for pair in part.split(",")] if part else []
    return [(int(number), float(distance)) for number, distance in pairs]


def join_texts(part: str, texts: dict[int, str]) -> str:
    """Join the texts that a column `prompt`, `reply` or `thinking` lists."""
    return "".join([texts[number] for number in parse_text_list(part)])


def _journalled(row: Row[Any], texts: dict[int, str]) -> Journalled:
    return Journalled(
        call_id=row.id,
        form=row.form,
        agent=row.agent,
        turn=row.turn,
        attempt=row.attempt,
        prompt=join_texts(row.prompt, texts),
        prompt_hash=row.prompt_hash,
        reply=None if row.reply is None else join_texts(row.reply, texts),
        cut=row.cut,
        status=row.status,
        error=row.error,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        cached_tokens=row.cached_tokens,
        started=row.started,
        took=row.took,
        memory_id=row.memory_id,
        distance=row.distance,
        thinking=None if row.thinking is None else join_texts(row.thinking, texts),
        expected=row.expected,
        raw=row.raw,
        further=row.further,
        model=row.model,
    )
