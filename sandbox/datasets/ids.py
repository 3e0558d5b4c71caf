"""Ids of exported rows, which name the exchange that a row is from."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_FORM = re.compile(r"(.+?)@([0-9a-f]{8}|unfinished)/([0-9]{1,12})(?:/[^~]*)?(?:~.*)?", re.DOTALL)


class Origin(NamedTuple):
    """The exchange that a row is from.

    Attributes:
        run: the run's name.
        digest: the first 8 digits of its digest at the time of the export; "unfinished" without.
        episode: the exchange's number within the run; of a pair that of the chosen answer.
    """

    run: str
    digest: str
    episode: int

    def agrees(self, digest: str | None) -> bool:
        """Whether the run still has the same digest."""
        return mark(digest) == self.digest


def mark(digest: str | None) -> str:
    """Return the part of a digest that ids contain."""
    return digest[:8] if digest else "unfinished"


def row_id(run: str, digest: str | None, episode: int, *parts: Any) -> str:
    """Return an id: RUN@DIGEST/EPISODE/..."""
    return "/".join((f"{run}@{mark(digest)}", str(episode), *map(str, parts)))


def origin_of(text: str) -> Origin | None:
    """Parse an id; None where the text is none."""
    found = _FORM.fullmatch(text)
    return None if found is None else Origin(found[1], found[2], int(found[3]))
