"""The lean connection for plain HTTP, against servers that say exactly what a test lets them."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

import pytest

from sandbox.backends.openai import connection
from sandbox.backends.openai.client import Client, Response
from sandbox.backends.openai.config import ServerSettings
from sandbox.backends.openai.connection import NoResponse, target_of

T = TypeVar("T")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Sends its replies in turn, and the last one again and again.

    Attributes:
        connected: the number of connections.
        requests: the requests.
    """

    def __init__(self, *replies: bytes, pause: float = 0.0) -> None:
        self.connected = 0
        self.requests: list[bytes] = []
        self.url = ""
        self._replies = list(replies)
        self._pause = pause

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection; an empty reply ends it."""
        self.connected += 1
        while request := await _request(reader):
            self.requests.append(request)
            reply = self._replies[0] if len(self._replies) == 1 else self._replies.pop(0)
            await self._send(writer, reply)
            if not reply or b"Content-Length" not in reply or b"cut" in reply:
                break

    async def _send(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        if not self._pause:
            writer.write(reply)
            return
        for place in range(len(reply)):
            writer.write(reply[place : place + 1])
            await asyncio.sleep(self._pause)


async def _request(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    _, _, length = head.lower().partition(b"content-length: ")
    return head + await reader.readexactly(int(length.split(b"\r\n")[0] or 0))


@asynccontextmanager
async def asking(
    serve: Handler, host: str = "127.0.0.1", **settings: Any
) -> AsyncIterator[tuple[Client, str]]:
    """A client, and the address of a server."""
    served: list[asyncio.Task[Any]] = []

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(cast(asyncio.Task[Any], asyncio.current_task()))
        with suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(tracked, host, 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(ServerSettings(**settings), proxies=False)
    await client.open()
    try:
        yield client, f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/x"
    finally:
        await client.close()
        server.close()
        await asyncio.gather(*served)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(limited())


def ask(server: Server, times: int = 1, **settings: Any) -> list[Response]:
    """Ask a server several times, one after another."""

    async def main() -> list[Response]:
        async with asking(server.serve, **settings) as (client, url):
            return [await client.request("POST", url, {"n": n}) for n in range(times)]

    return run(main())


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n"
         b"X: y\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\n\r\nup to the end", b"up to the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\nX: y\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pause", [0.0, 0.0001])
def test_a_response_is_read_however_it_is_framed(reply: bytes, body: bytes, pause: float) -> None:
    (response,) = ask(Server(reply, pause=pause))
    assert (response.status // 100, response.body) == (2, body)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"", "the server closed the connection without a response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what is no response of HTTP/1.1: 'SSH-2.0-OpenSSH_9.2"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX: cut\r\n\r\nok",
            "in the middle of a response",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nX-Half: ", "in the middle of a response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "no response of HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2**21, "headers of too many bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"y" * 2_000_000,
            "more than 1,000 b",
        ),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            "no response of",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nok",
            "encoding 'br'",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", "'gzip'"),
    ],
)
def test_what_is_no_response_is_named_in_one_line(
    reply: bytes, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_BODY", 1000)
    with pytest.raises(NoResponse) as caught:
        ask(Server(reply))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_connection_is_used_again_unless_the_server_closes_it() -> None:
    kept, closing = Server(OK), Server(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert [one.body for one in ask(kept, 3) + ask(closing, 3)] == [b"ok"] * 6
    assert (kept.connected, closing.connected) == (1, 3)


def test_an_old_idle_connection_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEPALIVE_SECONDS", 0.0)
    server = Server(OK)
    ask(server, 3)
    assert server.connected == 3


@pytest.mark.parametrize(("idle", "asked"), [(0.0, 3), (60.0, 2)])
def test_a_request_that_crosses_the_end_of_an_idle_connection_is_sent_once_more(
    idle: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not one on a connection in use, which the server drops on purpose."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", idle)
    server = Server(OK, b"", OK)
    if idle:
        with pytest.raises(NoResponse, match="without a response"):
            ask(server, 2)
    else:
        assert [one.body for one in ask(server, 2)] == [b"ok"] * 2
    assert len(server.requests) == asked


def test_a_request_is_sent_once_more_but_no_third_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.0)
    server = Server(OK, b"", b"")
    with pytest.raises(NoResponse, match="without a response"):
        ask(server, 2)
    assert len(server.requests) == 3


def test_a_response_that_nobody_asked_for_is_no_reply_to_the_next_request() -> None:
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    server = Server(OK + stray + b"st", OK)
    assert [one.body for one in ask(server, 2)] == [b"ok"] * 2
    assert server.connected == 2


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_read(encoding: str) -> None:
    body = gzip.compress(b"fine") if encoding == "gzip" else zlib.compress(b"fine")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    (response,) = ask(Server(head.encode() + body))
    assert response.body == b"fine"


def test_a_cancelled_request_leaves_no_connection_that_is_used_again() -> None:
    server = Server(OK, pause=0.01)

    async def main() -> None:
        async with asking(server.serve) as (client, url):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.request("GET", url)
            assert (await client.request("GET", url)).body == b"ok"

    run(main())
    assert server.connected == 2


def test_many_requests_at_once_get_their_own_responses() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await _request(reader):
            body = request.partition(b"\r\n\r\n")[2]
            await asyncio.sleep(json.loads(body)["n"] % 7 / 1000)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def main() -> None:
        async with asking(echo) as (client, url):
            for _ in range(3):
                bodies = [{"n": n, "text": "x" * n} for n in range(60)]
                found = await asyncio.gather(*(client.request("POST", url, one) for one in bodies))
                assert [json.loads(one.body) for one in found] == bodies

    run(main())


def test_what_orjson_refuses_is_sent_all_the_same() -> None:
    bodies: list[dict[str, Any]] = [{"text": "a\ud800b"}, {"seed": 2**70}, {"text": "ä\u2028"}]
    server = Server(OK)

    async def main() -> None:
        async with asking(server.serve) as (client, url):
            for body in bodies:
                await client.request("POST", url, body)

    run(main())
    assert [json.loads(one.partition(b"\r\n\r\n")[2]) for one in server.requests] == bodies


def test_headers_of_the_config_replace_those_of_the_program() -> None:
    server = Server(OK)
    ask(server, headers={"user-agent": "mine", "X-Session-Id": "7"})
    head = server.requests[0].decode()
    assert head.startswith("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert head.lower().count("user-agent:") == 1
    assert "user-agent: mine\r\n" in head and "X-Session-Id: 7\r\n" in head


def test_headers_are_found_in_any_case() -> None:
    (response,) = ask(Server(b"HTTP/1.1 200 OK\r\nRETRY-after: 7\r\nretry-After: 8\r\n"
                             b"content-TYPE: text/plain; Charset=\"latin-1\"\r\n"
                             b"Content-Length: 0\r\n\r\n"))  # fmt: skip
    assert response.headers.get("Retry-After") == response.headers["retry-after"] == "7"
    assert "RETRY-AFTER" in response.headers and "x" not in response.headers
    assert response.charset == "latin-1"


def test_a_server_that_cannot_be_reached_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def main() -> None:
            client = Client(ServerSettings(), proxies=False)
            await client.open()
            await client.request("GET", f"http://127.0.0.1:{port}/v1/models")

        with pytest.raises(NoResponse, match=rf"^cannot connect to 127\.0\.0\.1:{port}: "):
            run(main())


def test_a_server_is_reached_over_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = Server(OK)

    async def main() -> bytes:
        async with asking(server.serve, "::1") as (client, url):
            return (await client.request("GET", url)).body

    assert run(main()) == b"ok"
    assert b"Host: [::1]:" in server.requests[0]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://localhost/v1/models", ("localhost", 80)),
        ("http://localhost:8000/v1/models?a=b%20c", ("localhost", 8000)),
        ("http://[::1]:8000/v1", ("[::1]", 8000)),
        ("http://[::1]/v1", ("[::1]", 80)),
        ("https://localhost/v1", None),
        ("http://user@localhost/v1", None),
        ("http://höst/v1", None),
        ("http://localhost/v1/mödels", None),
        ("http://localhost/v1\r\nX: y", None),
        ("http://localhost:80\r\nX: y/v1", None),
        ("http://localhost/v1#x", None),
    ],
)
def test_what_is_no_plain_http_is_left_to_aiohttp(url: str, origin: tuple[str, int] | None) -> None:
    target = target_of(url)
    assert (None if target is None else target.origin) == origin
    assert target is None or target.head.count(b"\r\n") == 2
