"""Which failures are the fault of a prompt, and how soon that is known."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest
from aiohttp import web
from test_openai import RATED, Server, call, serving, started

from agents.forms import CallName
from sandbox.backends.base import Call
from sandbox.engine.health import Health
from sandbox.engine.layers import Result, retry
from sandbox.engine.limits import UNLIMITED, Limiter
from sandbox.progress import Clock


class Poisoned(Server):
    """Cannot answer prompts with the word "poison"; counts the requests of each prompt."""

    def __init__(self, hangs: bool) -> None:
        super().__init__()
        self.hangs = hangs
        self.requests: Counter[str] = Counter()
        self.handler = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        prompt = (await request.json())["messages"][-1]["content"]
        self.requests[prompt] += 1
        if "poison" not in prompt:
            return await self.rate(request)
        if not self.hangs:
            return web.json_response({"error": {"message": "index out of range"}}, status=500)
        await asyncio.sleep(30)
        return web.Response()


def _prompt(number: int, words: str, attempt: int = 0) -> Call:
    return call(number, name=CallName(1, number, "rate", 3, 0, attempt), user=f"{words} {number}")


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.long
def test_poisoned_prompts_are_judged_soon_and_beside_each_other(
    hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.backends.addresses.FIRST_REST", 0.1)
    monkeypatch.setattr("sandbox.engine.layers.pause", lambda attempt, jitter: 0.02 * attempt)
    server = Poisoned(hangs)

    async def judged() -> tuple[list[Result], list[Result], list[Result]]:
        async with (
            serving(server),
            started(server, timeout=1.5, max_in_flight=16) as backend,
        ):
            health = Health(backend, backend._config)
            sent = retry(health, Limiter(UNLIMITED, Clock()), random.Random(7))

            async def all_of(words: str, count: int, attempt: int = 0) -> list[Result]:
                calls = (_prompt(number, words, attempt) for number in range(count))
                return await asyncio.gather(*(sent(one) for one in calls))

            fine = await all_of("fine", 100)
            async with asyncio.timeout(15):
                first = await all_of("poison", 8)
                second = await all_of("poison", 8, attempt=1)
            assert backend._addresses[0].gate.width == 16, "a prompt that hangs blocks no other"
            return fine, first, second

    fine, first, second = asyncio.run(judged())
    assert all(one.reply is not None and one.reply.text == RATED for one in fine)
    for one in first + second:
        assert one.reply is None
        assert one.error is not None
        assert one.error.endswith("while others were answered")
    poisoned = {prompt: n for prompt, n in server.requests.items() if "poison" in prompt}
    assert len(poisoned) == 8
    assert all(7 <= count <= 9 for count in poisoned.values()), "6 or 7 tries, then 1 or 2"


def test_replies_that_come_late_are_a_sign_of_overload() -> None:
    """A server that answers one request after the other gets fewer at once."""

    async def main() -> None:
        server, turn = Server(), asyncio.Lock()

        async def slow(request: web.Request) -> web.StreamResponse:
            async with turn:
                await asyncio.sleep(0.1)
            return await server.rate(request)

        server.handler = slow
        async with serving(server), started(server, timeout=0.5, max_in_flight=16) as backend:
            await asyncio.gather(*map(backend.answer, map(call, range(12))), return_exceptions=True)
            assert backend._addresses[0].gate.width < 16

    asyncio.run(main())


def test_calls_wait_for_the_probe_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is asked by one short prompt, not by all calls at once."""
    monkeypatch.setattr("sandbox.backends.addresses.FIRST_REST", 0.3)
    server = Server()
    away = True

    async def main() -> list[Result]:
        nonlocal away

        async def answer(request: web.Request) -> web.StreamResponse:
            if away:
                return web.json_response({"error": {"message": "starting"}}, status=500)
            return await server.rate(request)

        server.handler = answer
        async with serving(server), started(server) as backend:
            sent = retry(
                Health(backend, backend._config), Limiter(UNLIMITED, Clock()), random.Random(7)
            )
            calls = [asyncio.ensure_future(sent(_prompt(number, "fine"))) for number in range(20)]
            await asyncio.sleep(0.2)
            before = len(server.asked)
            while len(server.asked) == before:
                await asyncio.sleep(0.01)
            away = False
            return await asyncio.gather(*calls)

    results = asyncio.run(main())
    assert all(one.reply is not None for one in results)
    first = json.dumps(server.asked[:21])
    assert first.count("Say yes.") == 1, "the probe comes before any call is sent again"
