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
from storage.tables import first_id

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


def says(reader: Reader, column: Any, query: str, newest: int | None = None) -> ColumnElement[bool]:
    """The condition that a query's words are said in the episode that a column names by its id.

    What is still being played is not found; a query without words finds nothing.

    Args:
        reader: the run.
        column: holds ids of episodes.
        query: what to find; see the module.
        newest: only the so many latest episodes that say it; None: all.
    """
    wanted = terms(query)
    if not wanted:
        return false()
    sqlite = reader.engine.dialect.name == "sqlite"
    place = "rowid" if sqlite else "episode_id"
    match = "words MATCH :said" if sqlite else "words @@ websearch_to_tsquery('simple', :said)"
    within = f"{match} AND {place} BETWEEN :first AND :last"
    latest = "" if newest is None else f" ORDER BY {place} DESC LIMIT :newest"
    values: dict[str, Any] = {
        "said": _fts(wanted) if sqlite else _web(wanted),
        "first": reader.base,
    }
    values["last"] = first_id(reader.run.id + 1) - 1
    if newest is not None:
        values["newest"] = newest
    found = text(f"SELECT {place} FROM words WHERE {within}{latest}").bindparams(**values)
    return column.in_(found)  # type: ignore[no-any-return]


def _fts(wanted: Sequence[Term]) -> str:
    """The query for FTS5: quoted, so that nothing in it is an operator."""
    return " AND ".join(f'"{" ".join(term.words)}"{"" if term.phrase else "*"}' for term in wanted)


def _web(wanted: Sequence[Term]) -> str:
    return " ".join(f'"{" ".join(term.words)}"' for term in wanted)
