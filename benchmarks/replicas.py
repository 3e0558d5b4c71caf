"""What a call costs on its way to a replica and back, by the way on which it goes.

A backend that answers at once takes the same calls in this process, in a child process and in an
actor of a local Ray, one after the other. The cost is CPU time of both sides a call, and calls a
second are what one driver sends.

    python benchmarks/replicas.py [--calls 50000] [--in-flight 1024] [--replicas 1]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from agents.forms import CallName, FreeText
from sandbox.backends import backend_of, kind_of
from sandbox.backends.base import Call

INSTANT = """
from typing import Literal
from sandbox.backends.base import ModelSettings, Reply

class Config(ModelSettings):
    text: str = "A reply of some words, as long as a rating with its reason is. " * 3

class Backend:
    model = "instant"
    def __init__(self, config):
        self.reply = Reply(config.text, False, 500, 40, 400)
    async def start(self): pass
    async def answer(self, call): return self.reply
    async def close(self): pass
"""
PROMPT = "Rate how well this answer serves the person who asked. " * 40


def _call(number: int) -> Call:
    name = CallName(1, number // 10, "rate", number % 10, 0)
    return Call(name, number, PROMPT[:300], PROMPT + str(number), FreeText(), 100, 1.0)


def _cpu(pids: list[int]) -> float:
    """CPU seconds that processes have used, on Linux."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


async def _measure(file: str, on: str, replicas: int, calls: int, in_flight: int) -> None:
    settings: dict[str, Any] = {"backend": file, "on": on, "ray": {"address": "local"}}
    if on == "here":
        settings = {"backend": file}
    else:
        settings |= {"replicas": replicas}
    config = kind_of(file).settings.model_validate(settings)
    backend: Any = backend_of(config)
    await backend.start()
    pids = [os.getpid(), *(one.process for one in getattr(backend, "started", list)())]
    numbers = iter(range(calls))

    async def ask() -> None:
        for number in numbers:
            await backend.answer(_call(number))

    await backend.answer(_call(0))
    before, own, began = _cpu(pids), time.process_time(), time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    seconds, own = time.perf_counter() - began, time.process_time() - own
    both = _cpu(pids) - before
    print(
        f"{on:10} {calls / seconds:9,.0f} calls a second, CPU a call: "
        f"{own / calls * 1e6:5.0f} us here, {(both - own) / calls * 1e6:5.0f} us in replicas",
        flush=True,
    )
    await backend.close()


def main() -> None:
    """Measure the three ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--in-flight", type=int, default=1024)
    parser.add_argument("--replicas", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instant.py")
        file.write_text(INSTANT, encoding="utf-8")
        for on in ("here", "processes", "ray"):
            asyncio.run(_measure(str(file), on, given.replicas, given.calls, given.in_flight))


if __name__ == "__main__":
    main()
