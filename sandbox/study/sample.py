"""Playing a sample of a run's episodes, so that `estimate` can extrapolate from it.

The sample has episodes of the first round and of later rounds. It is played with the config's own
backends in a temporary database. An episode of a later round is played in its own round, with its
own author, peers and question. The memories that its agents would have by then are filled in with
sampled answers of the rounds before, so that memory is recalled as often as in the run itself. The
sample is played in a few batches, so that there are answers to fill in.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, func, select, union_all

from agents.agent import Agent
from agents.chance import chance
from agents.forms import UNPARSED, Status
from agents.memory import Memory
from sandbox.backends import started
from sandbox.backends.base import Backend, BackendDown, Call, Reply
from sandbox.config import Config
from sandbox.engine.journal import Journal
from sandbox.engine.layers import Answer, Result
from sandbox.engine.run import Blueprint, create
from sandbox.engine.runner import Runner
from sandbox.engine.scheduler import Planned
from sandbox.engine.society import Society
from sandbox.interrupts import run_coroutine
from sandbox.reading.calls import call
from sandbox.study.simulate import SampledCall, SampledEpisode
from storage import database, tables
from storage.reader import Reader
from storage.writer import Writer
from worlds.base import Meeting

Numbers = NDArray[np.float64]

FIGURES = ("calls", "tokens_in", "tokens_out", "database_bytes")
"""The columns of `Sample.strata`."""

FILLED = 128
"""Rounds from which on an episode is played as if it were one of the next rounds."""

_BATCHES = 4  # of equal size; the first one has all episodes of the first round
_POOL = 8  # the most recent sampled answers, from which one is drawn
_INDEX_START = 80_000  # bytes of the full-text index for its vocabulary and for merging
_INDEX_PER_CHARACTER = 0.64  # bytes per indexed character, measured with 36 to 5,000 episodes
_INDEX_ERROR = 0.3  # relative standard error of these bytes: vocabularies differ
_ROW = 40  # bytes of a row of a summary table
_PER_ROUND, _PER_AGENT = 75 * _ROW, 2 * _ROW  # besides a row for each measure of an agent


class Sample(NamedTuple):
    """What playing the sample took.

    Attributes:
        strata: for the first round and for later rounds: the number of episodes that the run has,
            and the figures of the sampled ones, shape (episodes, 4), in the order of `FIGURES`.
        start_bytes: size of the database before the first call.
        size_error: standard error of its growth in bytes, because pages are partly filled.
        seconds: time during which at least one call was in flight.
        failed: the number of calls without a reply.
        unparsed: the number of replies that cannot be used.
        problems: what went wrong with both, in words.
        uncounted: the number of calls whose backend reports no token counts.
        chain: mean seconds of the calls of an episode that wait for each other.
        episodes: the calls of each sampled episode, for a simulation.
    """

    strata: list[tuple[int, Numbers]]
    start_bytes: int
    size_error: float
    seconds: float
    failed: int
    unparsed: int
    problems: list[str]
    uncounted: int
    chain: float
    episodes: list[SampledEpisode]

    @property
    def sums(self) -> Numbers:
        """The figures of all sampled episodes."""
        total: Numbers = sum((rows.sum(0) for _, rows in self.strata), np.zeros(len(FIGURES)))
        return total


class _Recorder:
    """A layer that records the calls of each episode, and which of them waited for others."""

    def __init__(self) -> None:
        self._calls: dict[int, list[SampledCall]] = {}
        self._rounds: dict[int, int] = {}

    def layer(self, answer: Answer) -> Answer:
        """Wrap an `Answer`; see `sandbox.engine.layers`."""

        async def recorded(call: Call) -> Result:
            number = call.name.episode
            self._rounds[number] = call.name.round
            ended = self._calls.setdefault(number, [])
            observing = call.priority // 1000 > call.name.round  # see sandbox.engine.calls
            before = [one.level for one in ended if observing or not one.observing]
            result = await answer(call)
            await asyncio.sleep(0)  # until the calls that are asked together have begun, too
            reply = result.reply or Reply("")
            written, cached = reply.tokens_out or 0, reply.cached_tokens or 0
            ended.append(
                SampledCall(
                    level=max(before, default=-1) + 1,
                    observing=observing,
                    uncached=(reply.tokens_in or 0) - cached,
                    cached=cached,
                    written=written,
                    constrained=written if call.shape.regex is not None else 0,
                )
            )
            return result

        return recorded

    def episodes(self) -> list[SampledEpisode]:
        """The recorded episodes."""
        return [
            SampledEpisode(self._rounds[number], tuple(calls))
            for number, calls in sorted(self._calls.items())
            if calls
        ]


class NoSample(Exception):
    """Nothing could be sampled, since a model is away or refuses every call; in one line."""


class _Answer(NamedTuple):
    """The answer that an agent remembers from a sampled episode: arguments of `Memory.remember`."""

    text: str
    memory_id: int
    text_id: int


class _Pool(NamedTuple):
    """Answers of sampled episodes in the order of their rounds; None where an episode failed."""

    rounds: list[int]
    labels: list[str]
    answers: list[_Answer | None]

    def draw(self, random: Random, round: int, label: str) -> _Answer | None:
        """Draw one of the latest answers up to a round, from agents of the same label if any."""
        end = bisect_right(self.rounds, round)
        same_label = [index for index in range(end) if self.labels[index] == label]
        return self.answers[random.choice((same_label or range(end))[-_POOL:])]


class _Sampler:
    """Plays single episodes of any round, with memories that are filled in."""

    def __init__(self, runner: Runner, per_round: int) -> None:
        self._runner = runner
        self._per_round = per_round
        self._meetings: list[dict[int, Meeting]] = []  # by round and author
        self._pool = _Pool([], [], [])

    def fill_from(self, pool: _Pool, rounds: int) -> None:
        """Set the answers that fill in memories of the rounds before a round."""
        self._pool = pool
        for round in range(len(self._meetings), rounds):
            meetings = self._meet(round)
            self._meetings.append(
                {meeting.author: meeting for meeting in meetings if meeting.author is not None}
            )

    def _meet(self, round: int) -> Sequence[Meeting]:
        return self._runner.world.meet(self._runner.society.agents, round)

    async def play(self, numbers: Sequence[int]) -> None:
        """Play the episodes with these numbers concurrently."""
        tasks = [asyncio.create_task(self._episode(number)) for number in numbers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _episode(self, number: int) -> None:
        round, slot = divmod(number, self._per_round)
        planned = Planned(round, number, self._meet(round)[slot])
        society = self._with_memories(planned) if round else self._runner.society
        await self._runner.play_episode(planned, society)

    def _with_memories(self, planned: Planned) -> Society:
        """The society, with filled-in memories for the agents that take part."""
        agents = list(self._runner.society.agents)
        author, peers, _ = planned.meeting
        for number in {*peers} if author is None else {author, *peers}:
            memory = self._filled_memory(agents[number], planned.round)
            agents[number] = replace(agents[number], memory=memory)
        return replace(self._runner.society, agents=agents)

    def _filled_memory(self, agent: Agent, rounds: int) -> Memory:
        memory = deepcopy(agent.memory)
        for round in range(rounds):
            random = chance(self._runner.config.seed, "estimate", agent.number, round)
            answer = self._pool.draw(random, round, agent.label)
            meeting = self._meetings[round].get(agent.number)
            if answer is not None and meeting is not None:
                question, _ = self._runner.society.question(meeting)
                memory.remember(round, question, *answer)
        return memory


def play_sample(
    blueprint: Blueprint, file: Path, episodes: int, backends: Mapping[str, Backend]
) -> Sample:
    """Play a sample of a run's episodes in a new database.

    Args:
        blueprint: the run.
        file: the database.
        episodes: the sample size.
        backends: by role.

    Raises:
        NoSample: a backend cannot be reached, or refuses every call.
    """
    config = blueprint.config
    address = create(blueprint, str(file))
    start_bytes = file.stat().st_size
    first, later = _draw_episodes(blueprint.per_round, config, episodes)
    with database.writing(address.url) as engine:
        reader = Reader.find(engine, config.name, str(address))
        writer = Writer(engine, reader.run.id)
        writer.open()
        recorder = _Recorder()
        runner = Runner.load(
            reader, writer, backends, Journal(reader), config=config, layers=[recorder.layer]
        )
        try:
            run_coroutine(_play_batches(runner, reader, first, later))
        except BackendDown as error:
            raise NoSample(f"config {config.name}: no sample could be played: {error}") from None
        by_episode, seconds = _sums_by_episode(reader), _seconds_in_flight(reader)
        page_error = _page_error(engine)
        index, fixed = _INDEX_PER_CHARACTER * _indexed_characters(reader), _fixed_bytes(engine)
        problems = list(_problems(reader))
    weight = sum(sums["weight"] for sums in by_episode.values())
    growth = max(0.0, file.stat().st_size - start_bytes - fixed + index)
    bytes_per_weight = growth / weight if weight else 0.0
    per_agent = _PER_AGENT + _ROW * len(blueprint.world.declaration.measures)
    start_bytes += _INDEX_START + _PER_ROUND * config.rounds + per_agent * len(blueprint.agents)
    per_round = blueprint.per_round
    strata = [
        (size, np.array([_figures(by_episode.get(number), bytes_per_weight) for number in numbers]))
        for size, numbers in ((per_round, first), (per_round * (config.rounds - 1), later))
        if numbers
    ]
    sums = list(by_episode.values())
    return Sample(
        strata=strata,
        start_bytes=start_bytes,
        size_error=math.hypot(page_error, _INDEX_ERROR * index),
        seconds=seconds,
        failed=sum(row["failed"] for row in sums),
        unparsed=sum(row["unparsed"] for row in sums),
        problems=problems,
        uncounted=sum(row["uncounted"] for row in sums),
        chain=sum(_chain(row) for row in sums) / max(1, len(sums)) / 1000,
        episodes=recorder.episodes(),
    )


def _draw_episodes(per_round: int, config: Config, episodes: int) -> tuple[list[int], list[int]]:
    """Draw episodes of the first round, and of later ones one from each of equal intervals.

    A quarter is from the first round, or its proportional share if that is more.
    """
    random = chance(config.seed, "estimate")
    share = max(episodes // 4, episodes // config.rounds)
    first = random.sample(range(per_round), min(share, per_round))
    left = per_round * (config.rounds - 1)
    count = min(episodes - len(first), left)
    bounds = [per_round + left * index // max(count, 1) for index in range(count + 1)]
    later = [random.randrange(*interval) for interval in pairwise(bounds)]
    return sorted(first), _in_first_rounds(later, per_round)


def _in_first_rounds(episodes: Sequence[int], per_round: int) -> list[int]:
    """The same episodes, with those after `FILLED` rounds moved to the rounds that follow these.

    By then memories have what they are going to have, so that the cost of a sample does not grow
    with the number of rounds.
    """
    moved, late = [], 0
    for number in episodes:
        round, slot = divmod(number, per_round)
        late += round >= FILLED
        moved.append(min(round, FILLED + late) * per_round + slot if late else number)
    return moved


async def _play_batches(
    runner: Runner, reader: Reader, first: Sequence[int], later: Sequence[int]
) -> None:
    per_round = reader.run.per_round
    sampler = _Sampler(runner, per_round)
    async with started(runner.backends.values()):
        await sampler.play(first)
        size = -(-len(later) // (_BATCHES - 1)) or 1
        for start in range(0, len(later), size):
            batch = later[start : start + size]
            await runner.flush()
            sampler.fill_from(_read_pool(reader), batch[-1] // per_round)
            await sampler.play(batch)
        await runner.flush()


def _read_pool(reader: Reader) -> _Pool:
    a, e, m, t = tables.agents, tables.episodes, tables.memories, tables.texts
    query = (
        select(e.c.round, a.c.label, m.c.id, m.c.text_id, t.c.text)
        .join(a, (a.c.run_id == e.c.run_id) & (a.c.number == e.c.author))
        .outerjoin(m, m.c.episode_id == e.c.id)
        .outerjoin(t, t.c.id == m.c.text_id)
        .where(reader.belongs_to_run(e.c.id))
        .order_by(e.c.id)
    )
    pool = _Pool([], [], [])
    for row in reader.rows(query):
        pool.rounds.append(row.round)
        pool.labels.append(row.label)
        pool.answers.append(
            None if row.id is None else _Answer(row.text, row.id, row.text_id - reader.base)
        )
    return pool


def _page_error(engine: Engine) -> float:
    """Standard error in bytes: the last page of each table and index is filled in part."""
    with engine.connect() as connection:
        page = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        query = "SELECT count(*) FROM sqlite_master WHERE rootpage > 0"
        trees = connection.exec_driver_sql(query).scalar_one()
    return float(page * math.sqrt(trees * 2 / 12))


def _fixed_bytes(engine: Engine) -> int:
    """Bytes that do not grow with the number of episodes.

    Sums by round and agent, the vocabulary of the full-text index, and pages that its merging has
    left free.
    """
    with engine.connect() as connection:
        words, rows, free, page = (
            int(connection.exec_driver_sql(query).scalar_one())
            for query in (
                "SELECT sum(length(block)) FROM words_data",
                "SELECT (SELECT count(*) FROM outcomes) + (SELECT count(*) FROM rater_sums) "
                "+ (SELECT count(*) FROM agent_sums)",
                "PRAGMA freelist_count",
                "PRAGMA page_size",
            )
        )
    return words + _ROW * rows + free * page


_SCENE_TEXTS = (
    tables.acts.c.text_id,
    tables.acts.c.why_id,
    tables.acts.c.critique_id,
    tables.parts.c.name_id,
    tables.parts.c.about_id,
    tables.notes.c.text_id,
)


def _indexed_characters(reader: Reader) -> int:
    """Characters in the full-text index."""
    e, q, t = tables.episodes, tables.questions, tables.texts
    ids = union_all(
        select(q.c.text_id).join(e, e.c.question_id == q.c.id),
        select(tables.stage_texts.c.text_id),
        select(tables.ratings.c.reason_id),
        select(tables.observations.c.reason_id),
        *(select(column) for column in _SCENE_TEXTS),
    ).subquery()
    query = select(func.sum(func.length(t.c.text))).join(ids, t.c.id == next(iter(ids.c)))
    return int(reader.scalar(query) or 0)


def _sums_by_episode(reader: Reader) -> dict[int, Any]:
    """Sums over the calls of each sampled episode, by its number.

    `weight` is roughly proportional to the bytes of an episode: the growth of the file is
    distributed by it. `chain_end` is the end of the last call that other calls wait for.
    """
    c, m = tables.calls, tables.models
    tokens_in, tokens_out = (
        func.coalesce(func.sum(column), 0) for column in (c.c.tokens_in, c.c.tokens_out)
    )
    query = (
        select(
            c.c.episode_id,
            func.count().label("calls"),
            tokens_in.label("tokens_in"),
            tokens_out.label("tokens_out"),
            (func.sum(100 + func.length(c.c.prompt)) + 4 * tokens_out).label("weight"),
            func.count().filter(c.c.status == Status.FAILED).label("failed"),
            func.count().filter(c.c.status.in_(UNPARSED)).label("unparsed"),
            func.count()
            .filter(c.c.tokens_out.is_(None), c.c.status != Status.FAILED)
            .label("uncounted"),
            func.min(c.c.started).label("first_start"),
            func.max(c.c.started + c.c.took).filter(m.c.role != "observer").label("chain_end"),
        )
        .join(m, m.c.id == c.c.model_id)
        .where(reader.belongs_to_run(c.c.episode_id))
        .group_by(c.c.episode_id)
    )
    return {row.episode_id - reader.base: row._mapping for row in reader.rows(query)}


def _chain(sums: Any) -> float:
    """Milliseconds of the calls of an episode that wait for each other."""
    end = sums["chain_end"]
    return 0.0 if end is None else float(end - sums["first_start"])


def _problems(reader: Reader) -> Iterator[str]:
    """Describe the calls that failed and the replies that cannot be used, with one of each."""
    c, f = tables.calls, tables.forms
    total = reader.scalar(select(func.count()).where(reader.belongs_to_run(c.c.id)))
    query = (
        select(f.c.name, c.c.status, func.count().label("count"), func.max(c.c.id).label("last"))
        .join(f, f.c.id == c.c.form_id)
        .where(reader.belongs_to_run(c.c.id), c.c.status != Status.OK)
        .group_by(f.c.name, c.c.status)
        .order_by(func.count().desc(), f.c.name)
    )
    for row in reader.rows(query):
        last = call(reader, row.last - reader.base)
        example = (last.error or last.reply or last.raw or "")[:160]
        kind = "failed" if row.status == Status.FAILED else f"had a reply that is {row.status}"
        yield f"{row.count:,} of {total:,} calls of the sample ({row.name}) {kind}: {example!r}"


def _figures(sums: Any, bytes_per_weight: float) -> list[float]:
    """The figures of an episode; zeros for one that sent no call."""
    if sums is None:
        return [0.0] * len(FIGURES)
    database_bytes = sums["weight"] * bytes_per_weight
    return [sums["calls"], sums["tokens_in"], sums["tokens_out"], database_bytes]


def _seconds_in_flight(reader: Reader) -> float:
    """Seconds during which at least one call was in flight."""
    c = tables.calls
    busy, until = 0, 0
    query = select(c.c.started, c.c.took).where(reader.belongs_to_run(c.c.id)).order_by(c.c.started)
    for start, took in reader.rows(query):
        busy += max(0, start + took - max(start, until))
        until = max(until, start + took)
    return busy / 1000
