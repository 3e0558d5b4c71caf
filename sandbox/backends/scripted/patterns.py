"""Looking for many phrases at once."""

from __future__ import annotations

import re
from collections.abc import Iterable


def plain(text: str) -> str:
    """Text as the patterns expect it: lower case, single spaces, straight apostrophes."""
    return " ".join(text.lower().replace("\u2019", "'").split())


def _tail(phrase: str) -> str:
    if phrase.endswith("*"):
        return re.escape(phrase[1:-1])
    return re.escape(phrase[1:]) + r"\b"


def any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """One expression that finds whole phrases, the longest first; `stem*` finds every ending.

    Branching on the first letter keeps the search fast however many phrases there are.
    """
    tails: dict[str, list[str]] = {}
    for phrase in sorted(set(phrases), key=lambda each: (-len(each), each)):
        tails.setdefault(phrase[0], []).append(_tail(phrase))
    branches = (f"{first}(?:{'|'.join(rest)})" for first, rest in tails.items())
    return re.compile(rf"\b(?:{'|'.join(branches)})")


def listed(text: str) -> tuple[str, ...]:
    """The phrases of a block of text that separates them by bars."""
    return tuple(" ".join(part.split()) for part in text.split("|") if part.strip())


def words_of(text: str) -> frozenset[str]:
    """The words of a block of text."""
    return frozenset(text.split())
