"""Ask a running server for ratings, and count the replies that cannot be parsed.

Usage: python benchmarks/servers.py BASE_URL MODEL [--ratings 1000] [--constrain auto] ...

The prompts are the raters' own, about answers of `worlds/data/prior.jsonl` that good and bad
members of a society gave, by its personas in turn. A row for each status of a reply, strictly
parsed or not: the share `lenient` is what reading as a careful person would adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from agents.chance import seed_of
from agents.forms import CallName, parse_reply
from sandbox.backends.addresses import Address
from sandbox.backends.base import Call, CallFailed, Unavailable
from sandbox.backends.openai import Backend, Config
from worlds.grid import RATE

DATA = Path(__file__).resolve().parent.parent / "worlds" / "data"


class Measured(NamedTuple):
    """What came of the calls to one server.

    Attributes:
        constraint: how replies are constrained, as was found out or set.
        statuses: the number of replies by status.
        without: the number of replies without a rating.
        seconds: from the first call sent to the last reply.
    """

    constraint: str
    statuses: dict[str, int]
    without: int
    seconds: float


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def calls(number: int, seed: int, temperature: float) -> list[Call]:
    """Make the raters' calls: each answer of the file, by one persona after another."""
    answers, personas = _lines("prior.jsonl"), _lines("personas.jsonl")
    made = []
    for i in range(number):
        rated, who = answers[i % len(answers)], personas[i % len(personas)]
        me = f"{who['name']}, {who['age']}, {who['occupation']} in {who['place']}. {who['voice']}"
        prompt = RATE.render(
            {"question": rated["question"], "draft": rated["answer"], "me": me, "past": None}
        )
        name = CallName(0, i, RATE.name, i % len(personas))
        made.append(
            Call(
                name,
                seed_of(seed, *name),
                prompt.system,
                prompt.user,
                RATE.reply,
                RATE.reply.max_tokens or 160,
                temperature,
            )
        )
    return made


def constraint(backend: Backend, config: Config) -> str:
    """How the replies of the addresses are constrained, once the backend is started."""
    addresses = (Address(url, config.max_in_flight) for url in config.addresses())
    return ", ".join(sorted({backend.habits(address).constraint for address in addresses}))


async def measure(config: Config, number: int, seed: int = 7) -> Measured:
    """Send the calls, and parse the replies."""
    backend = Backend(config)
    await backend.start()
    gate = asyncio.Semaphore(config.max_in_flight)
    statuses: Counter[str] = Counter()
    without = 0

    async def ask(call: Call) -> None:
        nonlocal without
        async with gate:
            try:
                reply = await backend.answer(call)
            except (CallFailed, Unavailable):
                statuses["failed"] += 1
                without += 1
                return
        read = parse_reply(call.shape, reply.text, reply.cut, reply.constrained)
        statuses[read.status.value] += 1
        without += read.value is None

    began = time.monotonic()
    try:
        await asyncio.gather(*map(ask, calls(number, seed, config.temperature)))
    finally:
        await backend.close()
    return Measured(constraint(backend, config), dict(statuses), without, time.monotonic() - began)


def main() -> None:
    """Measure one server and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base_url")
    parser.add_argument("model")
    parser.add_argument("--ratings", type=int, default=1000)
    parser.add_argument("--constrain", default="auto")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--key-env", default="OPENAI_API_KEY")
    asked = parser.parse_args()
    config = Config(
        backend="openai",
        base_url=asked.base_url,
        model=asked.model,
        constrain=asked.constrain,
        temperature=asked.temperature,
        max_in_flight=asked.in_flight,
        api_key_env=asked.key_env,
    )
    found = asyncio.run(measure(config, asked.ratings))
    print(f"{asked.base_url}: replies are constrained by {found.constraint}")
    for status, count in sorted(found.statuses.items(), key=lambda item: -item[1]):
        print(f"{status:>12} {count:>6,} {count / asked.ratings:>7.1%}")
    print(f"without a rating: {found.without:,} of {asked.ratings:,}, in {found.seconds:.0f} s")


if __name__ == "__main__":
    main()
