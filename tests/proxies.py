"""Reverse proxies in front of a viewer: nginx, and a small one in Python."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")


class Behind(NamedTuple):
    """Where a browser reaches a viewer behind a proxy; `.localhost` names are this machine's."""

    port: int
    prefix: str

    @property
    def url(self) -> str:
        return f"http://hub.localhost:{self.port}{self.prefix}"


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def python_proxy(viewer: int, prefix: str, strip: bool, tell: bool) -> Iterator[Behind]:
    """Forward requests below a prefix to the port of a viewer.

    Args:
        viewer: its port.
        prefix: the path.
        strip: remove the prefix, as most proxies do.
        tell: send it as ``X-Forwarded-Prefix``.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            path = self.path.removeprefix(prefix) if strip else self.path
            headers = {"Host": self.headers["Host"], "Cookie": self.headers.get("Cookie", "")}
            headers |= {"X-Forwarded-Prefix": prefix} if tell else {}
            with closing(http.client.HTTPConnection("127.0.0.1", viewer, timeout=30)) as line:
                line.request("GET", path, headers=headers)
                answer = line.getresponse()
                body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Behind(server.server_address[1], prefix)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def nginx_proxy(viewer: int, prefix: str, folder: Path) -> Iterator[Behind]:
    """The same with nginx, which removes the prefix and tells it."""
    assert NGINX is not None
    port = _free_port()
    folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in folders)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}} "
        f"http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; "
        f"location {prefix}/ {{ proxy_pass http://127.0.0.1:{viewer}/; "
        f"proxy_set_header Host $host; proxy_set_header X-Forwarded-Prefix {prefix}; }} }} }}"
    )
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with closing(socket.socket()) as line:
                if line.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Behind(port, prefix)
    finally:
        process.terminate()
        process.wait(timeout=10)
