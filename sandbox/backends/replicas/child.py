"""The process of a replica on this machine: `python -m sandbox.backends.replicas.child SOCKET`.

It talks with its parent by a socket, and ends when that is closed: with its parent, however that
ends. What a backend prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress

from sandbox.backends.base import BackendDown
from sandbox.backends.replicas.frames import BUFFERED, read_frame, write_frame
from sandbox.backends.replicas.server import Order, Server, Session
from storage.errors import InputError

CLOSE_SECONDS = 15.0
"""How long a backend may take to close; then its processes are killed."""


async def serve(connection: socket.socket) -> None:
    """Start the backend that the parent orders, and answer calls until the parent has gone."""
    reader, writer = await asyncio.open_connection(sock=connection, limit=BUFFERED)
    order: Order = pickle.loads(await read_frame(reader))
    server = Server(order)
    frames: asyncio.Queue[bytes] = asyncio.Queue()
    reading = asyncio.ensure_future(_read(reader, frames))
    work = asyncio.ensure_future(_serve(server, frames, writer))
    await asyncio.wait({reading, work}, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await asyncio.gather(work, return_exceptions=True)
            await server.close()


async def _read(reader: asyncio.StreamReader, frames: asyncio.Queue[bytes]) -> None:
    """Pass on what the parent sends, until it has gone."""
    with suppress(EOFError, ConnectionError):
        while True:
            frames.put_nowait(await read_frame(reader))


async def _serve(
    server: Server, frames: asyncio.Queue[bytes], writer: asyncio.StreamWriter
) -> None:
    """Start the backend, tell the parent what came of it, and answer its calls."""
    try:
        started = await server.start()
    except (BackendDown, InputError) as error:
        await write_frame(writer, pickle.dumps(error))
        return
    await write_frame(writer, pickle.dumps(started))
    session = server.session()
    answering = asyncio.ensure_future(_write(session, writer))
    try:
        while True:
            session.take(await frames.get())
    finally:
        answering.cancel()
        await session.close()


async def _write(session: Session, writer: asyncio.StreamWriter) -> None:
    """Send results as soon as there are any."""
    with suppress(ConnectionError):
        while True:
            await write_frame(writer, await session.results())


def main(descriptor: str) -> None:
    """Serve on a socket that was inherited, and end with all processes that a backend has left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.dup2(2, 1)
    asyncio.run(serve(socket.socket(fileno=int(descriptor))))
    os.killpg(0, signal.SIGKILL)  # this process leads a group of its own


if __name__ == "__main__":
    main(sys.argv[1])
