"""ASGI middleware: access control and security headers.

Model output is untrusted, and so are other pages that are open in the browser. Requests need a
loopback Host header (against DNS rebinding) or one that is allowed, or the access token if other
machines can reach the port. A Content Security Policy restricts responses to scripts and resources
of the viewer.

Behind a reverse proxy the pages are below a path. It is given, or read from the header
``X-Forwarded-Prefix``. A page of another site cannot set that header, and it only decides how the
links of the response begin, which always stay on the host.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storage.errors import InputError

COOKIE = "sandbox_token"

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Default headers of every response; a handler can override them."""


LONGEST_URL, MOST_FIELDS = 4_000, 100
"""Maximum length of a URL, in characters, and maximum number of its query parameters."""


_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~%@+-]+)+", re.ASCII)
_LONGEST_PREFIX = 500


def root_path(path: str) -> str:
    """A path below which pages are served, without a slash at its end; empty for the root.

    Raises:
        InputError: it is no path such as ``/user/me/proxy/8765``.
    """
    found = path.rstrip("/")
    if found and not (len(found) <= _LONGEST_PREFIX and _PREFIX.fullmatch(found)):
        raise InputError(f"--root-path: found {path[:60]}; expected a path such as /sandbox")
    return found


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address or name."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class AccessMiddleware:
    """Middleware that rejects unauthorized requests and adds security headers to all responses.

    Args:
        app: the wrapped application.
        token: the access token that requests need; None: only requests to localhost or to one of
            `hosts` are accepted.
        prefix: the path of the pages behind a reverse proxy, as `root_path` returns it; empty: by
            the header ``X-Forwarded-Prefix``, if there is one.
        hosts: names that the Host header may have besides those of this machine.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, prefix: str = "", hosts: Collection[str] = ()
    ) -> None:
        self._app = app
        self._token = token
        self._prefix = prefix
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        placed = self._below_prefix(scope)
        rejection = self._rejection(placed)
        await (rejection or self._app)(placed, receive, send_with_headers)

    def _below_prefix(self, scope: Scope) -> Scope:
        """The request with the prefix as its root path, whether or not the proxy removed it."""
        prefix = self._prefix or _forwarded_prefix(Headers(scope=scope))
        path = scope["path"]
        if not prefix:
            return scope
        if path != prefix and not path.startswith(f"{prefix}/"):
            path = prefix + path
        return {**scope, "root_path": prefix, "path": f"{prefix}/" if path == prefix else path}

    def _rejection(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse(
                f"method: found {scope['method']}; expected GET or HEAD, the viewer is read-only\n",
                405,
            )
        size = len(scope["path"]) + len(scope["query_string"])
        fields = 1 + scope["query_string"].count(b"&")
        if size > LONGEST_URL or fields > MOST_FIELDS:
            return PlainTextResponse(
                f"URL: found {size:,} characters and {fields:,} parameters; expected at most "
                f"{LONGEST_URL:,} and {MOST_FIELDS}\n",
                414,
            )
        if self._token is None:
            host = _host(headers)
            if is_loopback(host) or host.lower() in self._hosts:
                return None
            return PlainTextResponse(
                "expected a request to 127.0.0.1 or localhost, or to a host that was given to "
                "`view` as --allow-host\n",
                421,
            )
        return self._check_token(scope, headers, self._token)

    def _check_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        if hmac.compare_digest(_cookie(headers).encode(), token.encode()):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("expected the URL with the token that `view` printed\n", 403)
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/\\")  # two slashes would redirect to another host
        response = RedirectResponse(f"{path}?{rest}".rstrip("?"), 303)
        place = scope.get("root_path") or "/"
        response.set_cookie(COOKIE, token, path=place, httponly=True, samesite="strict")
        return response


def _forwarded_prefix(headers: Headers) -> str:
    """The path that a reverse proxy names; empty if it names none, or what is no path."""
    try:
        return root_path(headers.get("x-forwarded-prefix", ""))
    except InputError:
        return ""


def _host(headers: Headers) -> str:
    """The host that a request names, without the port; empty if it is none."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _cookie(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if cookie is None else cookie.value
