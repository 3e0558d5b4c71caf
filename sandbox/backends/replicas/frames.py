"""Frames on a socket: eight bytes with a length, and as many bytes."""

from __future__ import annotations

import asyncio

_LENGTH = 8
BUFFERED = 2**20
"""Bytes that a reader keeps before the sender has to wait."""


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read a frame.

    Raises:
        EOFError: the other side has closed the socket.
        ConnectionError: the other side has died.
    """
    length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    return await reader.readexactly(length)


async def write_frame(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write a frame, and wait until the other side has read enough of what it was sent.

    Raises:
        ConnectionError: the other side has died.
    """
    writer.write(len(data).to_bytes(_LENGTH, "big"))
    writer.write(data)
    await writer.drain()
