"""Servers with quirks: what they say is understood or kept and told, and requests bend to them."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from conftest import small
from pydantic import ValidationError
from test_openai import KEY, RATED, Server, ask, body_of, call, config_of, serving, started

from agents.forms import FreeText, Rating
from agents.shapes import Choice
from agents.thoughts import split_thoughts
from sandbox.backends.base import BackendDown, CallFailed, Unavailable
from sandbox.backends.openai import OpenAIBackend
from sandbox.backends.openai.client import MOST_RAW, proxy_of
from sandbox.backends.openai.constrain import Constraint, Probe, written
from sandbox.backends.openai.examine import examine_server
from sandbox.backends.openai.response import parse_body
from storage.errors import InputError

WORDS = "I would wait a day."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def say(content, **settings):
    """What the backend makes of a response to a call for prose."""
    server = Server()
    if isinstance(content, web.Response):

        async def handler(request):
            return content

        server.handler = handler
    else:
        server.sends(content)
    return ask(server, call(shape=FreeText()), **settings)


PARTS = [
    ([{"type": "text", "text": "I would "}, {"type": "text", "text": "wait a day."}], None),
    ([{"type": "output_text", "text": WORDS}], None),
    (["I would ", "wait a day."], None),
    ({"type": "text", "text": WORDS}, None),
    ({"parts": [{"text": "Hm.", "thought": True}, {"text": WORDS}]}, "Hm."),
    (
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
            {"type": "text", "text": WORDS},
        ],
        "Hm.",
    ),
    ([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": WORDS}], "Hm."),
    ([{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": WORDS}], "Hm."),
    (
        [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "output_text", "text": WORDS},
        ],
        "Hm.",
    ),
    ([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": WORDS}], None),
    ([{"type": "text", "text": {"value": WORDS}}], None),
]


@pytest.mark.parametrize(("content", "thinking"), PARTS)
@pytest.mark.parametrize("settings", [{}, {"thinking": True}])
def test_parts_are_joined_and_thoughts_kept(content, thinking, settings):
    reply = say(body_of({"content": content}), **settings)
    assert (reply.text, reply.thinking, reply.cut, reply.raw) == (WORDS, thinking, False, None)


@pytest.mark.parametrize(
    ("message", "thinking"),
    [
        ({"content": WORDS, "reasoning_content": "Hm."}, "Hm."),
        ({"content": WORDS, "reasoning": "Hm."}, "Hm."),
        ({"content": WORDS, "thinking": "Hm."}, "Hm."),
        ({"content": f"<think>Hm.</think>{WORDS}", "reasoning": "So."}, "So.\n\nHm."),
        (
            {
                "content": WORDS,
                "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}],
            },
            "Hm.",
        ),
    ],
)
def test_thoughts_are_kept_wherever_they_are(message, thinking):
    reply = say(body_of(message))
    assert (reply.text, reply.thinking, reply.raw) == (WORDS, thinking, None)


@pytest.mark.parametrize(
    ("text", "rest", "thinking"),
    [
        (f"<think>\nHm.\n</think>\n\n{WORDS}", WORDS, "Hm."),
        (f"<THINKING>Hm.</THINKING> {WORDS}", WORDS, "Hm."),
        (f"Hm.\n</think>\n\n{WORDS}", WORDS, "Hm."),
        ("<think>Hm. I would", "", "Hm. I would"),
        (f"{WORDS} <think>Hm. I would", WORDS, "Hm. I would"),
        (f"<think></think>\n{WORDS}", WORDS, None),
        ("Once<think>Hm.</think>more", "Once\nmore", "Hm."),
        (f"<think>a</think><think>b</think>{WORDS}", WORDS, "a\n\nb"),
        (f"[THINK]Hm.[/THINK]{WORDS}", WORDS, "Hm."),
        (f"\u25c1think\u25b7Hm.\u25c1/think\u25b7{WORDS}", WORDS, "Hm."),
        (f"<seed:think>Hm.</seed:think>{WORDS}", WORDS, "Hm."),
        (
            "<|begin_of_thought|>Hm.<|end_of_thought|>\n\n"
            f"<|begin_of_solution|>{WORDS}<|end_of_solution|>",
            WORDS,
            "Hm.",
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
            f"<|channel|>final<|message|>{WORDS}<|return|>",
            WORDS,
            "Hm.",
        ),
        ("<|channel|>analysis<|message|>Hm. I", "", "Hm. I"),
        (f"analysisHm.assistantfinal{WORDS}", WORDS, "Hm."),
        ("Put it into `<think>` and `</think>`.", "Put it into `<think>` and `</think>`.", None),
        (" 3 < 4 > 2, [sic]", " 3 < 4 > 2, [sic]", None),
        ("analysis of the case: wait.", "analysis of the case: wait.", None),
        (WORDS, WORDS, None),
    ],
)
def test_thoughts_in_a_text_are_no_part_of_the_reply(text, rest, thinking):
    split = split_thoughts(text)
    assert (split.text, split.thinking) == (rest, thinking)
    assert split.unended == text.endswith("I would")


@pytest.mark.parametrize(
    "reason",
    ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE", "complete"],
)
def test_known_words_are_complete(reason):
    reply = say(body_of({"content": WORDS}, finish_reason=reason))
    assert (reply.cut, reply.raw) == (False, None)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_limits_truncate(reason):
    reply = say(body_of({"content": WORDS}, finish_reason=reason))
    assert (reply.cut, reply.raw) == (True, None)


@pytest.mark.parametrize(
    "reason", ["content_filter", "SAFETY", "RECITATION", "tool_calls", "pause_turn", "banana"]
)
def test_other_words_are_truncated_kept_and_told_once(reason, caplog):
    async def main():
        server = Server()
        server.sends(body_of({"content": WORDS}, finish_reason=reason))
        async with serving(server), started(server) as backend:
            return [await backend.answer(call(shape=FreeText())) for _ in range(3)]

    replies = asyncio.run(main())
    assert {reply.cut for reply in replies} == {True}
    assert json.loads(replies[0].raw)["choices"][0]["finish_reason"] == reason
    assert caplog.text.count(f"ended with '{reason.lower()}', which counts as truncated") == 1


@pytest.mark.parametrize(
    ("changes", "tokens", "cut"),
    [
        ({"finish_reason": None}, 20, False),
        ({"finish_reason": None}, 160, True),
        ({"finish_reason": ""}, 20, False),
        ({"finish_reason": None, "stop_reason": "max_tokens"}, 20, True),
        ({"finish_reason": None, "native_finish_reason": "STOP"}, 160, False),
    ],
)
def test_a_missing_reason_is_complete_below_the_limit(changes, tokens, cut):
    content = body_of({"content": WORDS}, **changes)
    content["usage"]["completion_tokens"] = tokens
    assert say(content).cut is cut


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"content": None, "refusal": "I cannot help with that."}, "a refusal"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "a call of a tool"),
        ({"content": [{"type": "image", "data": "x"}]}, "a part of the kind 'image'"),
        ({"content": 7}, "a part that is int"),
        ({"content": None}, "no text"),
        ({}, "no text"),
        ({"content": ""}, "no text"),
    ],
)
def test_what_is_not_understood_is_kept_and_told(message, told, caplog):
    content = body_of({**message, "note": KEY + "x" * 2 * MOST_RAW})
    reply = say(content)
    assert reply.text == ""
    assert reply.raw.startswith('{"choices"') and len(reply.raw) == MOST_RAW
    assert "***" in reply.raw and KEY not in reply.raw
    assert f"sent {told}" in caplog.text
    assert "a run keeps such a response with its call" in caplog.text


def test_the_older_field_of_a_chat_completion():
    reply = say({"choices": [{"text": WORDS, "finish_reason": "stop"}]})
    assert (reply.text, reply.tokens_in) == (WORDS, None)


JSON = json.dumps(body_of({"content": "Caf\u00e9 au lait."}), ensure_ascii=False)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"\xef\xbb\xbf" + JSON.encode(), False),
        (JSON.encode("utf-16"), False),
        (JSON.encode("latin-1"), True),
    ],
)
def test_other_encodings_are_read(body, told, caplog):
    reply = say(web.Response(body=body, content_type="application/json"))
    assert reply.text == "Caf\u00e9 au lait."
    assert (reply.raw is not None) is told
    assert ("text that is not UTF-8" in caplog.text) is told


def test_control_characters_in_a_string_are_read():
    assert parse_body(b'{"a": "one\ntwo"}').value == {"a": "one\ntwo"}


def _stream(*events, done=True):
    lines = [": keep alive", *(f"data: {json.dumps(event)}" for event in events)]
    return web.Response(
        text="\n\n".join([*lines, *(["data: [DONE]"] if done else [])]),
        content_type="text/event-stream",
    )


def _delta(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_a_stream_that_nobody_asked_for_is_joined():
    usage = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 4}}
    events = (
        _delta(role="assistant", content=""),
        _delta(reasoning_content="Hm."),
        _delta(content="I would "),
        _delta(content="wait a day."),
        _delta("stop"),
        usage,
    )
    reply = say(_stream(*events))
    assert (reply.text, reply.thinking, reply.cut) == (WORDS, "Hm.", False)
    assert (reply.tokens_in, reply.tokens_out) == (11, 4)


def test_a_stream_that_ends_early_is_requested_again():
    with pytest.raises(Unavailable, match="not JSON"):
        say(_stream(_delta(content="I would"), done=False))


def _refuses(field, error, status=400, above=None):
    """A handler that refuses a field, or its values above a number."""

    async def handler(request):
        body = await request.json()
        if field in body and (above is None or body[field] > above):
            return web.json_response(error, status=status)
        return web.json_response(body_of({"content": RATED}))

    return handler


EXTRA = {
    "object": "error",
    "message": {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "seed"],
                "msg": "Extra inputs are not permitted",
                "input": "temperature",
            }
        ]
    },
}
INT32 = {
    "error": {"code": 400, "message": "Invalid value at 'generation_config.seed' (TYPE_INT32)"}
}
LARGE = {"detail": [{"loc": ["body", "seed"], "msg": "Input should be <= 2147483647"}]}


def _message(text, **more):
    return {"error": {"message": text, **more}}


@pytest.mark.parametrize(
    ("field", "error", "status", "settings", "told"),
    [
        ("seed", EXTRA, 422, {}, "a seed: its replies cannot be reproduced"),
        ("seed", _message("Unrecognized request argument supplied: seed"), 400, {}, "a seed"),
        ("seed", _message("property 'seed' is unsupported"), 400, {}, "a seed"),
        ("seed", "unsupported parameter: seed", 400, {}, "a seed"),
        (
            "temperature",
            _message(
                "Unsupported value: 'temperature' does not support 0.5 with this model. "
                "Only the default (1) value is supported.",
                param="temperature",
            ),
            400,
            {},
            "a temperature: its replies are sampled as it likes",
        ),
        (
            "logprobs",
            _message("logprobs are not supported"),
            400,
            {"expected_rating": True},
            "log-probabilities: there are no expected ratings",
        ),
        (
            "priority",
            _message("Got priority 1 but Priority scheduling is not enabled."),
            400,
            {"priority": True},
            "priorities",
        ),
        (
            "structured_outputs",
            _message("structured_outputs: grammar is not supported"),
            400,
            {},
            "a constraint by structured_outputs",
        ),
    ],
)
def test_a_refused_field_is_learned_once(field, error, status, settings, told, caplog):
    async def main():
        server = Server()
        server.handler = _refuses(field, error, status)
        async with serving(server), started(server, **settings) as backend:
            one = call(priority=1)
            at_once = await asyncio.gather(*(backend.answer(one) for _ in range(3)))
            last = await backend.answer(one)
        assert {reply.text for reply in (*at_once, last)} == {RATED}
        kept = {"seed", "temperature", "max_tokens", "messages", "model"} - {field}
        final = server.asked[-1][1]
        assert field not in final
        assert kept <= final.keys()
        refused = [body for _, body in server.asked if field in body]
        assert len(refused) <= 3

    asyncio.run(main())
    assert caplog.text.count(told) == 1


@pytest.mark.parametrize("error", [INT32, LARGE])
def test_a_seed_is_shortened_for_a_server_with_narrow_seeds(error, caplog):
    server = Server()
    server.handler = _refuses("seed", error, above=2**31 - 1)
    assert ask(server, call(seed=2**62 + 5)).text == RATED
    assert server.asked[-1][1]["seed"] == 5
    assert "seeds of more than 31 bits" in caplog.text


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "System role not supported"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (400, "Developer instruction is not enabled for models/gemma-3-1b-it"),
        (422, "Only user and assistant roles are supported!"),
        (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
        (500, "Jinja error: System role not supported"),
        (
            422,
            [
                {
                    "loc": ["body", "messages", 0, "role"],
                    "msg": "Input should be 'user' or 'assistant'",
                }
            ],
        ),
    ],
)
def test_a_system_message_is_put_before_the_users(status, message, caplog):
    async def handler(request):
        body = await request.json()
        if any(message["role"] == "system" for message in body["messages"]):
            return web.json_response({"message": message}, status=status)
        return web.json_response(body_of({"content": RATED}))

    server = Server()
    server.handler = handler
    assert ask(server).text == RATED
    expected = [{"role": "user", "content": "Be fair.\n\nRate it."}]
    assert server.asked[-1][1]["messages"] == expected
    assert "a system message" in caplog.text


def test_a_gateway_that_refuses_with_200_teaches_as_well():
    async def handler(request):
        body = await request.json()
        if "seed" in body:
            error = {"message": "seed is not supported", "code": 400}
            return web.json_response({"error": error})
        return web.json_response(body_of({"content": RATED}))

    server = Server()
    server.handler = handler
    assert ask(server).text == RATED


@pytest.mark.parametrize(
    "message",
    [
        "maximum context length is 2048 tokens; reduce the messages or max_tokens",
        "temperature must be between 0 and 1",
        "top_p is not supported",
        "the prompt was refused",
    ],
)
def test_other_refusals_stay(message):
    server = Server()
    server.says(400, message)
    with pytest.raises(CallFailed):
        ask(server, sampling={"top_p": 0.5})
    assert len(server.asked) == 1


@pytest.mark.parametrize("where", ["sampling", "extra_body"])
def test_null_drops_a_field(where):
    server = Server()
    dropped = ("seed", "temperature", "max_tokens", "top_p", "structured_outputs", "system")
    ask(server, **{where: dict.fromkeys(dropped)})
    assert server.asked[0][1] == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Be fair.\n\nRate it."}],
    }


@pytest.mark.parametrize("field", ["messages", "prompt", "model"])
def test_the_prompt_cannot_be_dropped(field):
    with pytest.raises(ValidationError, match=f"no {field}"):
        config_of("http://a", extra_body={field: None})


# Constraints


def _obeys(kind):
    """A handler that obeys one kind of constraint, refuses another and ignores the rest."""

    async def handler(request):
        body = await request.json()
        wanted = {
            Constraint.VLLM: "structured_outputs",
            Constraint.SGLANG: "regex",
            Constraint.JSON_SCHEMA: "response_format",
        }.get(kind)
        if "structured_outputs" in body and wanted != "structured_outputs":
            return web.json_response({"error": "unknown field structured_outputs"}, status=400)
        if wanted not in body:
            return web.json_response(body_of({"content": "Green."}))
        probe = "kz7" in json.dumps(body[wanted])
        if wanted != "response_format":
            return web.json_response(body_of({"content": "kz7123" if probe else RATED}))
        value = {"kz7": "kz7001"} if probe else {"Rating": 5, "Reason": "because."}
        return web.json_response(body_of({"content": json.dumps(value)}))

    return handler


@pytest.mark.parametrize(
    ("kind", "field", "text", "probes"),
    [
        (Constraint.VLLM, "structured_outputs", RATED, 1),
        (Constraint.SGLANG, "regex", RATED, 2),
        (Constraint.JSON_SCHEMA, "response_format", RATED, 3),
        (Constraint.NONE, None, "Green.", 3),
    ],
)
def test_what_a_server_takes_is_found_out(kind, field, text, probes, caplog):
    caplog.set_level("INFO")
    server = Server(owner="someone")
    server.handler = _obeys(kind)
    assert ask(server).text == text
    assert len(server.asked) == probes + 1
    fields = {"structured_outputs", "regex", "response_format"} & server.asked[-1][1].keys()
    assert fields == ({field} if field else set())
    said = "does not constrain" if kind is Constraint.NONE else f"constrains replies.*{kind}"
    assert any(re.search(said, line) for line in caplog.messages)


@pytest.mark.parametrize(
    ("owner", "constrain", "field"),
    [
        ("vllm", "auto", "structured_outputs"),
        ("sglang", "auto", "regex"),
        ("llamacpp", "auto", "response_format"),
        ("library", "auto", "response_format"),
        ("someone", "vllm", "structured_outputs"),
        ("someone", "sglang", "regex"),
        ("someone", "json_schema", "response_format"),
        ("vllm", "none", None),
    ],
)
def test_servers_known_by_name_and_given_constraints_are_not_probed(owner, constrain, field):
    server = Server(owner)
    ask(server, constrain=constrain)
    assert len(server.asked) == 1
    fields = {"structured_outputs", "regex", "response_format"} & server.asked[0][1].keys()
    assert fields == ({field} if field else set())


def test_a_schema_is_sent_whole():
    server = Server(owner="llamacpp")
    ask(server)
    assert server.asked[0][1]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": Rating().json_schema},
    }


def test_a_server_too_busy_to_be_examined_is_used_without_constraints(monkeypatch, caplog):
    monkeypatch.setattr("sandbox.backends.openai.backend._LONGEST_PROBE_PAUSE", 0.0)
    asked = 0

    async def handler(request):
        nonlocal asked
        asked += 1
        if asked <= 3:
            return web.json_response({"error": "busy"}, status=429)
        return web.json_response(body_of({"content": RATED}))

    server = Server(owner="someone")
    server.handler = handler
    assert ask(server).text == RATED
    assert "cannot be found out" in caplog.text


VERDICT = Choice("Verdict", ("pass", "refuse"))


@pytest.mark.parametrize(
    ("shape", "text", "cut", "result"),
    [
        (Rating(), '{"Rating": 5, "Reason": "a\\nb"}', False, "Rating: 5\nReason: a b"),
        (Rating(), '```json\n{"Rating": 5, "Reason": "a"}\n```', False, "Rating: 5\nReason: a"),
        (Rating(), '{"Rating": 5, "Reason": "it is', True, "Rating: 5\nReason: it is"),
        (Rating(), '{"Rating": 1', True, '{"Rating": 1'),
        (Rating(), RATED, False, RATED),
        (Rating(), "[1]", False, "[1]"),
        (Rating(), '{"rating": 5}', False, '{"rating": 5}'),
        (Rating(), '{"Rating": 5, "Reason": "it is', False, '{"Rating": 5, "Reason": "it is'),
        (
            VERDICT,
            '{"Verdict": "pass", "Reason": "It fits."}',
            False,
            "Verdict: pass\nReason: It fits.",
        ),
        (FreeText(), '{"Rating": 5}', False, '{"Rating": 5}'),
    ],
)
def test_an_object_is_written_as_text(shape, text, cut, result):
    assert written(shape, text, cut) == result


def test_no_model_passes_the_probe_by_chance():
    for text in ("Green.", "{}", '{"answer": "green"}', "kz7", ""):
        assert Probe().parse(written(Probe(), text, False), False).value is None


# Connections


def test_headers_name_variables(monkeypatch):
    monkeypatch.setenv("MY_KEY", "hush-hush")
    server = Server()
    server.says(400, "bad hush-hush")
    headers = {"X-Api-Key": "$MY_KEY", "Authorization": "Token ${MY_KEY}", "X-Team": "a$$b"}
    with pytest.raises(CallFailed, match=r"bad \*\*\*"):
        ask(server, headers=headers)
    sent = server.headers[0]
    assert (sent["X-Api-Key"], sent["Authorization"]) == ("hush-hush", "Token hush-hush")
    assert sent["X-Team"] == "a$b"
    assert "hush" not in config_of("http://a", headers=headers).model_dump_json()
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(BackendDown, match="no usable value in the variable MY_KEY"):
        ask(Server(), headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": "sk-1"},
        {"Authorization": "Bearer x"},
        {"Host": "a"},
        {"a b": "c"},
        {"a": "\n"},
    ],
)
def test_headers_that_would_store_a_secret_are_refused(headers):
    with pytest.raises(ValidationError):
        config_of("http://a", headers=headers)


def test_a_query_string_is_sent_with_each_request():
    seen = []

    async def main():
        server = Server()

        async def handler(request):
            seen.append(request.query_string)
            return await server.rate(request)

        server.handler = handler
        async with serving(server):
            config = config_of(f"{server.url}/v1/?api-version=2024-06-01")
            backend = OpenAIBackend(config)
            await backend.start()
            await backend.answer(call())
            await backend.close()

    asyncio.run(main())
    assert seen == ["api-version=2024-06-01"]


@pytest.mark.parametrize("query", ["api_key=hunter2", "token=hunter2", "sig=hunter2", "x"])
def test_a_query_string_with_a_secret_is_refused(query):
    with pytest.raises(ValidationError) as caught:
        config_of(f"http://a/v1?{query}")
    assert "hunter2" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_on_the_same_server_is_followed(status, caplog):
    server = Server()

    async def handler(request):
        if request.path == "/v1/chat/completions":
            return web.Response(status=status, headers={"Location": "/v1/moved/here"})
        return await server.rate(request)

    server.handler = handler

    async def main():
        async with serving(server), started(server) as backend:
            for _ in range(2):
                assert (await backend.answer(call())).text == RATED

    asyncio.run(main())
    assert [path for path, _ in server.asked] == [
        "/v1/chat/completions",
        "/v1/moved/here",
        "/v1/moved/here",
    ]
    assert server.asked[-1][1]["model"] == "tiny"
    assert "redirects to" in caplog.text


def test_the_key_goes_to_no_other_server():
    async def main():
        server, other = Server(), Server()
        async with serving(server), serving(other), started(server) as backend:

            async def handler(request):
                where = f"{other.url}/v1/chat/completions?token=hunter2"
                return web.Response(status=307, headers={"Location": where})

            server.handler = handler
            with pytest.raises(BackendDown, match=r"it redirects to .* set base_url") as caught:
                await backend.answer(call())
            assert other.url in str(caught.value)
            assert "hunter2" not in str(caught.value)
        assert other.asked == []

    asyncio.run(main())


@asynccontextmanager
async def _proxy(seen):
    """An HTTP proxy that answers as the server itself would."""

    async def handle(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().splitlines()
        length = next((int(x[15:]) for x in lines if x.lower().startswith("content-length:")), 0)
        await reader.readexactly(length)
        seen.append(lines[0])
        models = {"data": [{"id": "tiny", "owned_by": "vllm"}]}
        content = body_of({"content": RATED}) if length else models
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class _Named(Server):
    def __init__(self, url):
        super().__init__()
        self.url = url


def test_the_proxy_of_the_environment_is_used(monkeypatch):
    seen = []

    async def main():
        async with _proxy(seen) as address:
            monkeypatch.setenv("http_proxy", f"http://me:s3cret@{address}")
            async with started(_Named("http://model.example:81")) as backend:
                assert (await backend.answer(call())).text == RATED
            monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
            server = Server()
            async with serving(server), started(server) as backend:
                assert (await backend.answer(call())).text == RATED
            monkeypatch.setenv("http_proxy", "http://me:s3cret@127.0.0.1:9")
            with pytest.raises(
                BackendDown, match=r"openai: the proxy http://127.0.0.1:9 cannot"
            ) as no:
                async with started(_Named("http://model.example:81")):
                    pass
            assert "s3cret" not in str(no.value)

    asyncio.run(main())
    assert [line.split()[:2] for line in seen] == [
        ["GET", "http://model.example:81/v1/models"],
        ["POST", "http://model.example:81/v1/chat/completions"],
    ]


def test_which_proxy_is_used(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", ".inside.example,other:8000")
    assert proxy_of("https", "api.example") == "http://proxy:3128"
    assert proxy_of("http", "api.example") is None
    assert proxy_of("https", "node.inside.example:8000") is None
    assert proxy_of("https", "other:8000") is None
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1080")
    with pytest.raises(BackendDown, match=r"socks5 proxy for api\.example; expected an http://"):
        proxy_of("http", "api.example")


@pytest.mark.parametrize(
    ("exempt", "url", "is_used"),
    [
        ("*", "http://a.example:8000", False),
        ("a.example", "http://A.example", False),
        ("example", "http://a.example", False),
        ("ample", "http://a.example", True),
        ("*.example", "http://a.example", False),
        ("a.example:8000", "http://a.example:8000", False),
        ("a.example:8000", "http://a.example:8001", True),
        ("a.example:80", "http://a.example", False),
        ("b.example a.example", "http://a.example", False),
        ("10.0.0.0/8", "http://10.2.3.4:8000", False),
        ("10.0.0.0/8", "http://11.2.3.4:8000", True),
        ("10.0.0.0/8", "http://a.example", True),
        ("::1, fd00::/8", "http://[fd00::7]:8000", False),
        ("[::1]:8000", "http://[::1]:8000", False),
        ("", "http://127.0.0.1", True),
        (", ,", "http://a.example", True),
    ],
)
def test_hosts_in_no_proxy(monkeypatch, exempt, url, is_used):
    monkeypatch.setenv("ALL_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    scheme, _, host = url.partition("://")
    assert proxy_of(scheme, host) == ("http://proxy:3128" if is_used else None)


@pytest.mark.parametrize("proxy", ["http://me:s3cret@proxy:port", "http://", "me:s3cret@"])
def test_a_proxy_that_is_none(monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    expected = r"sets the proxy http://\S* for a\.example; expected an http:// proxy with a host"
    with pytest.raises(BackendDown, match=expected) as no:
        proxy_of("http", "a.example")
    assert "s3cret" not in str(no.value)


@asynccontextmanager
async def _refusing(status):
    """A proxy that refuses every request, and repeats the credentials that it got."""

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = b"refused me:s3cret"
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named(monkeypatch, scheme):
    async def main():
        async with _refusing(407) as address:
            monkeypatch.setenv(f"{scheme}_proxy", f"http://me:s3cret@{address}")
            with pytest.raises(BackendDown, match=f"the proxy http://{address}.* 407 ") as no:
                async with started(_Named(f"{scheme}://model.example")) as backend:
                    await backend.answer(call())
            assert "s3cret" not in str(no.value)

    asyncio.run(main())


@pytest.fixture
def certificate(tmp_path):
    paths = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {paths[0]} -out {paths[1]}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return paths


@pytest.mark.parametrize("how", ["ca_file", "SSL_CERT_FILE", None])
def test_a_certificate_of_ones_own(certificate, how, monkeypatch):
    key_file, cert_file = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert_file, key_file)
    settings = {"ca_file": str(cert_file)} if how == "ca_file" else {}
    if how == "SSL_CERT_FILE":
        monkeypatch.setenv("SSL_CERT_FILE", str(cert_file))

    async def main():
        server = Server()
        app = web.Application()
        app.router.add_get("/v1/models", server.models)
        app.router.add_post("/v1/{path:.*}", server.asks)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
        server.url = f"https://localhost:{runner.addresses[0][1]}"
        try:
            async with started(server, **settings) as backend:
                return (await backend.answer(call())).text
        finally:
            await runner.cleanup()

    if how is None:
        with pytest.raises(BackendDown, match="belongs in ca_file"):
            asyncio.run(main())
    else:
        assert asyncio.run(main()) == RATED


def test_a_missing_certificate_is_refused_before_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"ca_file: found .*none.pem; expected a PEM file"):
        config_of("http://a", ca_file=str(tmp_path / "none.pem")).check()


# The doctor


def _examined(server, **arguments):
    async def main():
        async with serving(server):
            return [trait async for trait in examine_server(server.url, **arguments)]

    return {trait.what: trait for trait in asyncio.run(main())}


def test_the_doctor_tells_what_a_server_can_do():
    server = Server(owner="someone")
    server.handler = _refuses("seed", EXTRA, 422)
    found = _examined(server)
    assert found["models"].found == "tiny"
    assert found["chat/completions with tiny"].found == repr(RATED)
    assert (found["seed"].found, found["seed"].needed) == (None, False)
    assert found["system message"].found == "taken"
    assert found["token counts"].found == "11 in, 4 out"
    assert found["tokens from the prefix cache"].found == "8 of the prompt"
    assert found["log-probabilities"].found is None
    for kind in Constraint:
        if kind is not Constraint.NONE:
            [trait] = [trait for what, trait in found.items() if f"({kind})" in what]
            assert (trait.found, trait.advice) == (None, "ignored")


def test_the_doctor_finds_constraints():
    server = Server(owner="someone")
    server.handler = _obeys(Constraint.JSON_SCHEMA)
    found = _examined(server, model="tiny")
    assert found["JSON schemas (json_schema)"].found == "obeyed"
    assert found["regular expressions (vllm)"].advice == "refused"
    assert len(server.asked) == 5


def test_the_doctor_names_what_is_wrong():
    async def away():
        return [trait async for trait in examine_server("http://127.0.0.1:9")]

    [found] = asyncio.run(away())
    assert found.needed and found.found is None
    assert "cannot be reached" in found.advice
    server = Server()
    server.says(404, "no such model")
    found = _examined(server, model="large")
    assert found["models"].found == "tiny, but not large"
    trait = found["chat/completions with large"]
    assert trait.needed and trait.found is None and "no such model" in trait.advice


def test_a_config_may_name_the_variable_of_a_header():
    model = "models.social={backend: openai, model: m, base_url: http://h, headers: %s}"
    small(model % "{X-Api-Key: $MY_KEY, Authorization: 'Token ${MY_KEY}'}")
    with pytest.raises(InputError, match=r"models\.social\.headers"):
        small(model % "{X-Api-Key: hunter2}")
