"""Ids of exported rows: they lead back to the exchange that a row is from."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_FORM = re.compile(r"(.+?)@([0-9a-f]{8}|unfinished)/([0-9]{1,12})(?:/[^~]*)?(?:~.*)?", re.DOTALL)


class Origin(NamedTuple):
    """Where a row is from.

    Attributes:
        run: the run's name.
        digest: the first 8 digits of its digest when it was exported; "unfinished" without one.
        episode: the exchange's number within the run; of a pair that of the chosen answer.
    """

    run: str
    digest: str
    episode: int

    def agrees(self, digest: str | None) -> bool:
        """Whether the run has still the digest that it had."""
        return mark(digest) == self.digest


def mark(digest: str | None) -> str:
    """A digest as ids have it."""
    return digest[:8] if digest else "unfinished"


def row_id(run: str, digest: str | None, episode: int, *parts: Any) -> str:
    """An id: RUN@DIGEST/EPISODE/..."""
    return "/".join((f"{run}@{mark(digest)}", str(episode), *map(str, parts)))


def origin_of(text: str) -> Origin | None:
    """Where the row with this id is from; None where it is no id."""
    found = _FORM.fullmatch(text)
    return None if found is None else Origin(found[1], found[2], int(found[3]))
