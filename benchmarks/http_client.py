"""Calls a second through HTTP to a server in another process: our client beside others.

Usage: python benchmarks/http_client.py [--calls 20000] [--times 3] [--before FOLDER]
       [--openai PYTHON] [--latency 0.05 | --nginx | --url URL] [--workers 1 2 4]

The clients take turns in one run; a row is the median of all turns. *CPU* is that of the client's
process alone, in milliseconds a call. A whole run has 10 calls an episode: scheduler, prompts,
memory, journal in SQLite and the observer are real.

`--before` also measures a checkout of another version; `--openai` is a Python that has the
packages `openai` and `httpx`; `--workers` adds our client in so many processes (`on: processes,
replicas: N`), whose CPU time is not in the column. All but these keep to one core, and the server
of this file to another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

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


async def timed(work: Callable[[int], Awaitable[object]], calls: int) -> Found:
    """Measure what makes calls, after it has made some."""
    await work(IN_FLIGHT)
    cpu, began = time.process_time(), time.perf_counter()
    await work(calls)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"calls": calls, "seconds": seconds, "cpu": cpu}


def _messages(number: int) -> list[dict[str, str]]:
    system = "You are a careful person."
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"{number} {PROMPT}"},
    ]


async def bare_aiohttp(url: str, calls: int) -> Found:
    """A loop of aiohttp: nothing is checked, nothing is written."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int) -> object:
            body = {"model": "m", "messages": _messages(number), "max_tokens": 100, "seed": number}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        return await timed(lambda calls: in_flight(calls, one), calls)


async def openai_client(url: str, calls: int) -> Found:
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

        return await timed(lambda calls: in_flight(calls, one), calls)


async def backend(url: str, calls: int) -> Found:
    """Our backend alone: no scheduler, no journal."""
    from agents.forms import CallName, FreeText
    from sandbox.backends import backend_of
    from sandbox.backends.base import Call
    from sandbox.backends.openai import Config

    ours = backend_of(Config(**MODEL, base_url=url))
    await ours.start()

    async def one(number: int) -> object:
        name = CallName(1, number, "draft", 1)
        call = Call(name, number, "Be careful.", f"{number} {PROMPT}", FreeText(100), 100, 1.0)
        return await ours.answer(call)

    found = await timed(lambda calls: in_flight(calls, one), calls)
    await ours.close()
    return found


async def whole_run(url: str, calls: int) -> Found:
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


CLIENTS: dict[str, Callable[[str, int], Awaitable[Found]]] = {
    "bare aiohttp": bare_aiohttp,
    "openai": openai_client,
    "backend alone": backend,
    "whole run": whole_run,
}


class Row(NamedTuple):
    """What is measured: a client, the Python and the checkout to run it with, and its workers."""

    name: str
    client: str
    python: str = sys.executable
    root: Path = ROOT
    workers: int = 0

    def turn(self, url: str, calls: int) -> Found:
        """Measure it once, in a process of its own."""
        program = [self.python, str(Path(__file__).resolve()), "--measure", self.client]
        options = ["--url", url, "--calls", str(calls), "--workers", str(self.workers)]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        done = subprocess.run([*program, *options], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return dict(json.loads(done.stdout.splitlines()[-1]))


NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; default_type application/json;
  client_body_temp_path {folder}/body; client_body_buffer_size 64k;
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    location /v1/models {{ return 200 '{models}'; }}
    location / {{ return 200 '{reply}'; }}
  }}
}}
"""


def nginx(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start nginx with a fixed reply, which costs it next to nothing; return it and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    values = {"folder": folder, "port": port, "models": MODELS.decode()}
    values["reply"] = REPLY.decode().replace("\\", "\\\\")  # nginx unescapes what is quoted
    (folder / "conf").write_text(NGINX.format(**values))
    server = subprocess.Popen(["nginx", "-c", str(folder / "conf")], text=True)
    time.sleep(0.5)
    return server, port


def own_server(latency: float) -> tuple[subprocess.Popen[str], str]:
    """Start a server of this file; return it and its port."""
    program = [sys.executable, __file__, "--serve", "--latency", str(latency)]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout of another version")
    parser.add_argument("--openai", help="a Python with the packages openai and httpx")
    parser.add_argument("--latency", type=float, default=0.0, help="of the server, in seconds")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="numbers of processes")
    parser.add_argument("--nginx", action="store_true", help="the server is nginx")
    parser.add_argument("--url", help="a server of one's own")
    parser.add_argument("--measure", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        if asked.workers[0]:
            MODEL.update(on="processes", replicas=asked.workers[0])
        else:
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


def _rows(asked: argparse.Namespace) -> list[Row]:
    rows = [Row("bare aiohttp", "bare aiohttp")]
    if asked.openai:
        rows.append(Row("openai", "openai", asked.openai))
    for client in ("backend alone", "whole run"):
        if asked.before:
            before = asked.before.resolve()
            rows.append(Row(f"{client}, before", client, root=before))
        rows.append(Row(client, client))
        rows += [Row(f"{client}, {n} processes", client, workers=n) for n in asked.workers]
    return rows


def _compare(asked: argparse.Namespace) -> None:
    """Let the clients take turns."""
    with tempfile.TemporaryDirectory() as folder:
        server, port = nginx(Path(folder)) if asked.nginx else own_server(asked.latency)
        url = asked.url or f"http://127.0.0.1:{port}/v1"
        found: dict[str, list[Found]] = {row.name: [] for row in _rows(asked)}
        try:
            for _ in range(asked.times):
                for row in _rows(asked):
                    calls = asked.calls // 10 if row.client == "openai" else asked.calls
                    found[row.name].append(row.turn(url, calls))
        finally:
            server.terminate()
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
