"""Search: the episodes in which words are said, by the index that the writer keeps.

A query is words, all of which must be said in the episode; a word finds the words that begin with
it, and ``"words in quotes"`` are a phrase. Upper and lower case are one, and so are letters with
and without accents. In PostgreSQL words are found whole only, and accents count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text

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


def found_episodes(
    reader: Reader,
    query: str,
    *,
    first: int = 0,
    last: int | None = None,
    newest: bool = True,
    limit: int = 50,
) -> list[int]:
    """The numbers of complete episodes in which a query's words are said.

    Args:
        reader: the run.
        query: what to find; see the module.
        first: episodes from this number on.
        last: and up to this one; None: to the end.
        newest: the latest first.
        limit: at most so many.
    """
    wanted = terms(query)
    if not wanted:
        return []
    sqlite = reader.engine.dialect.name == "sqlite"
    order = "DESC" if newest else "ASC"
    statement = (
        f"SELECT rowid FROM words WHERE words MATCH :query AND rowid BETWEEN :first AND :last "
        f"ORDER BY rowid {order} LIMIT :limit"
        if sqlite
        else "SELECT episode_id FROM words WHERE words @@ websearch_to_tsquery('simple', :query) "
        f"AND episode_id BETWEEN :first AND :last ORDER BY episode_id {order} LIMIT :limit"
    )
    values = {
        "query": _fts(wanted) if sqlite else _web(wanted),
        "first": reader.base + first,
        "last": reader.base + ((1 << 32) - 1 if last is None else last),
        "limit": limit,
    }
    with reader.engine.connect() as connection:
        return [row - reader.base for row in connection.scalars(text(statement), values)]


def _fts(wanted: Sequence[Term]) -> str:
    """The query for FTS5: quoted, so that nothing in it is an operator."""
    return " AND ".join(f'"{" ".join(term.words)}"{"" if term.phrase else "*"}' for term in wanted)


def _web(wanted: Sequence[Term]) -> str:
    return " ".join(f'"{" ".join(term.words)}"' for term in wanted)
