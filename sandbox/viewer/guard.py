"""The guard at the door: who may ask, and what a browser may do with the answer.

What models say is untrusted, and so is every page that a browser has open beside ours. A request
must name this host (against DNS rebinding), or show the token where others can reach the port; an
answer allows the browser to run and load nothing that is not ours.
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
"""What every answer says, unless it says otherwise itself."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's ports."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Lets requests in that are meant for us, and sees to the headers of every answer.

    Args:
        app: what answers them.
        token: what a browser must show; None: requests must be addressed to this machine.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the request answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("these pages are read-only: expected GET\n", 405)
        if self._token is None:
            host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
            if is_loopback(host):
                return None
            return PlainTextResponse("expected a request to 127.0.0.1 or localhost\n", 421)
        return self._without_token(scope, headers, self._token)

    def _without_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        if hmac.compare_digest(_cookie(headers).encode(), token.encode()):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = dict(query).get("token", "")
        if not hmac.compare_digest(shown.encode(), token.encode()):
            return PlainTextResponse(
                "expected the address with the token that `view` printed\n", 403
            )
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/\\")  # two slashes would lead to another host
        answer = RedirectResponse(f"{path}?{rest}".rstrip("?"), 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
