"""Log files for the output of inference engines.

The output must not appear in the live display or in the output of `--json`, and is needed to
explain why an engine could not be started.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_TICK = 10.0  # seconds between two lines of progress
_ERROR = re.compile(r"\b((?:[A-Za-z_.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt)): (.+)")
_MISLEADING = ("Engine core initialization failed", "cancelled")
_PREFIX = re.compile(r"^(?:\([^)]*\)\s*)*(?:[A-Z]+ [\d-]+ [\d:.]+ \[[^]]*\] ?)?")

_redirecting = threading.RLock()
"""Held while the streams of the process are redirected: runs in several threads start engines."""


class EngineLog:
    """A temporary log file for one engine and its processes.

    Args:
        engine: its name, for that of the file.

    Attributes:
        path: the file.
        keep: do not delete it on `close`.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self.path = Path()
        self.keep = False

    def open(self) -> None:
        """Create the file."""
        handle, name = tempfile.mkstemp(prefix=f"sandbox-{self._engine}-", suffix=".log")
        os.close(handle)
        self.path = Path(name)

    @contextmanager
    def redirected(self) -> Iterator[int]:
        """Redirect standard output and error of this process and new child processes to the file.

        Child processes that are started meanwhile keep writing to the file.

        Yields:
            A descriptor of the original standard error.
        """
        with _redirecting:
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
                for descriptor, target in zip(saved, (1, 2), strict=True):
                    os.dup2(descriptor, target)
                    os.close(descriptor)
                os.close(file)

    def last_line(self) -> str:
        """Return the last line of the log, without the engine's time stamp."""
        lines = self._text().splitlines()
        return next((line for line in map(_without_prefix, reversed(lines)) if line), "")[:120]

    def cause(self) -> str | None:
        """Return the first error in the log that explains a failure; None if there is none."""
        errors = [
            f"{kind}: {text}"
            for kind, text in _ERROR.findall(self._text())
            if not text.startswith(_MISLEADING)
        ]
        return errors[0][:400] if errors else None

    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace") if self.path.name else ""

    def close(self) -> None:
        """Delete the file, unless it should be kept."""
        if self.path.name and not self.keep:
            self.path.unlink(missing_ok=True)


def _without_prefix(line: str) -> str:
    return _PREFIX.sub("", line).strip()


async def with_progress(work: Awaitable[T], log: EngineLog, what: str, descriptor: int) -> T:
    """Wait for slow work, and write its progress to a descriptor every few seconds.

    Args:
        work: the work.
        log: the log whose last line is shown.
        what: describes the work.
        descriptor: the file descriptor to write to.

    Returns:
        The result of the work.
    """
    began = time.monotonic()
    task = asyncio.ensure_future(work)
    _write_line(descriptor, f"{what} ...")
    while not (await asyncio.wait({task}, timeout=_TICK))[0]:
        _write_line(descriptor, f"{what}: {time.monotonic() - began:.0f} s, {log.last_line()}")
    result = await task
    _write_line(descriptor, f"{what}: ready after {time.monotonic() - began:.0f} s")
    return result


def _write_line(descriptor: int, line: str) -> None:
    os.write(descriptor, f"{line}\n".encode())
