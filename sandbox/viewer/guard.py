"""ASGI middleware: access control and security headers.

Model output is untrusted, and so are other pages that are open in the browser. Requests need a
loopback Host header (against DNS rebinding), or the access token if other machines can reach the
port. A Content Security Policy restricts responses to scripts and resources of the viewer.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        token: the access token that requests need; None: only requests to localhost are accepted.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

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

        rejection = self._rejection(scope)
        await (rejection or self._app)(scope, receive, send_with_headers)

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
            if is_loopback(_host(headers)):
                return None
            return PlainTextResponse("expected a request to 127.0.0.1 or localhost\n", 421)
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
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response


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
