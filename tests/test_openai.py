"""The OpenAI backend, with a real HTTP server and its typical failures."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiohttp import web
from conftest import ROOT
from pydantic import ValidationError

from agents.forms import CallName, FreeText, Rating, Status
from sandbox.backends.addresses import (
    FAILURES_IN_A_ROW,
    FIRST_REST,
    FIRST_WIDTH,
    SPARE_CALLS,
    AdaptiveGate,
    Address,
    choose,
)
from sandbox.backends.base import BackendDown, Call, CallFailed, Reply, Resting, Unavailable
from sandbox.backends.openai import OpenAIBackend, OpenAIConfig
from sandbox.backends.openai.request import END_OF_THINKING
from sandbox.backends.pace import Pace
from sandbox.backends.retries import LONGEST_WAIT, retry_seconds, seconds_asked

KEY = "sk-very-secret-0123456789"
RATED = "Rating: 5\nReason: because."


def call(episode=0, shape=None, **changes):
    name = CallName(1, episode, "rate", 3)
    return Call(name, 7, "Be fair.", "Rate it.", shape or Rating(), 160, 0.5)._replace(**changes)


def body_of(message, **changes):
    usage = {"prompt_tokens": 11, "completion_tokens": 4}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **changes}
    return {"choices": [choice], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 8}}}


class Server:
    """A server with one model; `handler` answers requests."""

    def __init__(self, owner="vllm"):
        self.asked = []
        self.headers = []
        self.owner = owner
        self.listed = 200
        self.handler: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.rate
        self.url = ""

    async def models(self, request):
        if self.listed != 200:
            said = f"wrong {request.headers.get('Authorization')}"
            return web.json_response({"error": {"message": said}}, status=self.listed)
        return web.json_response({"data": [{"id": "tiny", "owned_by": self.owner}]})

    async def asks(self, request):
        self.headers.append(request.headers)
        self.asked.append((request.path, await request.json()))
        return await self.handler(request)

    async def rate(self, request):
        return web.json_response(body_of({"content": RATED}))

    def says(self, status, message="no", headers=None):
        async def handler(request):
            error = {"error": {"message": message}}
            return web.json_response(error, status=status, headers=headers)

        self.handler = handler

    def sends(self, content):
        async def handler(request):
            return web.Response(text=content if isinstance(content, str) else json.dumps(content))

        self.handler = handler


@asynccontextmanager
async def serving(server) -> AsyncIterator[web.AppRunner]:
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/{path:.*}", server.asks)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield runner
    finally:
        await runner.cleanup()


def config_of(*urls, **settings):
    return OpenAIConfig(**{"backend": "openai", "model": "tiny", "base_url": urls, **settings})


@asynccontextmanager
async def started(*servers, **settings):
    backend = OpenAIBackend(config_of(*(server.url for server in servers), **settings))
    try:
        await backend.start()
        yield backend
    finally:
        await backend.close()


def ask(server, one=None, **settings) -> Reply:
    async def main():
        async with serving(server), started(server, **settings) as backend:
            return await backend.answer(one or call())

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_a_request_has_all_fields_of_the_call():
    server = Server()
    reply = ask(
        server,
        call(seed=2**63 + 5, adapter="critic"),
        sampling={"top_p": 0.9},
        extra_body={"user": "society"},
    )
    assert reply == Reply(RATED, False, 11, 4, 8, constrained=True)
    path, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "critic",
        "messages": [
            {"role": "system", "content": "Be fair."},
            {"role": "user", "content": "Rate it."},
        ],
        "seed": 5,
        "max_tokens": 160,
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "society",
        "structured_outputs": {"regex": Rating().regex},
    }
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_no_header_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server = Server()
    ask(server)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("owner", "settings", "fields"),
    [
        ("vllm", {}, {"structured_outputs"}),
        ("vllm", {"constrain": "none"}, set()),
        ("openai", {}, set()),
        ("openai", {"constrain": "vllm"}, {"structured_outputs"}),
        ("vllm", {"priority": True}, {"structured_outputs", "priority"}),
        ("openai", {"priority": True}, set()),
    ],
)
def test_only_vllm_gets_its_own_fields(owner, settings, fields):
    server = Server(owner)
    ask(server, **settings)
    assert fields == {"structured_outputs", "priority"} & server.asked[-1][1].keys()


def test_a_base_model_gets_plain_text():
    server = Server()
    server.sends({"choices": [{"text": " So be it.", "finish_reason": "length"}]})
    reply = ask(server, call(shape=FreeText()), chat=False)
    assert reply == Reply(" So be it.", cut=True)
    path, body = server.asked[0]
    assert path == "/v1/completions"
    assert body["prompt"] == "Be fair.\n\nRate it."
    assert "messages" not in body


CHAT_LOGPROBS = {
    "content": [
        {"token": "I think 3 or 4.", "logprob": 0.0, "top_logprobs": []},
        {"token": "Rating:", "logprob": 0.0, "top_logprobs": []},
        {
            "token": " 5",
            "logprob": -0.6931471805599453,
            "top_logprobs": [
                {"token": " 5", "logprob": -0.6931471805599453},
                {"token": "7", "logprob": -0.6931471805599453},
                {"token": "!", "logprob": -9999.0},
            ],
        },
        {"token": "\nReason: because.", "logprob": 0.0, "top_logprobs": []},
    ]
}


def test_the_expected_rating_ignores_the_thinking():
    server = Server()
    message = {"content": RATED, "reasoning": "I think 3 or 4."}
    server.sends(body_of(message, logprobs=CHAT_LOGPROBS))
    reply = ask(server, expected_rating=True, thinking=True)
    assert reply.expected == pytest.approx(6.0)
    body = server.asked[0][1]
    assert body["logprobs"] is True
    assert body["top_logprobs"] == 20


def test_the_expected_rating_of_a_base_model():
    server = Server()
    half = -0.6931471805599453
    logprobs = {
        "tokens": ["Rating: ", "2"],
        "token_logprobs": [None, half],
        "top_logprobs": [None, {"2": half, "4": half}],
    }
    server.sends({"choices": [{"text": "Rating: 2", "logprobs": logprobs}]})
    reply = ask(server, expected_rating=True, chat=False)
    assert reply.expected == pytest.approx(3.0)
    assert server.asked[0][1]["logprobs"] == 20


@pytest.mark.parametrize("logprobs", [None, [], {"content": None}, {"content": [None, 1, {}]}])
def test_without_log_probabilities_there_is_no_expected_rating(logprobs):
    server = Server()
    server.sends(body_of({"content": RATED}, logprobs=logprobs))
    assert ask(server, expected_rating=True).expected is None


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thinking_is_stored_and_its_budget_is_added(field):
    server = Server()
    server.sends(body_of({"content": RATED, field: "Hm."}))
    reply = ask(server, thinking=True, thinking_budget=100)
    assert (reply.text, reply.thinking) == (RATED, "Hm.")
    body = server.asked[0][1]
    assert body["thinking_token_budget"] == 100
    assert body["max_tokens"] > 260


def test_thinking_without_a_reply_is_an_empty_reply():
    server = Server()
    server.sends(body_of({"content": None, "reasoning": "Hm."}, finish_reason="length"))
    reply = ask(server, thinking=True)
    assert (reply.text, reply.cut, reply.thinking) == ("", True, "Hm.")
    assert FreeText().parse(reply.text, reply.cut) == (None, Status.EMPTY)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_aborted_reply_is_retried(reason):
    server = Server()
    server.sends(body_of({"content": "Half of what"}, finish_reason=reason))
    with pytest.raises(Unavailable, match=reason):
        ask(server)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503])
def test_retry_after_is_respected(status):
    server = Server()
    server.says(status, f"busy, {KEY}", {"Retry-After": "17"})
    with pytest.raises(Unavailable) as caught:
        ask(server)
    assert 16 < caught.value.after <= 17
    assert str(status) in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_prompt_is_a_failed_call(status):
    server = Server()
    server.says(status, f"too\nlong {KEY} " + "x" * 500)
    with pytest.raises(CallFailed) as caught:
        ask(server)
    assert str(caught.value).startswith("too long *** xxx")
    assert len(str(caught.value)) == 300


NEWER = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)


def limits_asked(server):
    names = ("max_tokens", "max_completion_tokens")
    return [[name for name in names if name in body] for _, body in server.asked]


@pytest.mark.parametrize("settings", [{}, {"thinking": True, "thinking_budget": 100}])
def test_the_newer_limit_is_sent_if_a_server_requires_it(settings):
    async def newer(request):
        body = await request.json()
        if "max_tokens" in body:
            error = {"message": NEWER, "param": "max_tokens", "code": "unsupported_parameter"}
            return web.json_response({"error": error}, status=400)
        return web.json_response(body_of({"content": f"{body['max_completion_tokens']}"}))

    async def main():
        server, other = Server(), Server()
        async with (
            serving(server),
            serving(other),
            started(server, other, **settings) as backend,
        ):
            server.handler = newer
            at_once = [backend.answer(call(episode)) for episode in (0, 2)]
            replies = await asyncio.gather(*at_once, backend.answer(call(1)))
            replies.append(await backend.answer(call(4)))
        limit = str(160 + (100 + END_OF_THINKING if settings else 0))
        assert [reply.text for reply in replies] == [limit, limit, RATED, limit]
        old, new = ["max_tokens"], ["max_completion_tokens"]
        assert sorted(limits_asked(server)) == [new, new, new, old, old]
        assert limits_asked(server)[-1] == new
        assert limits_asked(other) == [old], "each address by itself"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "'max_tokens' or 'max_completion_tokens' is too large: 160."),
        (400, "Use a shorter prompt instead."),
        (413, NEWER),
    ],
)
def test_another_refusal_is_not_retried(status, message):
    server = Server()
    server.says(status, message)
    with pytest.raises(CallFailed):
        ask(server)
    assert limits_asked(server) == [["max_tokens"]]


def test_a_server_that_refuses_both_limits_is_a_failed_call():
    server = Server()
    server.says(400, NEWER)
    with pytest.raises(CallFailed, match="Unsupported parameter"):
        ask(server)
    assert limits_asked(server) == [["max_tokens"], ["max_completion_tokens"]]


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_refused_key_or_an_unknown_model_stops_the_run(status):
    server = Server()
    server.says(status, f"not you, {KEY}")
    with pytest.raises(BackendDown) as caught:
        ask(server)
    assert server.url in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["<html>", "", "[" * 100_000, '{"choices": [{"mess'])
def test_a_reply_that_is_not_json_is_retried(text):
    server = Server()
    server.sends(text)
    with pytest.raises(Unavailable, match="not JSON"):
        ask(server)


@pytest.mark.parametrize("content", [{}, [], {"choices": []}, {"error": {"message": KEY}}])
def test_a_reply_without_choices_is_retried(content):
    server = Server()
    server.sends(content)
    with pytest.raises(Unavailable, match="without choices") as caught:
        ask(server)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [(502, Unavailable), (429, Unavailable), (400, CallFailed), (401, BackendDown)],
)
def test_an_error_in_the_body_counts_as_its_status(code, error):
    server = Server()
    server.sends({"error": {"message": f"upstream {KEY}", "code": code}})
    with pytest.raises(error, match=r"upstream \*\*\*"):
        ask(server)


@pytest.mark.parametrize(
    ("status", "listed"),
    [
        (200, [{"id": "tiny"}]),
        (200, [1, 2]),
        (200, "<html>"),
        (200, {"models": []}),
        (200, {"data": [{"id": "models/tiny"}]}),
        (200, {"data": [{"id": "openai/*"}]}),
        (200, {"data": [{"id": "another"}]}),
        (403, {"error": "no rights to list models"}),
        (404, {"detail": "Not Found"}),
        (405, {}),
        (503, {}),
    ],
)
def test_the_list_of_models_is_advice(status, listed):
    server = Server()

    async def models(request):
        return web.Response(text=json.dumps(listed), status=status)

    server.models = models
    assert ask(server).text == RATED


def test_a_model_that_neither_list_nor_server_has_stops_the_start(caplog):
    server = Server(owner="someone")

    async def handler(request):
        error = {"message": "Invalid model name passed in model=large"}
        return web.json_response({"error": error}, status=400)

    server.handler = handler
    with pytest.raises(BackendDown, match=r"Invalid model name .*; correct the model"):
        ask(server, model="large")
    assert "lists tiny, but not 'large'" in caplog.text
    assert len(server.asked) == 1


def test_an_account_without_credit_is_reported():
    server = Server()
    server.says(402, "Insufficient Balance")
    with pytest.raises(
        BackendDown, match=r"Insufficient Balance\); expected an account with credit"
    ):
        ask(server)


def _run(server, folder, *more):
    model = json.dumps({"backend": "openai", "model": "tiny", "base_url": server.url})
    pairs = ("world.size=3", "rounds=1", f"models.social={model}", f"models.observer={model}")
    options = [part for pair in (*pairs, *more) for part in ("--set", pair)]
    program = [sys.executable, str(ROOT / "run_sim.py"), "run", "--name", "it", *options]
    piped = asyncio.subprocess.PIPE
    return asyncio.create_subprocess_exec(*program, cwd=folder, stdout=piped, stderr=piped)


def test_ctrl_c_does_not_wait_for_a_retry(tmp_path):
    async def main():
        server = Server()
        server.says(429, "slow down", {"Retry-After": "500"})
        async with serving(server):
            process = await _run(server, tmp_path)
            while not server.asked:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            _, errors = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 130, errors
            assert time.monotonic() - began < 20

    asyncio.run(main())


def test_a_run_without_any_reply_fails(tmp_path):
    async def main():
        server = Server()
        server.says(400, "role 'system' is not allowed")
        async with serving(server):
            process = await _run(server, tmp_path, "attempts=1")
            _, errors = await process.communicate()
            assert process.returncode == 1
            expected = "9 of 9 calls got no reply, the last one: role 'system' is not allowed"
            assert expected in errors.decode()
            assert "inspect it calls --failures" in errors.decode()

    asyncio.run(main())


@pytest.mark.parametrize("status", [401, 402])
def test_a_server_that_refuses_the_key_stops_the_start(status):
    server = Server()
    server.listed = status
    with pytest.raises(BackendDown) as caught:
        ask(server)
    assert server.url in str(caught.value)
    assert f"answered {status} (wrong Bearer ***)" in str(caught.value)


def test_a_model_that_is_not_served_stops_the_start():
    with pytest.raises(BackendDown, match=r"serves tiny, but not 'large'; expected .* tiny"):
        ask(Server(), model="large")


def test_an_unreachable_server_stops_the_start():
    async def main():
        server = Server()
        async with serving(server):
            pass
        with pytest.raises(BackendDown, match="cannot be reached") as caught:
            async with started(server):
                pass
        assert server.url in str(caught.value)

    asyncio.run(main())


def test_a_key_with_a_line_break_is_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(BackendDown, match="OPENAI_API_KEY") as caught:
        ask(Server())
    assert "sk-" not in str(caught.value)


async def drop(request):
    request.transport.abort()
    return web.Response()


def test_an_address_rests_after_several_dropped_connections_in_a_row():
    async def main():
        server = Server()
        async with serving(server), started(server) as backend:
            server.handler = drop
            for _ in range(FAILURES_IN_A_ROW):
                with pytest.raises(Unavailable) as caught:
                    await backend.answer(call())
                assert not isinstance(caught.value, Resting)
            with pytest.raises(Resting, match=r"127\.0\.0\.1") as caught:
                await backend.answer(call())
            assert 0 < caught.value.after <= FIRST_REST
            assert len(server.asked) == FAILURES_IN_A_ROW

    asyncio.run(main())


def test_a_success_between_dropped_connections_keeps_an_address_in_use():
    async def main():
        server = Server()
        async with serving(server), started(server) as backend:
            for _ in range(FAILURES_IN_A_ROW):
                server.handler = drop
                with pytest.raises(Unavailable):
                    await backend.answer(call())
                server.handler = server.rate
                assert (await backend.answer(call())).text == RATED

    asyncio.run(main())


def test_an_answer_ends_a_rest_unless_the_server_asked_for_it():
    address = Address("http://a/v1", 1)
    for _ in range(FAILURES_IN_A_ROW):
        address.failed("gone")
    assert address.seconds_resting() > 0
    address.answered()
    assert address.seconds_resting() == 0
    address.failed("quota", 600)
    address.answered()
    assert 599 < address.seconds_resting() <= 600


def test_another_address_is_tried_after_a_failure():
    async def main():
        dead, alive = Server(), Server()
        async with serving(alive), serving(dead) as runner, started(dead, alive) as backend:
            await runner.cleanup()
            with pytest.raises(Unavailable) as caught:
                await backend.answer(call(episode=0))
            assert caught.value.after == 0
            for episode in range(4):
                assert (await backend.answer(call(episode))).text == RATED
        assert len(alive.asked) == 4

    asyncio.run(main())


def test_a_long_wait_for_one_address_keeps_no_call_from_another():
    async def main():
        full, free = Server(), Server()
        full.says(429, "quota", {"Retry-After": "600"})
        async with serving(full), serving(free), started(full, free) as backend:
            with pytest.raises(Unavailable, match="quota") as caught:
                await backend.answer(call(episode=0))
            assert caught.value.after == 0
            assert (await backend.answer(call(episode=0))).text == RATED

    asyncio.run(main())


def test_the_time_in_the_queue_of_an_address_is_not_that_of_a_reply():
    async def main():
        server = Server()

        async def slow(request):
            await asyncio.sleep(0.3)
            return await server.rate(request)

        server.handler = slow
        async with serving(server), started(server, max_in_flight=1, timeout=1) as backend:
            await asyncio.gather(*(backend.answer(call()) for _ in range(6)))

    asyncio.run(main())


def test_a_reply_that_takes_too_long_is_unavailable():
    async def hang(request):
        await asyncio.sleep(30)

    server = Server()
    server.handler = hang
    with pytest.raises(Unavailable, match=r"no reply within 0.2 seconds"):
        ask(server, timeout=0.2)


def test_an_episode_stays_at_one_address():
    async def main():
        one, two = Server(), Server()
        async with serving(one), serving(two), started(one, two) as backend:
            for _ in range(3):
                await asyncio.gather(*(backend.answer(call(episode)) for episode in (0, 2, 5)))
        assert (len(one.asked), len(two.asked)) == (6, 3)

    asyncio.run(main())


def test_a_timed_out_call_leaves_the_gate():
    async def hang(request):
        await asyncio.sleep(30)

    async def late(backend, **changes):
        async with asyncio.timeout(0.1):
            return await backend.answer(call(**changes))

    async def main():
        server = Server()
        async with serving(server), started(server, max_in_flight=2) as backend:
            server.handler = hang
            tries = await asyncio.gather(*(late(backend) for _ in range(5)), return_exceptions=True)
            assert all(isinstance(one, TimeoutError) for one in tries)
            server.handler = server.rate
            async with asyncio.timeout(5):
                assert (await backend.answer(call())).text == RATED

    asyncio.run(main())


def test_no_more_calls_at_once_than_allowed():
    most = now = 0

    async def main():
        server = Server()

        async def slow(request):
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            return await server.rate(request)

        server.handler = slow
        async with serving(server), started(server, max_in_flight=3) as backend:
            await asyncio.gather(*(backend.answer(call(episode)) for episode in range(20)))

    asyncio.run(main())
    assert most == 3


def test_the_gate_lets_the_lowest_priority_number_in_first():
    async def main():
        gate, order = AdaptiveGate(1), []

        async def one(priority):
            await gate.enter(priority)
            order.append(priority)
            gate.leave()

        await gate.enter(0)
        waiting = [asyncio.create_task(one(priority)) for priority in (5, 2, 9, 1)]
        await asyncio.sleep(0)
        waiting[2].cancel()
        gate.leave()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == [1, 2, 5]
        assert gate.inside == gate.load() == 0

    asyncio.run(main())


def test_a_call_that_is_cancelled_when_admitted_leaves_the_gate():
    async def main():
        gate = AdaptiveGate(1)
        await gate.enter(0)
        waiting = asyncio.create_task(gate.enter(1))
        await asyncio.sleep(0)
        gate.leave()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert gate.inside == 0

    asyncio.run(main())


def test_the_gate_halves_once_a_second_and_grows_back(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    gate = AdaptiveGate(8)
    gate.overloaded()
    gate.overloaded()
    assert gate.width == 4
    now += 1
    for _ in range(5):
        gate.overloaded()
        now += 1
    assert gate.width == 1
    gate.succeeded()
    assert gate.width == 2
    for _ in range(100):
        gate.succeeded()
    assert gate.width == 8


@pytest.mark.parametrize("status", [408, 503, 504, 529])
def test_an_overloaded_server_gets_fewer_calls(status):
    async def main():
        server = Server()
        async with serving(server), started(server, max_in_flight=8) as backend:
            server.says(status)
            with pytest.raises(Unavailable) as caught:
                await backend.answer(call())
            assert caught.value.busy
            assert backend._addresses[0].gate.width == 4

    asyncio.run(main())


def test_a_server_that_is_not_vllm_gets_few_calls_at_first():
    async def main():
        server = Server(owner="someone")
        async with serving(server), started(server, max_in_flight=99) as backend:
            gate = backend._addresses[0].gate
            assert gate.width == FIRST_WIDTH
            for _ in range(4):
                await backend.answer(call())
            assert gate.width == FIRST_WIDTH + 4

    asyncio.run(main())


@pytest.mark.long
def test_a_rate_limit_is_learned():
    """A bucket of 5 requests that is filled at 40 a second: few requests are refused."""
    refused = 0

    async def main():
        server, tokens, filled = Server(owner="someone"), 5.0, time.monotonic()

        async def limited(request):
            nonlocal tokens, filled, refused
            now = time.monotonic()
            tokens, filled = min(5.0, tokens + 40 * (now - filled)), now
            if tokens < 1:
                refused += 1
                error = {"error": {"message": "Rate limit reached. Please try again in 25ms."}}
                return web.json_response(error, status=429)
            tokens -= 1
            return await server.rate(request)

        async def one(backend):
            while True:
                try:
                    return await backend.answer(call())
                except Unavailable as error:
                    await asyncio.sleep(error.after + 0.05)

        server.handler = limited
        async with serving(server), started(server, constrain="none") as backend:
            await asyncio.gather(*(one(backend) for _ in range(300)))
            assert 5 < backend._addresses[0].pace.rate < 60
        assert len(server.asked) == 300 + refused

    asyncio.run(main())
    assert 0 < refused < 75


def _a_limited_pace(clock):
    """The pace of a server that answered 10 requests a second and refused 7 of 27.

    It answered 12 in the 1.2 seconds since the first refusal.
    """
    pace = Pace()
    for _ in range(8):
        pace.answered()
        clock.now += 0.1
    for _ in range(6):
        pace.refused()
        for _ in range(2):
            clock.now += 0.1
            pace.answered()
    assert pace.rate is None, "too few are refused"
    pace.refused()
    return pace


def test_a_pace_falls_with_refusals_and_recovers(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    pace = _a_limited_pace(clock)
    assert pace.rate == pytest.approx(8)
    for _ in range(60):
        clock.now += 1
        for _ in range(5):
            pace.refused()
    assert pace.rate == pytest.approx(8), "a server that refuses all is away"
    clock.now += 100
    for _ in range(9):
        clock.now += 1
        pace.answered()
    assert pace.rate == pytest.approx(8 * 1.1**9)


def test_refusals_at_any_rate_are_no_limit(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    pace = _a_limited_pace(clock)
    for _ in range(60):
        clock.now += 0.2
        pace.answered()
        pace.answered()
        pace.refused()
    assert pace.rate is None


def test_rests_double_up_to_a_limit(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    address, rests = Address("http://a/v1", 1), []
    for _ in range(FAILURES_IN_A_ROW - 1):
        address.failed("gone")
    for _ in range(5):
        address.failed("gone")
        address.failed("gone")
        rests.append(address.seconds_resting())
        now += rests[-1]
    assert rests == [2, 4, 8, 15, 15]
    address.answered()
    for _ in range(FAILURES_IN_A_ROW):
        address.failed("gone")
    assert address.seconds_resting() == 2


def test_a_busy_address_is_avoided():
    addresses = [Address("http://a/v1", 100), Address("http://b/v1", 100)]
    addresses[0].gate.inside = SPARE_CALLS
    assert choose(addresses, 0) is addresses[0]
    addresses[0].gate.inside += 1
    assert choose(addresses, 0) is addresses[1]


def test_retry_after_is_seconds_or_a_date():
    now = datetime(2025, 1, 1, tzinfo=UTC)
    assert retry_seconds("2.5") == 2.5
    assert retry_seconds("Wed, 01 Jan 2025 00:00:30 GMT", now) == 30
    assert retry_seconds("Wed, 01 Jan 2020 00:00:30 GMT", now) == 0
    assert retry_seconds("1e9") == LONGEST_WAIT
    for nonsense in (None, "", "soon", "nan", "inf", "1e400", "-3"):
        assert retry_seconds(nonsense) == 0


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 333ms.", 0.333),
        ("Rate limit reached: try again in 1m30s. Visit the site.", 90),
        ("Retry after 5 seconds", 5),
        ("please wait 1 minute and 5 seconds", 65),
        ('"retryDelay": "34s"', 34),
        ("try again in 2 days", 172_800),
        ("try again later", 0),
        ("gpt-4: 10 minutes of audio", 0),
    ],
)
def test_a_wait_in_the_words_of_an_error_is_found(words, seconds):
    assert seconds_asked({}, words.encode()) == pytest.approx(seconds)
    assert seconds_asked({"Retry-After": "7"}, words.encode()) == 7


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("30", 30),
        ("2025-01-01T00:00:40Z", 40),
        ("1735689650", 50),
        ("1735689650000", 50),
        ("soon", 0),
        ("", 0),
    ],
)
def test_a_limit_of_which_nothing_is_left_tells_when_it_is_full_again(reset, seconds):
    now = datetime(2025, 1, 1, tzinfo=UTC)
    left, full = "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"
    assert seconds_asked({left: "0", full: reset}, b"", now) == pytest.approx(seconds)
    assert seconds_asked({left: "3", full: reset}, b"", now) == 0


@pytest.mark.parametrize(
    "base_url",
    [
        "localhost:8000",
        "ftp://a",
        "http://",
        "http://user:hunter2@a",
        "http://a:99999",
        "http://a?b",
        (),
        ("http://a", "http://a/v1/"),
    ],
)
def test_a_wrong_address_is_refused(base_url):
    with pytest.raises(ValidationError) as caught:
        OpenAIConfig(backend="openai", model="tiny", base_url=base_url)
    assert "hunter2" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    "settings",
    [
        {"extra_body": {"seed": 1}},
        {"extra_body": {"max_completion_tokens": 9}},
        {"thinking_budget": 5},
        {"api_key_env": "sk-123"},
    ],
)
def test_a_wrong_setting_is_refused(settings):
    with pytest.raises(ValidationError):
        config_of("http://a", **settings)


def test_v1_is_added_to_addresses_without_a_path():
    urls = ("http://a:1", "http://b/", "https://c/api/v2/")
    assert config_of(*urls).addresses() == ("http://a:1/v1", "http://b/v1", "https://c/api/v2")


def test_the_key_is_neither_in_the_config_nor_in_a_repr():
    async def main():
        server = Server()
        async with serving(server), started(server) as backend:
            assert KEY not in backend._config.model_dump_json()
            assert KEY not in repr(backend._client.key)

    asyncio.run(main())


@pytest.mark.parametrize("by_aiohttp", [False, True])
def test_a_router_can_tell_the_calls_of_an_episode(by_aiohttp, monkeypatch):
    if by_aiohttp:
        monkeypatch.setattr("sandbox.backends.openai.client.target_of", lambda url: None)
    server = Server()

    async def main():
        async with serving(server), started(server, session_header="x-session-id") as backend:
            for episode in (3, 3, 4):
                await backend.answer(call(episode))
        async with serving(server), started(server, session_header="x-session-id") as other:
            await other.answer(call(3))

    asyncio.run(main())
    words = [headers["x-session-id"] for headers in server.headers]
    assert words[0] == words[1]
    assert len(set(words)) == 3
    ask(server)
    assert "x-session-id" not in server.headers[-1]


@pytest.mark.parametrize("name", ["a b", "Host", "x-api-key"])
def test_a_session_header_has_a_name_of_its_own(name):
    with pytest.raises(ValidationError, match="the name of a header"):
        config_of("http://a", session_header=name)
