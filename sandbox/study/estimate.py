"""Estimates before a run: calls, tokens, bytes and time, from a sample of its own episodes.

A sample of the run's episodes, of the first round and of later ones, is played with the config's
own backends in a database that is thrown away. An episode of a later round is played in its true
round, with its true author, peers and question; what those taking part would have answered before
is filled in with sampled answers of the rounds next to it. So memory is recalled as often as in the
run itself. The sample is played in a few stages, so that there are answers to fill in.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
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
from agents.memory import Memory
from sandbox.backends import backends_of, started
from sandbox.backends.base import Backend, BackendDown
from sandbox.concurrency import run_coroutine
from sandbox.config import Config
from sandbox.engine.journal import Journal
from sandbox.engine.run import Blueprint, create
from sandbox.engine.runner import Runner
from sandbox.engine.scheduler import Planned
from sandbox.engine.society import Society
from storage import database, tables
from storage.errors import InputError
from storage.reader import Reader
from storage.writer import Writer
from worlds.base import Meeting

Data = dict[str, Any]
Numbers = NDArray[np.float64]

FEWEST = 8
"""Episodes in the smallest sample."""

_STAGES = 4  # of equal size; the first one has all episodes of the first round
_POOL = 8  # sampled answers from which one is drawn
_RANGE = (5, 95)  # percentiles: 90 % of resamples
_RESAMPLES = 2000
_FIGURES = ("calls", "tokens_in", "tokens_out", "database_bytes")
_INDEX_START = 64_000  # bytes of the index of words for its vocabulary and its merging ...
_INDEX_ERROR = 0.3  # standard error of that: wordings have more or fewer different words
_ROW = 40  # bytes of a row of sums
_A_ROUND, _AN_AGENT = 75 * _ROW, 2 * _ROW
_INDEX_A_CHARACTER = 0.64  # ... and for what is said: measured with 36 to 5,000 episodes


class Rates(NamedTuple):
    """How fast models are served: tokens a second on one GPU, and how many GPUs there are.

    A GPU reads prompts or writes replies: its times for both are added up.
    """

    tokens_in: float
    tokens_out: float
    gpus: int


def given_rates(
    tokens_in: float | None, tokens_out: float | None, gpus: int | None
) -> Rates | None:
    """The rates that somebody gives; None where both speeds are missing.

    Raises:
        InputError: one is missing, or a number is not above 0.
    """
    given = {"--tokens-in-per-second": tokens_in, "--tokens-out-per-second": tokens_out}
    for option, value in {**given, "--gpus": gpus}.items():
        if value is not None and not value > 0:
            raise InputError(f"{option}: found {value:g}; expected a number above 0")
    missing = [option for option, value in given.items() if value is None]
    if len(missing) == 1:
        raise InputError(f"{missing[0]}: missing; expected both speeds or neither")
    return (
        None if tokens_in is None or tokens_out is None else Rates(tokens_in, tokens_out, gpus or 1)
    )


class _Answer(NamedTuple):
    """What an agent came to believe in a sampled episode, as `Memory.remember` takes it."""

    text: str
    memory_id: int
    text_id: int


class _Pool(NamedTuple):
    """Answers of sampled episodes in the order of their rounds; None where an episode failed."""

    rounds: list[int]
    labels: list[str]
    answers: list[_Answer | None]

    def draw(self, draw: Random, round: int, label: str) -> _Answer | None:
        """One of the latest answers up to a round, of agents of the same label if there is one."""
        end = bisect_right(self.rounds, round)
        own = [place for place in range(end) if self.labels[place] == label] or range(end)
        return self.answers[draw.choice(own[-_POOL:])]


class _Sample(NamedTuple):
    """What was played.

    Attributes:
        strata: for the first round and for the later ones: how many episodes the run has of them,
            and the figures of the sampled ones, shape (episodes, 4), in the order of `_FIGURES`.
        start_bytes: of a database in which the run has made no call yet.
        slack: standard error of what it grew by, because pages are filled in part.
        seconds: during which at least one call was on its way.
        unusable: calls without a reply that could be used.
        untold: calls whose tokens the backend does not tell.
        chain: mean seconds of an episode's calls that wait for each other.
    """

    strata: list[tuple[int, Numbers]]
    start_bytes: int
    slack: float
    seconds: float
    unusable: int
    untold: int
    chain: float

    @property
    def sums(self) -> Numbers:
        """The figures of all that was played."""
        total: Numbers = sum((rows.sum(0) for _, rows in self.strata), np.zeros(len(_FIGURES)))
        return total


def estimate(
    blueprint: Blueprint,
    episodes: int = 32,
    rates: Rates | None = None,
    gpus: int | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Data:
    """Play a sample of a run's episodes and tell what the whole run takes, as JSON has it.

    Ranges hold the middle 90 % of resamples (a bootstrap over the sampled episodes, those of the
    first round and those of later ones apart). Bytes are those of an SQLite file.

    Args:
        blueprint: what `sandbox.engine.run.prepare` returned; the run itself is not written.
        episodes: how many to play; 8 or more, all of them if the run has no more.
        rates: how fast models are served; None to go by the sample's own speed.
        gpus: how many the backends use, for GPU-hours without rates.
        backends: by role, in place of those that the config names.

    Raises:
        InputError: something in the config cannot work, the sample is too small, or its backends
            cannot be reached.
    """
    if episodes < FEWEST:
        raise InputError(f"--episodes: found {episodes}; expected at least {FEWEST}")
    config = blueprint.config
    with tempfile.TemporaryDirectory(prefix="sandbox-estimate-") as folder:
        used = backends_of(config.models.roles(), backends)
        sample = _play(blueprint, Path(folder) / "sample.db", episodes, used)
    drawn = _totals(sample, config.seed)
    figures = {name: _figure(drawn[:, place]) for place, name in enumerate(_FIGURES)}
    return {
        "run": config.name,
        "agents": len(blueprint.agents),
        "rounds": config.rounds,
        "episodes": blueprint.per_round * config.rounds,
        "sample": _description(sample),
        **figures,
        "time": _time(config, sample, drawn, rates, gpus),
        "notes": list(_notes(config, sample)),
    }


class _Sampler:
    """Plays single episodes of any round, each with a past that is filled in."""

    def __init__(self, runner: Runner, per_round: int) -> None:
        self._runner = runner
        self._per_round = per_round
        self._asked: list[dict[int, Meeting]] = []  # by round and author
        self._pool = _Pool([], [], [])

    def remember(self, pool: _Pool, rounds: int) -> None:
        """Say what may have been answered in the rounds before a round."""
        self._pool = pool
        for round in range(len(self._asked), rounds):
            met = self._meet(round)
            self._asked.append({one.author: one for one in met if one.author is not None})

    def _meet(self, round: int) -> Sequence[Meeting]:
        return self._runner.world.meet(self._runner.society.agents, round)

    async def play(self, numbers: Sequence[int]) -> None:
        """Play the episodes of these numbers side by side."""
        tasks = [asyncio.create_task(self._episode(number)) for number in numbers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _episode(self, number: int) -> None:
        round, slot = divmod(number, self._per_round)
        planned = Planned(round, number, self._meet(round)[slot])
        society = self._with_past(planned) if round else self._runner.society
        await self._runner.play_episode(planned, society)

    def _with_past(self, planned: Planned) -> Society:
        """The society as those who take part would find it, with memories of their own."""
        agents = list(self._runner.society.agents)
        author, peers, _ = planned.meeting
        for number in {*peers} if author is None else {author, *peers}:
            memory = self._remembering(agents[number], planned.round)
            agents[number] = replace(agents[number], memory=memory)
        return replace(self._runner.society, agents=agents)

    def _remembering(self, agent: Agent, rounds: int) -> Memory:
        memory = deepcopy(agent.memory)
        for round in range(rounds):
            draw = chance(self._runner.config.seed, "estimate", agent.number, round)
            answer = self._pool.draw(draw, round, agent.label)
            asked = self._asked[round].get(agent.number)
            if answer is not None and asked is not None:
                question, _ = self._runner.society.question(asked)
                memory.remember(round, question, *answer)
        return memory


def _play(
    blueprint: Blueprint, file: Path, episodes: int, backends: Mapping[str, Backend]
) -> _Sample:
    config = blueprint.config
    address = create(blueprint, str(file))
    start_bytes = file.stat().st_size
    first, later = _drawn(blueprint.per_round, config, episodes)
    with database.writing(address.url) as engine:
        reader = Reader.find(engine, config.name, str(address))
        writer = Writer(engine, reader.run.id)
        writer.open()
        runner = Runner.load(reader, writer, backends, Journal(reader), config=config)
        try:
            run_coroutine(_work(runner, reader, first, later))
        except BackendDown as error:
            raise InputError(f"config {config.name}: no sample could be played: {error}") from None
        measured, busy, slack = _measured(reader), _busy(reader), _slack(engine)
        index, fixed = _INDEX_A_CHARACTER * _said(reader), _summaries(engine)
    weight = sum(row["weight"] for row in measured.values())
    grown = (file.stat().st_size - start_bytes - fixed + index) / weight
    start_bytes += _INDEX_START + _A_ROUND * config.rounds + _AN_AGENT * len(blueprint.agents)
    per_round = blueprint.per_round
    strata = [
        (size, np.array([_row(measured[number], grown) for number in numbers]))
        for size, numbers in ((per_round, first), (per_round * (config.rounds - 1), later))
        if numbers
    ]
    slack = math.hypot(slack, _INDEX_ERROR * index)
    return _Sample(strata, start_bytes, slack, busy, *_of_calls(measured))


def _drawn(per_round: int, config: Config, episodes: int) -> tuple[list[int], list[int]]:
    """Episodes of the first round, by chance, and of later ones, one of each of equal stretches.

    A quarter is of the first round, or its due share if that is more.
    """
    draw = chance(config.seed, "estimate")
    share = max(episodes // 4, episodes // config.rounds)
    first = draw.sample(range(per_round), min(share, per_round))
    left = per_round * (config.rounds - 1)
    count = min(episodes - len(first), left)
    bounds = [per_round + left * place // max(count, 1) for place in range(count + 1)]
    return sorted(first), [draw.randrange(*stretch) for stretch in pairwise(bounds)]


async def _work(runner: Runner, reader: Reader, first: Sequence[int], later: Sequence[int]) -> None:
    per_round = reader.run.per_round
    sampler = _Sampler(runner, per_round)
    async with started(runner.backends.values()):
        await sampler.play(first)
        size = -(-len(later) // (_STAGES - 1)) or 1
        for start in range(0, len(later), size):
            stage = later[start : start + size]
            await runner.flush()
            sampler.remember(_pool(reader), stage[-1] // per_round)
            await sampler.play(stage)
        await runner.flush()


def _pool(reader: Reader) -> _Pool:
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


def _slack(engine: Engine) -> float:
    """The last page of a table or an index may be full or nearly empty, before and after."""
    with engine.connect() as connection:
        page = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        query = "SELECT count(*) FROM sqlite_master WHERE rootpage > 0"
        trees = connection.exec_driver_sql(query).scalar_one()
    return float(page * math.sqrt(trees * 2 / 12))


def _summaries(engine: Engine) -> int:
    """Bytes of what does not grow with the episodes.

    Sums by round and agent, a vocabulary, and pages that merging the index has left free.
    """
    with engine.connect() as connection:
        words, rows, free, page = (
            int(connection.exec_driver_sql(query).scalar_one())
            for query in (
                "SELECT sum(length(block)) FROM words_data",
                "SELECT (SELECT count(*) FROM outcomes) + (SELECT count(*) FROM rater_sums)",
                *("PRAGMA freelist_count", "PRAGMA page_size"),
            )
        )
    return words + _ROW * rows + free * page


def _said(reader: Reader) -> int:
    """Characters that the index of words has read."""
    e, r, o, q = tables.episodes, tables.ratings, tables.observations, tables.questions
    t = tables.texts
    asked = select(q.c.text_id).join(e, e.c.question_id == q.c.id)
    read = (asked, select(tables.stage_texts.c.text_id))
    reasons = (select(one.c.reason_id) for one in (r, o))
    ids = union_all(*read, *reasons, *(select(one) for one in _OF_SCENES)).subquery()
    query = select(func.sum(func.length(t.c.text))).join(ids, t.c.id == next(iter(ids.c)))
    return int(reader.scalar(query) or 0)


_OF_SCENES = (
    *(tables.acts.c.text_id, tables.acts.c.why_id, tables.acts.c.critique_id),
    *(tables.parts.c.name_id, tables.parts.c.about_id, tables.notes.c.text_id),
)


def _measured(reader: Reader) -> dict[int, Any]:
    """Sums over the calls of each sampled episode, by its number.

    `weight` is about how many bytes an episode takes: it shares out the growth of the file.
    """
    c, m = tables.calls, tables.models
    told_in, told_out = (func.coalesce(func.sum(one), 0) for one in (c.c.tokens_in, c.c.tokens_out))
    asked = m.c.role != "observer"
    query = (
        select(
            c.c.episode_id,
            func.count().label("calls"),
            told_in.label("tokens_in"),
            told_out.label("tokens_out"),
            (func.sum(100 + func.length(c.c.prompt)) + 4 * told_out).label("weight"),
            func.count().filter(c.c.status != "ok").label("unusable"),
            func.count().filter(c.c.tokens_out.is_(None)).label("untold"),
            func.min(c.c.started).label("began"),
            func.max(c.c.started + c.c.took).filter(asked).label("settled"),
        )
        .join(m, m.c.id == c.c.model_id)
        .where(reader.belongs_to_run(c.c.episode_id))
        .group_by(c.c.episode_id)
    )
    return {row.episode_id - reader.base: row._mapping for row in reader.rows(query)}


def _row(row: Any, grown: float) -> list[float]:
    return [row["calls"], row["tokens_in"], row["tokens_out"], row["weight"] * grown]


def _of_calls(measured: dict[int, Any]) -> tuple[int, int, float]:
    rows = list(measured.values())
    unusable, untold = (sum(row[name] for row in rows) for name in ("unusable", "untold"))
    return unusable, untold, sum(row["settled"] - row["began"] for row in rows) / len(rows) / 1000


def _busy(reader: Reader) -> float:
    """Seconds during which at least one call was on its way."""
    c = tables.calls
    busy, until = 0, 0
    query = select(c.c.started, c.c.took).where(reader.belongs_to_run(c.c.id)).order_by(c.c.started)
    for begun, took in reader.rows(query):
        busy += max(0, begun + took - max(begun, until))
        until = max(until, begun + took)
    return busy / 1000


def _totals(sample: _Sample, seed: int) -> Numbers:
    """Figures of the whole run, shape (1 + resamples, 4): by the sample, then by resamples.

    Resampled means are spread a little: by n / (n - 1), since a small sample looks too sure of
    itself, and by 1 + n / size, since the run's own episodes turn out by chance as well.
    """
    draw = np.random.default_rng(seed)
    total = np.zeros((1 + _RESAMPLES, len(_FIGURES)))
    for size, rows in sample.strata:
        n, mean = len(rows), rows.mean(0)
        means = rows[draw.integers(n, size=(_RESAMPLES, n))].mean(1)
        wider = math.sqrt(n / max(n - 1, 1) * (1 + n / size))
        total += size * np.vstack([mean, mean + wider * (means - mean)])
    total[1:, -1] *= draw.normal(1, sample.slack / sample.sums[-1], _RESAMPLES)
    total[:, -1] += sample.start_bytes
    return total


def _figure(drawn: Numbers, digits: int | None = None) -> Data:
    low, high = np.percentile(drawn[1:], _RANGE)
    values = zip(("estimate", "low", "high"), (drawn[0], low, high), strict=True)
    return {name: round(float(value), digits) for name, value in values}


def _description(sample: _Sample) -> Data:
    played = [len(rows) for _, rows in sample.strata]
    sums = dict(zip(_FIGURES, sample.sums[:3].astype(int).tolist(), strict=False))
    seconds = round(sample.seconds, 3)
    return {"episodes": sum(played), "of_first_round": played[0], **sums, "seconds": seconds}


def _time(
    config: Config, sample: _Sample, drawn: Numbers, rates: Rates | None, gpus: int | None
) -> Data:
    """Seconds and GPU-hours, each with a range, and what they go by; None where nobody can tell."""
    scripted = all(settings.backend == "scripted" for _, settings in config.models.roles())
    if rates is not None:
        both = drawn[:, 1] / rates.tokens_in + drawn[:, 2] / rates.tokens_out
        seconds, gpus, basis = both / rates.gpus, rates.gpus, "rates"
    elif scripted:
        return dict.fromkeys(("seconds", "gpu_hours", "floor_seconds", "basis"))
    else:
        seconds, basis = drawn[:, 0] * sample.seconds / sample.sums[0], "sample"
    return {
        "seconds": _figure(seconds, 1),
        "gpu_hours": None if gpus is None else _figure(seconds * gpus / 3600, 3),
        "floor_seconds": None if scripted else round(config.rounds * sample.chain, 1),
        "basis": basis,
    }


def _notes(config: Config, sample: _Sample) -> Iterator[str]:
    rounds = "the first round" if config.rounds == 1 else "all rounds"
    yield (
        f"sampled from {rounds}; what was answered before a sampled episode is filled in with "
        "other sampled answers"
    )
    calls = int(sample.sums[0])
    if not sample.unusable:
        yield (
            f"all {calls:,} replies of the sample could be used; up to {3 / calls:.1%} of those of "
            "the run might have to be asked for again"
        )
    if sample.untold:
        yield f"{sample.untold:,} of {calls:,} calls came without token counts: they count as 0"
    if config.stop is not None:
        yield "the run may stop before its last round; the figures are for all rounds"
    yield from _notes_on_time(config)


def _notes_on_time(config: Config) -> Iterator[str]:
    if all(settings.backend == "scripted" for _, settings in config.models.roles()):
        yield "replies are scripted: the time of a real model follows from its rates alone"
    else:
        yield "without rates, time goes by the sample's speed; with more calls at once it is less"
