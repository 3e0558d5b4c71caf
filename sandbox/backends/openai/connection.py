"""Keep-alive connections for plain HTTP/1.1, without what a model server needs none of.

Responses are parsed by llhttp, the parser of Node.js, through `httptools`. TLS, proxies and
everything else is aiohttp's work; see `sandbox.backends.openai.client`.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from sandbox.backends.retries import CONNECT_SECONDS

KEEPALIVE_SECONDS = 4.0
"""Seconds that an idle connection is kept: less than the 5 seconds of vLLM's server."""

MOST_HEAD, MOST_BODY = 2**20, 2**28
"""The longest headers and the longest body of a response, in bytes."""

IDLE_SECONDS, RACE_SECONDS = 0.5, 1.0
"""A connection that was idle so long, and ends without a response within the second time of a
request, was closed by the server for its idleness while the request was on its way."""

_HAPPY_EYEBALLS = 0.25  # seconds between attempts at IPv6 and IPv4, as in RFC 8305
_TARGET = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*(\?[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)?")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")

_ADDRESS = re.compile(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


class NoResponse(ConnectionError):
    """A request has no response, or one that is no HTTP; the message is one line.

    Attributes:
        of_proxy: what a proxy did, if it is the cause.
    """

    def __init__(self, problem: str, of_proxy: str = "") -> None:
        super().__init__(problem)
        self.of_proxy = of_proxy


class Headers(Mapping[str, str]):
    """The headers of a response, whatever the case of a name; of a repeated one the first counts.

    Args:
        fields: the names, in lower case, and the values.
    """

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._fields = fields

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower().encode() in self._fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower().encode()].decode("latin-1").strip()

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Received(NamedTuple):
    """What a server sent in response."""

    status: int
    headers: Headers
    body: bytes


class Target(NamedTuple):
    """Where a request goes.

    Attributes:
        origin: the host as it is written in a URL, and the port.
        head: the first line of a request without its method, and the headers.
    """

    origin: tuple[str, int]
    head: bytes


def target_of(url: str) -> Target | None:
    """Return where a request to a URL goes; None if it is no plain HTTP."""
    parts = urlsplit(url)
    host, _, port = parts.netloc.rpartition(":")
    if not port.isdecimal() or parts.netloc.endswith("]"):
        host, port = parts.netloc, "80"
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    plain = parts.scheme == "http" and not parts.fragment
    if not plain or not _HOST.fullmatch(host) or not _TARGET.fullmatch(path):
        return None
    head = f" {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    return Target((host, int(port)), head.encode())


