"""Where an engine's own output goes: into a file.

So it neither garbles the display nor gets into the output of `--json`, and it is at hand when the
engine could not be started.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_TICK = 10.0  # seconds between two lines of progress
_ERROR = re.compile(r"\b((?:[A-Za-z_.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt)): (.+)")
_MISLEADING = ("Engine core initialization failed", "cancelled")
_HEAD = re.compile(r"^(?:\([^)]*\)\s*)*(?:[A-Z]+ [\d-]+ [\d:.]+ \[[^]]*\] ?)?")


class EngineLog:
    """A log file for one engine and its processes; it is deleted unless it is to be kept."""

    def __init__(self) -> None:
        self.path = Path()
        self.keep = False

    def open(self) -> None:
        """Make the file."""
        handle, name = tempfile.mkstemp(prefix="sandbox-vllm-", suffix=".log")
        os.close(handle)
        self.path = Path(name)

    @contextmanager
    def catching(self) -> Iterator[int]:
        """Send standard output and error there, of this process and of those that it starts now.

        Yields a descriptor of the true standard error. Processes that are started meanwhile go on
        writing to the file.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        saved = os.dup(1), os.dup(2)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        try:
            yield saved[1]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, place in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, place)
                os.close(descriptor)
            os.close(file)

    def last_line(self) -> str:
        """What the engine said last, without its own time stamps."""
        lines = self._text().splitlines()
        return next((line for line in map(_bare, reversed(lines)) if line), "")[:120]

    def cause(self) -> str | None:
        """The error that an engine process died of, as far as the log tells."""
        found = _ERROR.findall(self._text())
        telling = [f"{kind}: {text}" for kind, text in found if not text.startswith(_MISLEADING)]
        return telling[0][:400] if telling else None

    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace") if self.path.name else ""

    def close(self) -> None:
        """Delete the file, unless somebody should read it."""
        if self.path.name and not self.keep:
            self.path.unlink(missing_ok=True)


def _bare(line: str) -> str:
    return _HEAD.sub("", line).strip()


async def with_progress(work: Awaitable[T], log: EngineLog, what: str, descriptor: int) -> T:
    """Wait for something slow, and say every few seconds on a descriptor how far it has got."""
    began = time.monotonic()
    task = asyncio.ensure_future(work)
    _say(descriptor, f"{what} ...")
    while not (await asyncio.wait({task}, timeout=_TICK))[0]:
        _say(descriptor, f"{what}: {time.monotonic() - began:.0f} s, {log.last_line()}")
    result = await task
    _say(descriptor, f"{what}: ready after {time.monotonic() - began:.0f} s")
    return result


def _say(descriptor: int, line: str) -> None:
    os.write(descriptor, f"{line}\n".encode())
