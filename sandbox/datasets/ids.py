"""Ids of exported rows, which identify the exchange of a row."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_ID = re.compile(r"(.+?)@([0-9a-f]{8}|unfinished)/([0-9]{1,12})(?:/[^~]*)?(?:~.*)?", re.DOTALL)


class Origin(NamedTuple):
    """The exchange of a row.

    Attributes:
        run: the name of the run.
        digest: the first 8 digits of its digest at the time of the export, or "unfinished".
        episode: the number of the exchange within the run; for a pair that of the chosen answer.
    """

    run: str
    digest: str
    episode: int

    def agrees(self, digest: str | None) -> bool:
        """Whether the run still has the same digest."""
        return mark(digest) == self.digest


def mark(digest: str | None) -> str:
    """Return the abbreviated digest that ids contain."""
    return digest[:8] if digest else "unfinished"


def row_id(run: str, digest: str | None, episode: int, *parts: Any) -> str:
    """Return an id: RUN@DIGEST/EPISODE/..."""
    return "/".join((f"{run}@{mark(digest)}", str(episode), *map(str, parts)))


def origin_of(text: str) -> Origin | None:
    """Parse an id; None if the text is not an id."""
    match = _ID.fullmatch(text)
    return None if match is None else Origin(match[1], match[2], int(match[3]))
