"""Full-text search over episodes, by the index that the writer maintains.

An episode matches if its texts contain all words of the query. A word matches by prefix, and
``"words in quotes"`` match as a phrase. Case and accents are ignored. In PostgreSQL only whole
words match, and accents count.

In scripts that are written without spaces, such as Japanese, Chinese and Thai, and in Korean, where
particles are joined to words, every character is a word of the index, and several are a phrase: a
query finds what contains it, from one character on. (PostgreSQL does not find phrases beyond the
first 16,383 words of an episode.)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, false, text

from storage.errors import InputError
from storage.reader import Reader
from storage.spacing import SPACELESS
from storage.tables import first_id

MOST_WORDS = 100
"""Maximum number of words, or of characters of scripts without spaces, in a query."""

_TERMS = re.compile(r'"([^"]*)"|(\S+)')
_WORD = re.compile(rf"{SPACELESS}|(?:(?!{SPACELESS})\w)+")
_SPACELESS = re.compile(SPACELESS)
_WITHIN_WORD = re.compile(r"(?<=\w)['\u2019\u2010-](?=\w)")


class Term(NamedTuple):
    """One term of a query: its words, and whether they must match as a phrase."""

    words: tuple[str, ...]
    phrase: bool

    @property
    def pattern(self) -> re.Pattern[str]:
        """A regular expression that matches the term in a text."""
        bare = [_SPACELESS.match(word) is not None for word in self.words]
        joined = "" if bare[0] else r"\b"
        for number, word in enumerate(self.words):
            if number:
                joined += r"\W*" if bare[number - 1] or bare[number] else r"\W+"
            joined += re.escape(word)
        if not bare[-1]:
            joined += r"\b" if self.phrase else r"\w*"
        return re.compile(joined, re.IGNORECASE)


def terms(query: str) -> list[Term]:
    """Parse a query into its different terms; punctuation is ignored.

    Raises:
        InputError: it has too many words: each costs a scan.
    """
    parsed = []
    for phrase, word in _TERMS.findall(query):
        words = tuple(_WORD.findall(phrase or word))
        if words:
            parsed.append(Term(words, bool(phrase) or len(words) > 1))
    different = list(dict.fromkeys(parsed))
    count = sum(len(term.words) for term in different)
    if count > MOST_WORDS:
        raise InputError(f"search: found {count:,} words; expected at most {MOST_WORDS}")
    return different


def ignored_signs(query: str) -> list[str]:
    """The different signs of a query that are not searched, such as an emoji, in order.

    Quotation marks of a phrase are not among them, nor apostrophes and hyphens within words.
    """
    rest = _WITHIN_WORD.sub("", query).replace('"', "")
    signs = (sign for sign in rest if unicodedata.category(sign)[0] in "PS" and sign != "_")
    return list(dict.fromkeys(signs))


def matches_words(
    reader: Reader, column: Any, query: str, newest: int | None = None
) -> ColumnElement[bool]:
    """The SQL condition that an episode contains the words of a query.

    Only complete episodes match. A query without words matches nothing.

    Args:
        reader: the run.
        column: a column with ids of episodes.
        query: the words to find; see the module.
        newest: the maximum number of matching episodes, latest first; None for all.

    Raises:
        InputError: the query has too many words.
    """
    parsed = terms(query)
    if not parsed:
        return false()
    sqlite = reader.engine.dialect.name == "sqlite"
    key = "rowid" if sqlite else "episode_id"
    match = "words MATCH :query" if sqlite else "words @@ websearch_to_tsquery('simple', :query)"
    within = f"{match} AND {key} BETWEEN :first AND :last"
    latest = "" if newest is None else f" ORDER BY {key} DESC LIMIT :newest"
    values: dict[str, Any] = {
        "query": _fts5_query(parsed) if sqlite else _postgresql_query(parsed),
        "first": reader.base,
        "last": first_id(reader.run.id + 1) - 1,
    }
    if newest is not None:
        values["newest"] = newest
    matching = text(f"SELECT {key} FROM words WHERE {within}{latest}").bindparams(**values)
    return column.in_(matching)  # type: ignore[no-any-return]


def _fts5_query(parsed: Sequence[Term]) -> str:
    """Words are quoted, so that none of them is read as an operator of FTS5."""
    return " AND ".join(f'"{" ".join(term.words)}"{"" if term.phrase else "*"}' for term in parsed)


def _postgresql_query(parsed: Sequence[Term]) -> str:
    return " ".join(f'"{" ".join(term.words)}"' for term in parsed)
