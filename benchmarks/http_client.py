"""Calls a second through HTTP to a server in another process: our client beside others.

Usage: python benchmarks/http_client.py [--calls 20000] [--times 3] [--before FOLDER]
       [--openai PYTHON] [--latency 0.05] [--url URL]

The clients take turns in one run; a row is the median of all turns. *CPU* is that of the client's
process alone, in milliseconds a call. A whole run has 10 calls an episode: scheduler, prompts,
memory, journal in SQLite and the observer are real.

`--before` also measures a checkout of another version; `--openai` is a Python that has the
packages `openai` and `httpx`; `--url` is a server of one's own, such as nginx with a fixed reply.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

Found = dict[str, float]

ROOT = Path(__file__).resolve().parent.parent
IN_FLIGHT = 256
AGENTS = 100
MODEL: dict[str, Any] = {
    "backend": "openai",
    "model": "m",
    "constrain": "none",
    "max_in_flight": 1024,
}
TEXT = "Rating: 5\nReason: " + "It says what is known, and what is not, in plain words. " * 6
REPLY = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "tool_calls": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 300, "total_tokens": 380, "completion_tokens": 80},
    }
).encode()
MODELS = json.dumps({"data": [{"id": "m", "object": "model", "owned_by": "someone"}]}).encode()
PROMPT = "What would you do, and why? Answer in a few sentences, in plain words. " * 14


class Serving(asyncio.Protocol):
    """Replies to each request after `latency` seconds."""

    latency = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        """Reply to a request once it is whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        self._received = b""
        reply = MODELS if head.startswith(b"GET") else REPLY
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: bytes) -> None:
        head = "HTTP/1.1 200 OK\r\ndate: Sat, 28 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
        head += f"content-length: {len(reply)}\r\ncontent-type: application/json\r\n\r\n"
        self._transport.write(head.encode() + reply)


def _length(head: bytes) -> int:
    _, _, after = head.lower().partition(b"content-length:")
    return int(after.partition(b"\r\n")[0] or 0)


