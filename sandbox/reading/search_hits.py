"""The exchanges of a run that match a search, those with the whole phrase first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select

from storage import tables
from storage.exchanges import Exchange, exchanges_of, snapshot
from storage.reader import Reader
from storage.search import Term, matches_words, terms


class Hit(NamedTuple):
    """An exchange, and the terms that were found in it: the phrase, or the single words."""

    exchange: Exchange
    terms: Sequence[Term]


class RunHits(NamedTuple):
    """What a search found in one run.

    Attributes:
        total: the number of exchanges with all words, at most the limit.
        phrases: how many of them have the words as one phrase.
        cut: whether the limit was reached, so that there are more.
        hits: the first of them: those with the phrase, then the latest.
    """

    total: int
    phrases: int
    cut: bool
    hits: Sequence[Hit]


def run_hits(reader: Reader, text: str, limit: int, shown: int) -> RunHits:
    """Search a run as its own search page does.

    Args:
        reader: the run.
        text: see `storage.search`.
        limit: only the latest that many matches of the words, and of the phrase, are looked at.
        shown: the maximum number of exchanges that are returned.

    Raises:
        InputError: the query has too many words.
    """
    words, phrase = terms(text), as_phrase(text)
    found = _matches(reader, text, limit)
    with_phrase = [] if phrase is None else _matches(reader, phrase, limit)
    known = set(with_phrase)
    ids = [*with_phrase, *(number for number in found if number not in known)]
    with snapshot(reader) as connection:
        exchanges = {
            reader.base + one.episode: one
            for one in exchanges_of(reader, connection, sorted(ids[:shown]))
        }
    parsed = terms(phrase) if phrase is not None else words
    return RunHits(
        total=min(limit, len(ids)),
        phrases=len(with_phrase),
        cut=len(found) == limit,
        hits=[
            Hit(exchanges[number], parsed if number in known else words) for number in ids[:shown]
        ],
    )


def as_phrase(text: str) -> str | None:
    """The words of a query as one phrase; None for a single word, or with quoted parts."""
    if '"' in text or len(terms(text)) < 2:
        return None
    return f'"{text}"'


def _matches(reader: Reader, text: str, limit: int) -> list[int]:
    """The ids of the latest matching exchanges, the latest first."""
    e = tables.episodes
    query = select(e.c.id).where(
        e.c.run_id == reader.run.id, matches_words(reader, e.c.id, text, limit)
    )
    return [row.id for row in reader.rows(query.order_by(e.c.id.desc()).limit(limit))]
