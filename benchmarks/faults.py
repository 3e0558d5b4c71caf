"""A run against a server that fails in every way at once, and one against the same server in order.

5 % of the connections are dropped, 5 % of the requests are refused with status 429 or 500, and the
server is away for some minutes in the middle. The disturbed run has to end with no failed call and
the digest of the undisturbed one::

    python benchmarks/faults.py                          # about 800 calls, away for 180 seconds
    python benchmarks/faults.py --rounds 3 --away 5      # a short version, as in the tests
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
CALLS_A_ROUND = 72  # 9 agents, 2 raters: draft, 2 ratings, revision, 4 observations
WORDS = ("take", "care", "ask", "share", "say", "sorry", "wait", "a", "day", "tell", "truth")


class Server:
    """A model that answers by prompt and seed, and fails by chance."""

    def __init__(self, dropped: float, refused: float, away: float, away_after: int) -> None:
        self.seen: Counter[str] = Counter()
        self._dropped, self._refused = dropped, refused
        self._away, self._away_after = away, away_after
        self._away_until: float | None = None
        self._chance = random.Random(7)

    async def models(self, request: web.Request) -> web.Response:
        """List the model."""
        return web.json_response({"data": [{"id": "m"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer, or fail."""
        body = await request.json()
        await asyncio.sleep(0.02)
        if self._is_away():
            return self._drop(request, "while away")
        draw = self._chance.random()
        if draw < self._dropped:
            return self._drop(request, "dropped")
        if draw < self._dropped + self._refused:
            status = self._chance.choice((429, 500))
            self.seen[str(status)] += 1
            return web.json_response({"error": {"message": "try again"}}, status=status)
        self.seen["answered"] += 1
        if self.seen["answered"] == self._away_after:
            self._away_until = time.monotonic() + self._away
        choice = {"message": {"content": reply(body)}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 20}
        return web.json_response({"choices": [choice], "usage": usage})

    def _is_away(self) -> bool:
        return self._away_until is not None and time.monotonic() < self._away_until

    def _drop(self, request: web.Request, why: str) -> web.Response:
        self.seen[why] += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


def reply(body: dict[str, object]) -> str:
    """Return the reply to a request, which depends on nothing else."""
    prompt = json.dumps(body["messages"], ensure_ascii=False)
    chance = random.Random(f"{body['seed']} {prompt}")
    text = " ".join(chance.choices(WORDS, k=20))
    is_rating = "Rating: a whole number" in prompt
    return f"Rating: {chance.randint(1, 7)}\nReason: {text}." if is_rating else f"I would {text}."


async def play(folder: Path, name: str, server: Server, rounds: int) -> dict[str, object]:
    """Play a run with a server; return its outcome."""
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    model = json.dumps({"backend": "openai", "base_url": url, "model": "m"})
    pairs = (
        *("world.size=3", "world.raters=2", f"rounds={rounds}", "question_count=null"),
        *(f"models.{role}={model}" for role in ("social", "observer")),
    )
    options = [part for pair in pairs for part in ("--set", pair)]
    program = [sys.executable, str(ROOT / "run_sim.py"), "run", "--name", name, "--json", *options]
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *program, cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    await runner.cleanup()
    outcome: dict[str, object] = json.loads(out)
    took = time.monotonic() - began
    print(
        f"{name}: {outcome['status']} in {took:.0f} s, {outcome['calls']} calls, "
        f"{outcome['calls_failed']} failed; the server: {dict(server.seen)}"
    )
    return outcome


async def main() -> int:
    """Play both runs; return the exit status."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=11, help="72 calls each")
    options.add_argument("--away", type=float, default=180, help="seconds without the server")
    chosen = options.parse_args()
    half = chosen.rounds * CALLS_A_ROUND // 2
    with tempfile.TemporaryDirectory() as folder:
        calm = await play(Path(folder), "calm", Server(0, 0, 0, 0), chosen.rounds)
        disturbed = Server(0.05, 0.05, chosen.away, half)
        rough = await play(Path(folder), "disturbed", disturbed, chosen.rounds)
    same = calm["digest"] is not None and calm["digest"] == rough["digest"]
    print("the digests are equal" if same else "THE DIGESTS DIFFER")
    return 0 if same and rough["calls_failed"] == 0 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