async def serve(latency: float) -> None:
    """Serve until the process is ended; print the port."""
    Serving.latency = latency
    server = await asyncio.get_running_loop().create_server(Serving, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def in_flight(calls: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Make calls, `IN_FLIGHT` at a time."""
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def _messages(number: int) -> list[dict[str, str]]:
    system = "You are a careful person."
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"{number} {PROMPT}"},
    ]


async def bare_aiohttp(url: str, calls: int) -> None:
    """A loop of aiohttp: nothing is checked, nothing is written."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int) -> object:
            body = {"model": "m", "messages": _messages(number), "max_tokens": 100, "seed": number}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        await in_flight(calls, one)


async def openai_client(url: str, calls: int) -> None:
    """The client of the package `openai`, on aiohttp."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    async with AsyncOpenAI(
        base_url=url, api_key="none", http_client=DefaultAioHttpClient()
    ) as client:

        async def one(number: int) -> object:
            reply = await client.chat.completions.create(
                model="m", messages=_messages(number), max_tokens=100, seed=number
            )
            return reply.choices[0].message.content

        await in_flight(calls, one)


async def backend(url: str, calls: int) -> None:
    """Our backend alone: no scheduler, no journal."""
    from agents.forms import CallName, FreeText
    from sandbox.backends.base import Call
    from sandbox.backends.openai import Config, OpenAIBackend

    ours = OpenAIBackend(Config(**MODEL, base_url=url))
    await ours.start()

    async def one(number: int) -> object:
        name = CallName(1, number, "draft", 1)
        call = Call(name, number, "Be careful.", f"{number} {PROMPT}", FreeText(100), 100, 1.0)
        return await ours.answer(call)

    await in_flight(calls, one)
    await ours.close()


async def whole_run(url: str, calls: int) -> dict[str, float]:
    """A run of 100 agents with 4 raters and an observer, from the first call to the last."""
    from sandbox.backends import backend_of
    from sandbox.config import QUICKSTART, load_config
    from sandbox.engine.journal import Journal
    from sandbox.engine.run import create, prepare
    from sandbox.engine.runner import Runner
    from storage import database
    from storage.reader import Reader
    from storage.writer import Writer

    model = json.dumps({**MODEL, "base_url": url})
    rounds = max(1, calls // (10 * AGENTS))
    settings = [f"models.{role}={model}" for role in ("social", "observer")]
    settings += ["world.size=10", f"rounds={rounds}"]
    config = load_config(QUICKSTART, settings)
    with tempfile.TemporaryDirectory() as folder:
        address = create(prepare(config), str(Path(folder) / "run.db"))
        with database.writing(address.url) as engine:
            reader = Reader.find(engine, address.name, str(address))
            writer = Writer(engine, reader.run.id)
            writer.open()
            ours = backend_of(config.models.social)
            backends = {"social": ours, "observer": ours}
            runner = Runner.load(reader, writer, backends, Journal(reader))
            await ours.start()
            cpu, began = time.process_time(), time.perf_counter()
            await runner.work()
            await runner.flush()
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            await ours.close()
        made = runner.progress.counts.calls
    return {"calls": made, "seconds": seconds, "cpu": cpu, "episodes": rounds * AGENTS}


async def timed(work: Callable[[str, int], Awaitable[object]], url: str, calls: int) -> Found:
    """Measure a client that makes as many calls as it is told."""
    await work(url, IN_FLIGHT)  # imports
    cpu, began = time.process_time(), time.perf_counter()
    await work(url, calls)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"calls": calls, "seconds": seconds, "cpu": cpu}


CLIENTS: dict[str, Callable[[str, int], Awaitable[Found]]] = {
    "bare aiohttp": partial(timed, bare_aiohttp),
    "openai": partial(timed, openai_client),
    "backend alone": partial(timed, backend),
    "whole run": whole_run,
}


def turn(python: str, root: Path, client: str, url: str, calls: int) -> Found:
    """Measure a client of a checkout, in a process of its own."""
    program = [python, str(Path(__file__).resolve()), "--measure", client, "--url", url]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [*program, "--calls", str(calls)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout of another version")
    parser.add_argument("--openai", help="a Python with the packages openai and httpx")
    parser.add_argument("--latency", type=float, default=0.0, help="of the server, in seconds")
    parser.add_argument("--url", help="a server of one's own")
    parser.add_argument("--measure", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        _pin(0)
        print(json.dumps(asyncio.run(CLIENTS[asked.measure](asked.url, asked.calls))))
    elif asked.serve:
        _pin(-1)
        asyncio.run(serve(asked.latency))
    else:
        _compare(asked)


def _pin(core: int) -> None:
    """Keep this process on the first or the last of the cores."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})


def _compare(asked: argparse.Namespace) -> None:
    """Let the clients take turns."""
    rows = [("bare aiohttp", sys.executable, ROOT, "bare aiohttp")]
    if asked.openai:
        rows.append(("openai", asked.openai, ROOT, "openai"))
    for client in ("backend alone", "whole run"):
        if asked.before:
            rows.append((f"{client}, before", sys.executable, asked.before.resolve(), client))
        rows.append((client, sys.executable, ROOT, client))
    program = [sys.executable, __file__, "--serve", "--latency", str(asked.latency)]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = asked.url or f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    found: dict[str, list[Found]] = {row[0]: [] for row in rows}
    try:
        for _ in range(asked.times):
            for name, python, root, client in rows:
                calls = asked.calls // 10 if client == "openai" else asked.calls
                found[name].append(turn(python, root, client, url, calls))
    finally:
        server.kill()
        server.wait()
    print("| client | calls a second | CPU a call (ms) | episodes a second |")
    print("| --- | ---: | ---: | ---: |")
    for name, turns in found.items():
        rate = statistics.median(one["calls"] / one["seconds"] for one in turns)
        cpu = statistics.median(1000 * one["cpu"] / one["calls"] for one in turns)
        played = statistics.median(one.get("episodes", 0) / one["seconds"] for one in turns)
        print(f"| {name} | {rate:,.0f} | {cpu:.3f} | {f'{played:,.0f}' if played else ''} |")


if __name__ == "__main__":
    main()