class Connection(asyncio.Protocol):
    """One connection, which has one request at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._waiting: asyncio.Future[Received] | None = None
        self._begin()

    def _begin(self) -> None:
        """Prepare for a response."""
        self._fields: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._received = 0
        self._in_body = False

    def has_received(self) -> bool:
        """Whether any part of the response to the last request has come."""
        return self._received > 0

    async def request(self, data: bytes) -> Received:
        """Send a request; return its response.

        Raises:
            NoResponse: the connection is lost, or what it sends is no HTTP.
        """
        assert self._transport is not None
        self._begin()
        waiting: asyncio.Future[Received] = self._loop.create_future()
        self._waiting = waiting
        self._transport.write(data)
        try:
            return await waiting
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        self._waiting = None
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # that of uvloop is no subclass
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Parse a part of a response."""
        if self._waiting is None:
            self.close()  # what comes without a request, or after its response, belongs to none
            return
        self._received += len(data)
        if self._received > (MOST_HEAD + MOST_BODY if self._in_body else MOST_HEAD):
            what = f"a body of more than {MOST_BODY:,}" if self._in_body else "headers of too many"
            self._fail(f"the server sent {what} bytes")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            start = data[:60].decode("latin-1")
            self._fail(f"the server sent what is no response of HTTP/1.1: {start!r} ({error})")

    def connection_lost(self, error: Exception | None) -> None:
        """End the response that is being received."""
        self.is_open = False
        if self._waiting is None:
            return
        if self._in_body and self._ends_with_connection():
            self._finish()
        elif self._received:
            self._fail("the server closed the connection in the middle of a response")
        else:
            why = f" ({error})" if error else ""
            self._fail(f"the server closed the connection without a response{why}")

    def _ends_with_connection(self) -> bool:
        """Whether the end of the body is the end of the connection."""
        headers = Headers(self._fields)
        return "Content-Length" not in headers and "Transfer-Encoding" not in headers

    # What the parser calls

    def on_message_begin(self) -> None:
        """Give the connection up if this response answers no request."""
        if self._waiting is None:
            self.is_open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._fields.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """Expect the body; but not after a response that only announces another one."""
        if self._parser.get_status_code() >= 200:
            self._in_body = True
            return
        self._fields = {}

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Pass the response on."""
        if self._in_body:
            self.is_open = self.is_open and self._parser.should_keep_alive()
            self._finish()

    def _finish(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.done():
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        received = Received(self._parser.get_status_code(), Headers(self._fields), body)
        waiting.set_result(received)

    def _fail(self, problem: str) -> None:
        waiting = self._waiting
        self.close()
        if waiting is not None and not waiting.done():
            waiting.set_exception(NoResponse(problem))


class Connections:
    """The connections to one server; the one that was used last is used next.

    Args:
        origin: the host as it is written in a URL, and the port.
    """

    def __init__(self, origin: tuple[str, int]) -> None:
        self._host, self._port = origin
        self._idle: list[Connection] = []

    async def request(self, data: bytes) -> Received:
        """Send a request; once more if the server just closed the idle connection that it is on.

        Raises:
            NoResponse: there is none.
            OSError: the server cannot be reached.
        """
        connection = self._reusable()
        if connection is None:
            return await self._on(await self._connect(), data)
        began = time.monotonic()
        was_idle = began - connection.idle_since >= IDLE_SECONDS
        try:
            return await self._on(connection, data)
        except NoResponse:
            late = time.monotonic() - began > RACE_SECONDS
            if connection.has_received() or late or not was_idle:
                raise
        return await self._on(await self._connect(), data)

    async def _on(self, connection: Connection, data: bytes) -> Received:
        received = await connection.request(data)
        if connection.is_open:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return received if _is_plain(received) else _decoded(received)

    def _reusable(self) -> Connection | None:
        """Take an open connection that was used within `KEEPALIVE_SECONDS`; close older ones."""
        oldest = time.monotonic() - KEEPALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        loop, host = asyncio.get_running_loop(), self._host.strip("[]")
        place = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    Connection, host, self._port, **_both_families(loop, host)
                )
        except TimeoutError:
            problem = f"no connection to {place} within {CONNECT_SECONDS:g} seconds"
            raise NoResponse(problem) from None
        except OSError as error:
            raise NoResponse(f"cannot connect to {place}: {error.strerror or error}") from None
        return connection

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()


def _both_families(loop: asyncio.AbstractEventLoop, host: str) -> dict[str, Any]:
    """Try IPv6 and IPv4 beside each other, for a name; uvloop knows no such option."""
    if _ADDRESS.fullmatch(host) or not isinstance(loop, asyncio.BaseEventLoop):
        return {}
    return {"happy_eyeballs_delay": _HAPPY_EYEBALLS}


def _is_plain(received: Received) -> bool:
    return "Content-Encoding" not in received.headers


def _decoded(received: Received) -> Received:
    """Decompress a body, though no compression was asked for.

    Raises:
        NoResponse: it cannot be decompressed.
    """
    encoding = received.headers["Content-Encoding"].lower()
    if encoding in ("", "identity"):
        return received
    try:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise zlib.error("unknown")
        unpack = zlib.decompressobj(wbits=47)  # gzip or zlib, by its first bytes
        body = unpack.decompress(received.body, MOST_BODY)
        if not unpack.eof:
            raise zlib.error("incomplete, or too long")
    except zlib.error as error:
        raise NoResponse(f"the server sent a body in the encoding {encoding!r} ({error})") from None
    return received._replace(body=body)
