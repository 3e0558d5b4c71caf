"""HTTP requests to a server: key, headers, proxies, certificates and redirects."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import orjson

from sandbox.backends.base import BackendDown
from sandbox.backends.openai.config import DEFAULT_KEY, VARIABLE, ServerSettings
from sandbox.backends.openai.connection import (
    KEEPALIVE_SECONDS,
    Connections,
    NoResponse,
    Target,
    target_of,
)
from sandbox.backends.retries import CONNECT_SECONDS, Key
from storage.secrets import hide_secrets

if TYPE_CHECKING:
    import aiohttp

MOST_REDIRECTS = 5
"""Redirects of a request that are followed."""

MOST_RAW = 20_000
"""Characters of a response that are kept where it was not wholly understood."""

_CORRECT = "start the server, or correct base_url"
_CORRECT_PROXY = (
    "correct the environment's HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or name the host in NO_PROXY"
)
_REDIRECTS = frozenset((301, 302, 307, 308))
_log = logging.getLogger(__name__)


class Response(NamedTuple):
    """A server's response.

    Attributes:
        status, headers, body: of the response.
        charset: the character set that the header Content-Type names, if any.
        url: the address that answered, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    charset: str | None = None
    url: str = ""


class Client:
    """Sends requests with the key and the headers of a server's settings.

    Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY). A redirect
    is followed on the same server, or from http to https of the same host: the key goes nowhere
    else. A request in plain HTTP without a proxy goes over a lean connection of our own, since
    that is most of what a call costs; all else is aiohttp's work.

    Args:
        settings: of the server.
        timeout: seconds that a request may take; None: no limit.
        proxies: use those of the environment; a server of this process needs none.
    """

    def __init__(
        self, settings: ServerSettings, timeout: float | None = None, *, proxies: bool = True
    ) -> None:
        self.key = Key(settings.api_key_env, "")
        self._settings = settings
        self._uses_proxies = proxies
        self._timeout = timeout
        self._secrets: list[str] = []
        self._moved: dict[str, str] = {}
        self._told: set[str] = set()
        self._proxies: dict[str, str | None] = {}
        self._headers: dict[str, str] = {}
        self._targets: dict[str, tuple[Connections, Target] | None] = {}
        self._connections: dict[tuple[str, int], Connections] = {}
        self._certificates: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Read the key, the variables of headers, and the certificates.

        Raises:
            BackendDown: a variable is missing or invalid, or there are no certificates.
        """
        self.key = Key.read(self._settings.api_key_env)
        if not self.key.value and self.key.variable != DEFAULT_KEY:
            self.tell(f"api_key_env: {self.key.variable} is not set: requests are sent without key")
        self._secrets = [self.key.value] if self.key.value else []
        self._headers = _merged(self.key.headers(), self._read_headers())
        if self._settings.ca_file is not None:
            self._certificates = self._read_certificates()

    def _read_headers(self) -> dict[str, str]:
        """Return the headers, with the values of variables."""
        headers = {}
        for name, text in self._settings.headers.items():
            for match in VARIABLE.finditer(text):
                variable = match[1] or match[2]
                value = "$" if match[3] else os.environ.get(variable, "").strip()
                if not value or not (value.isascii() and value.isprintable()):
                    raise BackendDown(
                        f"openai: headers.{name}: found no usable value in the variable "
                        f"{variable}; expected it to be set"
                    )
                if not match[3]:
                    self._secrets.append(value)
            headers[name] = VARIABLE.sub(
                lambda match: "$" if match[3] else os.environ[match[1] or match[2]].strip(), text
            )
        return headers

    def _read_certificates(self) -> ssl.SSLContext:
        file = self._settings.ca_file
        try:
            return ssl.create_default_context(cafile=None if file is None else str(file))
        except (OSError, ssl.SSLError):
            raise BackendDown(
                f"openai: ca_file: found {file}; expected a PEM file with certificates"
            ) from None

    async def request(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request, and follow redirects that are safe.

        Args:
            method: of HTTP.
            url: where to.
            body: sent as JSON.
            headers: of this request, besides those of all.

        Raises:
            OSError: there is no response; `NoResponse` has the reason in one line.
        """
        target = self._moved.get(url, url)
        for _ in range(MOST_REDIRECTS):
            response = await self._send(method, target, body, headers or {})
            if response.status not in _REDIRECTS or not response.headers.get("Location"):
                return response
            location = response.headers["Location"]
            moved = urljoin(target, location)
            if not _is_safe(target, moved):
                return response
            self.tell(f"{_without_query(target)} redirects to {_without_query(moved)}")
            target = self._moved[url] = moved
        return response

    async def _send(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> Response:
        """Send a request, over a connection of our own if it can have one."""
        if url not in self._targets:
            self._targets[url] = self._plain_target(url)
        found = self._targets[url]
        if found is None:
            return await self._send_by_aiohttp(method, url, body, headers)
        connections, target = found
        data = None if body is None else _as_json(body)
        head = b"" if data is None else b"Content-Length: %d\r\n" % len(data)
        head += "".join(f"{name}: {text}\r\n" for name, text in headers.items()).encode()
        request = b"%b%b%b\r\n%b" % (method.encode(), target.head, head, data or b"")
        if self._timeout is None:
            received = await connections.request(request)
        else:
            async with asyncio.timeout(self._timeout):
                received = await connections.request(request)
        status, received_headers, content = received
        charset = _charset(received_headers)
        return Response(status, received_headers, content, charset, url)

    def _plain_target(self, url: str) -> tuple[Connections, Target] | None:
        """Return the connections of a URL, and where its requests go; None for aiohttp's work."""
        proxy, target = self._proxy(url), target_of(url)
        if proxy is not None or target is None:
            return None
        own = {"Accept": "*/*", "User-Agent": "sandbox-society", "Content-Type": "application/json"}
        lines = [f"{name}: {text}\r\n" for name, text in _merged(own, self._headers).items()]
        connections = self._connections.setdefault(target.origin, Connections(target.origin))
        return connections, target._replace(head=target.head + "".join(lines).encode())

    async def _send_by_aiohttp(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> Response:
        """Send a request over TLS, through a proxy, or to an unusual address."""
        import aiohttp  # here, since it takes long to import

        proxy = self._proxy(url)
        try:
            async with self._aiohttp_session().request(
                method, url, json=body, headers=headers, allow_redirects=False, proxy=proxy
            ) as response:
                content = await response.read()
        except aiohttp.ClientHttpProxyError as error:
            problem = f"refuses to connect: {error.status} {error.message}"
            raise NoResponse(str(error), problem) from None
        except aiohttp.ClientProxyConnectionError as error:
            problem = f"cannot be reached: {error.strerror or error.os_error}"
            raise NoResponse(str(error), problem) from None
        except aiohttp.ClientError as error:
            raise NoResponse(str(error) or type(error).__name__) from None
        return Response(response.status, response.headers, content, response.charset, url)

    def _aiohttp_session(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            if self._certificates is None:
                self._certificates = self._read_certificates()
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=self._certificates
            )
            timeout = aiohttp.ClientTimeout(total=self._timeout, connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, headers=self._headers
            )
        return self._session

    def _proxy(self, url: str) -> str | None:
        """Return the proxy that the environment sets for a URL.

        Raises:
            BackendDown: it is of a kind that cannot be used.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._proxies:
            proxy = proxy_of(parts.scheme, parts.netloc) if self._uses_proxies else None
            self._proxies[origin] = proxy
            if proxy is not None:
                self._secrets.extend(_secrets_of(proxy))
        return self._proxies[origin]

    def tell(self, warning: str) -> None:
        """Log a warning, each once."""
        warning = self.hide(warning)
        if warning not in self._told:
            self._told.add(warning)
            _log.warning("%s", warning)

    def conceal(self, text: str) -> str:
        """Return a text without the key and other secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def hide(self, text: str) -> str:
        """Return a text without secrets, on one line of at most 300 characters."""
        return self.key.hide(self.conceal(text))

    def unreachable(self, error: BaseException, url: str) -> str:
        """Word an error without a response, with the proxy that was used."""
        text = str(error) or type(error).__name__
        through = self.through(url)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            through += "; a certificate that the system does not know belongs in ca_file"
        return self.hide(f"{text}{through}")

    def down(self, error: BaseException, address: str) -> str:
        """Explain in one line why an address cannot be reached, and what to do."""
        proxy = self._shown_proxy(address)
        if proxy and isinstance(error, NoResponse) and error.of_proxy:
            problem = self.hide(f"the proxy {proxy} {error.of_proxy}")
            return f"openai: {problem}, and so {address} cannot be; {_CORRECT_PROXY}"
        problem = self.unreachable(error, address)
        return f"openai: {address} cannot be reached ({problem}); {_CORRECT}"

    def through(self, url: str) -> str:
        """Name the proxy that is used for a URL, after a space; empty if there is none."""
        proxy = self._shown_proxy(url)
        return f" through the proxy {proxy}" if proxy else ""

    def _shown_proxy(self, url: str) -> str | None:
        proxy = self._proxies.get("://".join(urlsplit(url)[:2]))
        return None if proxy is None else _without_user(proxy)

    async def close(self) -> None:
        """Close the connections."""
        for connections in self._connections.values():
            connections.close()
        if self._session is not None:
            await self._session.close()
            self._session = None


def _merged(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Headers of our own, except those that are given, in whatever case."""
    names = {name.lower() for name in given}
    return {**{name: own[name] for name in own if name.lower() not in names}, **given}


def _as_json(body: Mapping[str, Any]) -> bytes:
    """Write a body as JSON; as the standard library does what is no Unicode or no 64-bit number."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


def _charset(headers: Mapping[str, str]) -> str | None:
    """The character set that the header Content-Type names."""
    _, mark, rest = headers.get("Content-Type", "").lower().partition("charset=")
    return rest.partition(";")[0].strip("\"' ") or None if mark else None


def proxy_of(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment sets for a scheme and a host; None if there is none.

    Args:
        scheme: http or https.
        host: a name or an address, with the port if it is not that of the scheme.

    Raises:
        BackendDown: it is no HTTP proxy.
    """
    proxies = getproxies()
    proxy = (proxies.get(scheme) or proxies.get("all") or "").strip()
    host = host.rpartition("@")[2]
    if not proxy or proxy_bypass(host) or _is_exempt(scheme, host, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    kind = proxy.partition("://")[0].lower()
    found = f"a {kind} proxy"
    if kind in ("http", "https"):
        with suppress(ValueError):  # the port is no number
            parts = urlsplit(proxy)
            if parts.hostname and parts.port != 0:
                return proxy
        found = f"the proxy {hide_secrets(_without_user(proxy))}"
    raise BackendDown(
        f"openai: the environment sets {found} for {host}; expected an http:// proxy with a host "
        "and a port, or the host in NO_PROXY"
    )


def _is_exempt(scheme: str, netloc: str, exempt: str) -> bool:
    """Whether NO_PROXY names a host, with what `proxy_bypass` does not know.

    An entry is ``*``, a host, a domain (``.example``, ``*.example``), an address, or a network
    (``10.0.0.0/8``); a port after it (``host:8000``) restricts it.
    """
    host, port = _host_and_port(netloc)
    port = port or {"http": "80", "https": "443"}.get(scheme, "")
    for entry in exempt.replace(",", " ").split():
        name, its_port = _host_and_port(entry)
        if its_port not in ("", port):
            continue
        domain = name.removeprefix("*").removeprefix(".")
        if entry == "*" or (domain and (host == domain or host.endswith(f".{domain}"))):
            return True
        with suppress(ValueError):  # one of both is no address
            if ip_address(host) in ip_network(name, strict=False):
                return True
    return False


def _host_and_port(text: str) -> tuple[str, str]:
    """Split a host and a port, either of which may be missing: ``[::1]:80``, ``::1``, ``a:80``."""
    text = text.lower()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, port = text, ""
    if text.count(":") == 1:
        host, _, port = text.partition(":")
    return host.rstrip("."), port


def _secrets_of(proxy: str) -> list[str]:
    """The password of a proxy, and its user's name with it, as they may be repeated."""
    user, _, _ = urlsplit(proxy).netloc.rpartition("@")
    password = urlsplit(proxy).password or ""
    return [part for part in (user, password, unquote(password)) if part]


def where_to(response: Response) -> str:
    """Return the address that a response redirects to, without its query string."""
    return _without_query(urljoin(response.url, response.headers.get("Location", "")))


def _is_safe(url: str, moved: str) -> bool:
    """Whether a redirect stays at its server, or only changes from http to https."""
    old, new = urlsplit(url), urlsplit(moved)
    if old.hostname != new.hostname:
        return False
    return old[:2] == new[:2] or (old.scheme, new.scheme) == ("http", "https")


def _without_query(url: str) -> str:
    return urlunsplit((*urlsplit(url)[:3], "", ""))


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
