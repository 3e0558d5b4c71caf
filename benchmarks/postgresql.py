"""PostgreSQL beside SQLite: calls per second of one run, and of many that write at once.

Usage: python benchmarks/postgresql.py URL [--calls 100000] [--agents 100] [--writers 16]

URL: an empty database, such as postgresql+psycopg://me@127.0.0.1/benchmark. The backend replies at
once, so that the program and its database are all that is measured, in seconds of the clock. Each
run is a process of its own; its digest must be that of the run in SQLite. Ratios are within one
call of this script: the absolute numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from driver import finish, runner_of, work
from sqlalchemy import func, select

from sandbox.config import QUICKSTART, load_config
from sandbox.engine.run import create, prepare
from storage import database, tables
from storage.database import Address
from storage.digest import digest
from storage.reader import Reader


class Played(NamedTuple):
    """A run: its calls, when it began and ended (seconds of the clock), CPU seconds, its digest."""

    calls: int
    began: float
    ended: float
    cpu: float
    digest: str

    @property
    def speed(self) -> float:
        """Calls per second."""
        return self.calls / (self.ended - self.began)


def play(address: Address) -> Played:
    """Play a run that was created; check that every call is stored once."""
    with database.writing(address.url) as engine, database.claim(engine, str(address.name)):
        reader = Reader.find(engine, address.name, str(address))
        runner = runner_of(reader)
        began, cpu = time.time(), time.process_time()
        asyncio.run(work(runner))
        ended, cpu = time.time(), time.process_time() - cpu
        calls = runner.progress.counts.calls
        c = tables.calls.c
        first, last = reader.base, tables.first_id(reader.run.id + 1) - 1
        key = (c.episode_id, c.form_id, c.agent, c.turn, c.attempt)
        once = select(*key).where(c.id.between(first, last)).distinct().subquery()
        assert reader.scalar(select(func.count()).select_from(once)) == calls
        of_run = digest(reader)
        finish(reader, of_run)
    return Played(calls, began, ended, cpu, of_run)


def made(place: str, name: str, agents: int, calls: int) -> Address:
    """Create a run of about so many calls."""
    size = math.isqrt(agents)
    rounds = max(1, calls // (10 * size * size))
    settings = [f"world.size={size}", "world.radius=5", f"rounds={rounds}", f"name={name}"]
    return create(prepare(load_config(QUICKSTART, settings)), place)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--writers", type=int, default=16)
    arguments = parser.parse_args()
    size = arguments.agents, arguments.calls
    started = int(time.time())  # the names of runs differ between calls of this script
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(arguments.writers) as pool,
    ):
        file = made(str(Path(folder) / "run.db"), "one", *size)
        one = pool.apply(play, (file,))
        served = pool.apply(play, (made(arguments.url, f"one-{started}", *size),))
        share = arguments.agents, arguments.calls // arguments.writers
        sample = pool.apply(play, (made(str(Path(folder) / "share.db"), "share", *share),))
        names = [f"writer-{started}-{number}" for number in range(arguments.writers)]
        addresses = [made(arguments.url, name, *share) for name in names]
        many = pool.map(play, addresses, chunksize=1)
    assert one.digest == served.digest
    assert {run.digest for run in many} == {sample.digest}
    calls = sum(run.calls for run in many)
    together = calls / (max(run.ended for run in many) - min(run.began for run in many))
    print(f"{os.cpu_count()} cores, server and runs together; all digests are those in SQLite\n")
    print("| | calls | calls per second | of SQLite | CPU ms a call |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for what, number, speed, cpu in (
        ("SQLite, one run", one.calls, one.speed, one.cpu / one.calls),
        ("PostgreSQL, one run", served.calls, served.speed, served.cpu / served.calls),
        (
            f"PostgreSQL, {len(many)} runs at once",
            calls,
            together,
            sum(run.cpu for run in many) / calls,
        ),
    ):
        print(f"| {what} | {number:,} | {speed:,.0f} | {speed / one.speed:.2f} | {1e3 * cpu:.3f} |")


if __name__ == "__main__":
    main()
