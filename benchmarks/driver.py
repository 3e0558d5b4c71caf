"""Overhead of the program: calls per second with a backend that replies at once, on one core.

Usage: python benchmarks/driver.py [--agents 100 10000] [--calls 100000] [--profile]

Everything but the model is real: scheduling, rendering, hashing, seeds, asyncio, rows and commits
to SQLite. The cost per call at each size is relative to the first size, within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import math
import os
import pstats
import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, select, update

from sandbox.backends.base import Call, Reply
from sandbox.config import QUICKSTART, load_config
from sandbox.engine.journal import Journal
from sandbox.engine.run import create, prepare
from sandbox.engine.runner import Runner
from storage import database, tables
from storage.digest import digest
from storage.reader import Reader
from storage.writer import Writer

WORDS = "a plain answer that is about as long as what a model says in a few sentences of prose " * 4


class Instant:
    """A backend that replies at once, each time differently, by constrained decoding."""

    model = "instant"

    async def start(self) -> None:
        """Nothing to start."""

    async def answer(self, call: Call) -> Reply:
        """Reply in the shape of the call."""
        if call.shape.regex is None:
            return Reply(f"{call.seed} {WORDS}", False, 100, 80)
        rated = f"Rating: {call.seed % 7 + 1}\nReason: {call.seed} {WORDS[:100]}"
        return Reply(rated, False, 100, 30, constrained=True)

    async def close(self) -> None:
        """Nothing to close."""


class Cost(NamedTuple):
    """Cost of a run: calls, working seconds, peak memory, bytes of database and texts."""

    calls: int
    seconds: float
    peak_mib: float
    database: int
    texts: int


def play(
    agents: int,
    calls: int,
    questions: str | None = None,
    profile: bool = False,
    keep: Path | None = None,
) -> Cost:
    """Play a run with about `calls` calls; `keep` is the folder in which the database stays."""
    size = math.isqrt(agents)
    rounds = max(1, calls // (10 * size * size))
    settings = [f"world.size={size}", "world.radius=5", f"rounds={rounds}"]
    settings += [f"questions={questions}", "question_count=null"] if questions else []
    with tempfile.TemporaryDirectory() as folder:
        place = keep or Path(folder) / "driver.db"
        address = create(prepare(load_config(QUICKSTART, settings)), str(place))
        with database.writing(address.url) as engine:
            reader = Reader.find(engine, address.name, str(address))
            runner = runner_of(reader)
            profiler = cProfile.Profile() if profile else None
            began = time.process_time()
            if profiler:
                profiler.runcall(asyncio.run, work(runner))
                pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
            else:
                asyncio.run(work(runner))
            seconds = time.process_time() - began
            finish(reader, digest(reader))
            texts = int(reader.scalar(select(func.sum(func.length(tables.texts.c.text)))))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size_on_disk = Path(str(address.url.database)).stat().st_size
        return Cost(runner.progress.counts.calls, seconds, peak, size_on_disk, texts)


def runner_of(reader: Reader) -> Runner:
    """Make the runner of a stored run, with a backend that replies at once."""
    writer = Writer(reader.engine, reader.run.id)
    writer.open()
    backend = Instant()
    return Runner.load(reader, writer, {"social": backend, "observer": backend}, Journal(reader))


def finish(reader: Reader, digest_of_run: str) -> None:
    """Mark the run as done, as `resume` would."""
    with reader.engine.begin() as connection:
        values = {"status": "done", "digest": digest_of_run, "seconds": 1.0}
        of_run = tables.runs.c.id == reader.run.id
        connection.execute(update(tables.runs).where(of_run).values(**values))


async def work(runner: Runner) -> None:
    """Play a run, and write everything."""
    await runner.work()
    await runner.flush()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1024, 10_000])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--questions", help="file of questions; default: the ten of the quickstart")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("| agents | calls | calls per second | cost per call | peak MiB | database / texts |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    first: float | None = None
    for agents in arguments.agents:
        cost = play(agents, arguments.calls, arguments.questions, arguments.profile)
        per_call = cost.seconds / cost.calls
        first = first or per_call
        print(
            f"| {agents:,} | {cost.calls:,} | {1 / per_call:,.0f} | {per_call / first:.2f} | "
            f"{cost.peak_mib:,.0f} | {cost.database / cost.texts:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
