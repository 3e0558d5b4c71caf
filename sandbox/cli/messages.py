"""What the program logs while it works: lines on standard error."""

from __future__ import annotations

import logging
import sys

from sandbox.text import printable

_AGAIN_SECONDS = 60.0
"""The same line is printed again after this time only: two roles may have the same server."""


class _Lines(logging.Handler):
    """Prints records on standard error as it is now, which a live display may have replaced."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record on one line."""
        words = " ".join(record.getMessage().split())
        line = f"warning: {words}" if record.levelno >= logging.WARNING else words
        last = self._printed.get(line)
        if last is None or record.created - last > _AGAIN_SECONDS:
            self._printed[line] = record.created
            print(printable(line), file=sys.stderr, flush=True)


def show_log() -> None:
    """Show what the program's own modules log, from the level INFO."""
    logger = logging.getLogger("sandbox")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Lines())
