"""Excerpts: the part of a text in which a search found something."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sandbox.text import short
from storage.search import Term

_BEFORE = 24
"""Characters before the first match."""


class Excerpt(NamedTuple):
    """Where a search found something.

    Attributes:
        where: the part that the text belongs to, such as `draft` or `rating by 3`.
        text: one line around the first match.
    """

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def find_excerpt(
    texts: Iterable[tuple[str, str | None]], terms: Sequence[Term], width: int
) -> Excerpt | None:
    """The excerpt around the first match of any term; None if no text matches.

    Args:
        texts: pairs of a part's name and its text.
        terms: what was searched.
        width: the maximum length of the excerpt, in characters.
    """
    for where, text in texts:
        found = excerpt(text or "", terms, width)
        if found is not None:
            return Excerpt(where, found)
    return None


def excerpt(text: str, terms: Sequence[Term], width: int) -> str | None:
    """One line of a text around the first match of any term; None if none matches.

    Case and accents are ignored, as in the index.
    """
    bare = _without_accents(text)
    matches = [_bare_pattern(term).search(bare) for term in terms]
    start = min((match.start() for match in matches if match is not None), default=None)
    if start is None:
        return None
    begin = max(0, start - _BEFORE)
    if begin:
        space = re.search(r"\s", text[begin:start])
        begin += space.end() if space else 0
    mark = "\u2026" if begin else ""
    return mark + short(text[begin:], width - len(mark))


def _bare_pattern(term: Term) -> re.Pattern[str]:
    return term._replace(words=tuple(map(_without_accents, term.words))).pattern


def _without_accents(text: str) -> str:
    """A text of the same length in which letters have no accents."""
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFD", char)[0] for char in text)
