"""Serving the pages on a port of this machine."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from typing import NamedTuple

import uvicorn

from sandbox.viewer.app import application, warm_up
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.guard import is_loopback
from storage.errors import InputError


class ServerAddress(NamedTuple):
    """Where pages are served: the host, the port, and the token that browsers must show."""

    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        """The address to open."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{name}]" if ":" in name else name
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def serve(catalog: RunCatalog, host: str, port: int, ready: Callable[[ServerAddress], None]) -> None:
    """Serve until interrupted.

    Args:
        catalog: the runs that are shown.
        host: the address to listen at; anything but loopback asks for a token.
        port: the port; 0 for any that is free.
        ready: told once where the pages are.

    Raises:
        InputError: the port cannot be had.
    """
    token = None if is_loopback(host) else secrets.token_urlsafe(16)
    listener = _listen(host, port)
    warm_up()
    address = ServerAddress(host, listener.getsockname()[1], token)
    config = uvicorn.Config(
        application(catalog, token), log_level="warning", access_log=False, lifespan="on"
    )
    ready(address)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else: no TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        line = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--port: {host}:{port}: {line}; expected one that is free") from None
    listener.listen(128)
    return listener
