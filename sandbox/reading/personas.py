"""Personas as the database stores them (JSON), and searching in texts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from storage.search import Term


def persona_name(persona: str) -> str:
    """The name in a persona, which the database stores as JSON."""
    return str(json.loads(persona)["name"])


def persona_text(persona: str) -> str:
    """The values of a persona, without the names of its fields."""
    values = json.loads(persona).values()
    return "\n".join(
        ", ".join(value) if isinstance(value, list) else str(value) for value in values
    )


def contains_all(wanted: Sequence[Term], text: str) -> bool:
    """Whether a text has all terms of a search."""
    return all(term.pattern.search(text) for term in wanted)


def like_pattern(term: Term) -> str:
    """A necessary condition that the database can check: the words follow each other."""
    return f"%{'%'.join(term.words)}%"
