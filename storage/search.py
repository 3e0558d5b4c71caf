"""Search: the episodes in which words are said, by the index that the writer keeps.

A query is words, all of which must be said in the episode; a word finds the words that begin with
it, and ``"words in quotes"`` are a phrase. Upper and lower case are one, and so are letters with
and without accents. In PostgreSQL words are found whole only, and accents count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, false, text

from storage.reader import Reader

_TERMS = re.compile(r'"([^"]*)"|(\S+)')


class Term(NamedTuple):
    """One thing to find: its words, and whether they are a phrase."""

    words: tuple[str, ...]
    phrase: bool

    @property
    def pattern(self) -> re.Pattern[str]:
        """What it looks like in a text."""
        joined = r"\W+".join(map(re.escape, self.words))
        return re.compile(rf"\b{joined}" + (r"\b" if self.phrase else r"\w*"), re.IGNORECASE)


def terms(query: str) -> list[Term]:
    """What a query asks for; marks that are no words are left out."""
    found = []
    for phrase, word in _TERMS.findall(query):
        words = tuple(re.findall(r"\w+", phrase or word))
        if words:
            found.append(Term(words, bool(phrase) or len(words) > 1))
    return found


def says(reader: Reader, column: Any, query: str) -> ColumnElement[bool]:
    """The condition that a query's words are said in the episode that a column names by its id.

    What is still being played is not found; a query without words finds nothing.
    """
    wanted = terms(query)
    if not wanted:
        return false()
    if reader.engine.dialect.name == "sqlite":
        found = text("SELECT rowid FROM words WHERE words MATCH :said")
        return column.in_(found.bindparams(said=_fts(wanted)))  # type: ignore[no-any-return]
    found = text(
        "SELECT episode_id FROM words WHERE words @@ websearch_to_tsquery('simple', :said)"
    )
    return column.in_(found.bindparams(said=_web(wanted)))  # type: ignore[no-any-return]


def _fts(wanted: Sequence[Term]) -> str:
    """The query for FTS5: quoted, so that nothing in it is an operator."""
    return " AND ".join(f'"{" ".join(term.words)}"{"" if term.phrase else "*"}' for term in wanted)


def _web(wanted: Sequence[Term]) -> str:
    return " ".join(f'"{" ".join(term.words)}"' for term in wanted)
