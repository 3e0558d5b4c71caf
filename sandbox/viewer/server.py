"""The HTTP server of the viewer."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Collection
from typing import NamedTuple

import uvicorn

from sandbox.viewer.app import application, warm_up
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.guard import is_loopback, root_path
from storage.errors import InputError


class ServerAddress(NamedTuple):
    """The host and port that the server listens on, the access token, if any, and the path."""

    host: str
    port: int
    token: str | None
    prefix: str = ""

    @property
    def url(self) -> str:
        """The URL to open in a browser, including the token."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{name}]" if ":" in name else name
        return f"http://{host}:{self.port}{self.prefix}/" + (
            f"?token={self.token}" if self.token else ""
        )


def serve(
    catalog: RunCatalog,
    host: str,
    port: int,
    ready: Callable[[ServerAddress], None],
    prefix: str = "",
    hosts: Collection[str] = (),
) -> None:
    """Serve until interrupted.

    Args:
        catalog: the runs that are served.
        host: the address to listen on; other than loopback requires an access token.
        port: the port; 0 for any free port.
        ready: called with the address once the server listens.
        prefix: the path of the pages behind a reverse proxy.
        hosts: names that requests may be sent to besides those of this machine.

    Raises:
        InputError: the prefix is no path, or the port is not available.
    """
    prefix = root_path(prefix)
    token = None if is_loopback(host) else secrets.token_urlsafe(16)
    listener = _listen(host, port)
    warm_up()
    address = ServerAddress(host, listener.getsockname()[1], token, prefix)
    app = application(catalog, token, prefix, hosts)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
    ready(address)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # IPPROTO_TCP: asyncio sets TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        line = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--port: {host}:{port}: {line}; expected a free port") from None
    listener.listen(128)
    return listener
