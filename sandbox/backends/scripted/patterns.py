"""Searching for many phrases at once."""

from __future__ import annotations

import re
from collections.abc import Iterable


def plain(text: str) -> str:
    """Normalise a text for the patterns: lower case, single spaces, straight apostrophes."""
    return " ".join(text.lower().replace("\u2019", "'").split())


def _tail(phrase: str) -> str:
    if phrase.endswith("*"):
        return re.escape(phrase[1:-1])
    return re.escape(phrase[1:]) + r"\b"


def any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Compile one expression for whole phrases, longest first; `stem*` matches every ending.

    Branching on the first letter keeps the search fast however many phrases there are.
    """
    tails: dict[str, list[str]] = {}
    for phrase in sorted(set(phrases), key=lambda each: (-len(each), each)):
        tails.setdefault(phrase[0], []).append(_tail(phrase))
    branches = (f"{first}(?:{'|'.join(rest)})" for first, rest in tails.items())
    return re.compile(rf"\b(?:{'|'.join(branches)})")


def listed(text: str) -> tuple[str, ...]:
    """Split a block of text at bars into phrases."""
    return tuple(" ".join(part.split()) for part in text.split("|") if part.strip())


def words_of(text: str) -> frozenset[str]:
    """Split a block of text into words."""
    return frozenset(text.split())
