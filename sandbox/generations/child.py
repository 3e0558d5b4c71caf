"""A verb of this program in a process of its own.

Training and evaluation load models; with their process, all memory of a GPU is free again.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sandbox.environment import child_variables

_INTERRUPTED = 130


class PhaseFailed(Exception):
    """Raised if a verb ends with another exit status than 0; the message is its error line."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_verb(arguments: Sequence[str], launcher: Sequence[str] = ()) -> dict[str, Any]:
    """Run a verb with ``--json`` in a child process; its progress goes to standard error.

    SIGINT and SIGTERM are passed on, once each, and the child is waited for. On Linux the child
    gets a SIGTERM if this process is killed.

    Args:
        arguments: the verb with its arguments.
        launcher: a command that takes ``-m MODULE``, such as ``accelerate launch``; by default this
            Python.

    Returns:
        What the verb prints.

    Raises:
        PhaseFailed: it failed.
        KeyboardInterrupt: it was interrupted.
    """
    command = [*(launcher or [sys.executable]), "-m", "sandbox", *arguments, "--json"]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=child_variables(),
        start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on
        preexec_fn=_end_with_parent,
    )
    with _passed_on(child):
        printed, _ = child.communicate()
    result = _result(printed)
    if child.returncode == _INTERRUPTED:
        raise KeyboardInterrupt
    if child.returncode:
        reason = result.get("error") or f"{arguments[0]} ended with status {child.returncode}"
        raise PhaseFailed(str(reason), child.returncode)
    return result


def _result(printed: str) -> dict[str, Any]:
    """The last line of the output that is a JSON object; a launcher may print others."""
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            return dict(json.loads(line))
    return {}


_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _passed_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """Send each signal that asks this process to stop to the child."""

    def send(number: int, _frame: FrameType | None) -> None:
        if child.poll() is None:
            child.send_signal(number)

    before = {number: signal.signal(number, send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
