"""Personas as the database stores them (JSON), and searching in texts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from storage.search import Term


def persona_name(persona: str) -> str:
    """The name in a stored persona (JSON)."""
    return str(json.loads(persona)["name"])


def persona_text(persona: str) -> str:
    """The values of a stored persona as text, without field names."""
    values = json.loads(persona).values()
    return "\n".join(
        ", ".join(value) if isinstance(value, list) else str(value) for value in values
    )


def contains_all(terms: Sequence[Term], text: str) -> bool:
    """Whether a text contains all terms of a search."""
    return all(term.pattern.search(text) for term in terms)


def like_pattern(term: Term) -> str:
    """A LIKE pattern that every match of a term satisfies: its words in order."""
    return f"%{'%'.join(term.words)}%"
