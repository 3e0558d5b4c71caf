"""Search across all runs of a catalog, in bounded time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from sandbox.reading.conversation import conversation_texts
from sandbox.reading.exchange_detail import text_parts, unused_texts
from sandbox.reading.search_hits import Hit, RunHits, run_hits
from sandbox.viewer.catalog import RunCatalog
from storage.database import one_line
from storage.errors import InputError, StorageFault, damage_reported
from storage.reader import Reader
from storage.search import terms

LIMIT = 1_000
"""Of each run, only the latest that many matches are counted."""

SECONDS = 2.0
"""After this time no further run is searched; the page says which are left out."""

_SHOWN = 3  # exchanges of a run


class Match(NamedTuple):
    """A run with matches.

    Attributes:
        key: its name in URLs.
        found: the numbers and the first exchanges.
        texts: of each of these exchanges, the places and texts that were searched.
    """

    key: str
    found: RunHits
    texts: Sequence[Sequence[tuple[str, str | None]]]


class SearchResult(NamedTuple):
    """What a search found: runs with matches, those with the phrase and with most first.

    Attributes:
        matches: the runs with matches.
        without: the keys of the runs without.
        left_out: the keys of the runs that were not searched for want of time.
        faults: by key, why a run cannot be read.
    """

    matches: Sequence[Match]
    without: Sequence[str]
    left_out: Sequence[str]
    faults: dict[str, str]


def search_runs(catalog: RunCatalog, text: str, seconds: float = SECONDS) -> SearchResult:
    """Find the exchanges of all runs that match a search; see `storage.search`.

    Args:
        catalog: the runs.
        text: the query.
        seconds: when they are over, the rest of the runs is left out.

    Raises:
        InputError: the query has too many words.
    """
    terms(text)
    until = time.monotonic() + seconds
    faults: dict[str, str] = {}
    matches: list[Match] = []
    without: list[str] = []
    left_out: list[str] = []
    for entry in catalog.entries():
        if entry.problem is not None:
            faults[entry.key] = entry.problem
        elif time.monotonic() > until:
            left_out.append(entry.key)
        else:
            try:
                with damage_reported(str(entry.address)):
                    match = _search(entry.key, catalog.reader(entry), text)
                matches += [match] if match.found.total else []
                without += [] if match.found.total else [entry.key]
            except (InputError, StorageFault, DBAPIError) as error:
                faults[entry.key] = one_line(error)
    matches.sort(key=lambda one: (-one.found.phrases, -one.found.total))
    return SearchResult(matches, without, left_out, faults)


def _search(key: str, reader: Reader, text: str) -> Match:
    found = run_hits(reader, text, LIMIT, _SHOWN)
    return Match(key, found, [list(_texts(reader, hit)) for hit in found.hits])


def _texts(reader: Reader, hit: Hit) -> Iterator[tuple[str, str | None]]:
    number = hit.exchange.episode
    said = conversation_texts(reader, [number]).get(number, ())
    replies = reader.calls_of([number]).get(number, ())
    return chain(text_parts(hit.exchange), said, unused_texts(replies))
