"""Lists of exchanges: filtered, ordered, searched, streamed, and compared across runs."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from agents.scale import Declaration
from sandbox.reading.conversation import conversation_texts
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.excerpts import Excerpt, find_excerpt
from sandbox.reading.exchange_detail import text_parts, unused_texts
from sandbox.reading.records import PAGES_ONLY, Page, Record, page_number
from storage import tables
from storage.exchanges import (
    Exchange,
    exchanges_of,
    int_if_whole,
    snapshot,
)
from storage.reader import Reader
from storage.search import Term, matches_words, terms

EXCERPT = 90
"""Maximum length of the excerpt of an exchange that a search found, in characters."""

PAGE = 50
"""Rows on a page of a list."""


SEARCHED = 10_000
"""A search without other filters covers the latest matches only, at most this many exchanges."""


_STREAMED = 500  # exchanges per transaction: a slow download must not block writers


class Limits(NamedTuple):
    """Only exchanges with a measure (or `SPREAD`) between two numbers; None: no limit."""

    measure: str
    low: float | None
    high: float | None


SPREAD = "spread"
"""The highest rating that peers gave in an exchange minus the lowest."""


@dataclass(frozen=True, kw_only=True)
class ExchangeFilter:
    """Which exchanges a list shows, and in which order.

    Attributes:
        round, author: only this round, this author.
        first_round, last_round: only rounds from this one, up to this one.
        rater: only exchanges that this agent rated.
        label: only authors with this starting demographic.
        question: only exchanges that ask the same as the question with this number.
        model: only exchanges in which this model took part.
        kind: one of `kinds`.
        scale: the scale on which `kind` is judged; None: the main scale.
        limits: limits of measures.
        search: only exchanges that contain this; see `storage.search`.
        order: one of `orders`; with a minus before it, the highest first.
    """

    round: int | None = None
    first_round: int | None = None
    last_round: int | None = None
    author: int | None = None
    rater: int | None = None
    label: str | None = None
    question: int | None = None
    model: str | None = None
    kind: str | None = None
    scale: str | None = None
    limits: tuple[Limits, ...] = ()
    search: str | None = None
    order: str = "-number"

    @property
    def search_only(self) -> bool:
        """Whether the search is the only filter."""
        others = replace(self, search=None, order=ExchangeFilter.order)
        return self.search is not None and others == ExchangeFilter()


@dataclass(frozen=True, kw_only=True)
class ExchangeRow(Record):
    """An exchange in a list.

    Attributes:
        episode: its number within the run.
        scores: by observer scale, the ratings of the stages in order; None where missing.
        mean_rating: the mean of the peers' ratings.
        failed_at: the prompt template that got no usable reply; None: it did not fail.
        complete: whether it is final.
        author, name, label: of the agent whose episode it is; None for an episode without author.
        ratings_read, ratings_missing: the number of peers' ratings that were parsed, and that were
            not.
    """

    episode: int
    round: int
    question: str
    mean_rating: float | None
    scores: Mapping[str, Sequence[float | None]]
    failed_at: str | None
    author: int | None = field(metadata=PAGES_ONLY)
    name: str | None = field(metadata=PAGES_ONLY)
    label: str | None = field(metadata=PAGES_ONLY)
    complete: bool = field(metadata=PAGES_ONLY)
    ratings_read: int = field(metadata=PAGES_ONLY)
    ratings_missing: int = field(metadata=PAGES_ONLY)


@dataclass(frozen=True, kw_only=True)
class FoundExchange(Record):
    """An exchange that a search or a round selects, with the texts of its stages.

    Attributes:
        found: where the search found something first; None without a search.
    """

    episode: int
    round: int
    question: str
    mean_rating: float | None
    scores: Mapping[str, Sequence[float | None]]
    failed_at: str | None
    author: int | None
    found: Excerpt | None
    texts: Mapping[str, str | None]


NUMBER = "number"


def orders(declared: Declaration) -> list[str]:
    """What a list of exchanges can be sorted by: the number, or a measure."""
    return [NUMBER, *(measure.name for measure in declared.measures)]


def kinds(declared: Declaration) -> list[str]:
    """The kinds of exchanges: by the gain on a scale, and by what is missing."""
    gains = ["rose", "equal", "fell"] if gain_scales(declared) else []
    missing = ["missing ratings"] if declared.peers is not None else []
    return [*gains, "failed", *missing, "in play"]


def gain_scales(declared: Declaration) -> list[str]:
    """The names of the scales that have a gain: at least two stages are rated on them."""
    return [scale.name for scale in declared.observed if declared.gain(scale) is not None]


def limited_measures(declared: Declaration) -> list[str]:
    """What `Limits` can be about: all measures, and the spread where peers rate."""
    spread = [SPREAD] if declared.peers is not None else []
    return [*(measure.name for measure in declared.measures), *spread]


def kind_counts(reader: Reader) -> dict[tuple[str, str | None], int]:
    """The number of exchanges by kind and scale, over the whole run; failed ones without a scale.

    From the summaries, which have a few rows for each round.
    """
    o, declared = tables.outcomes, declaration_of(reader)
    gains = {f"{name}_gain": name for name in gain_scales(declared)}
    query = (
        select(o.c.measure, o.c.outcome, func.sum(o.c.n).label("n"))
        .where(o.c.run_id == reader.run.id, o.c.measure.in_([*gains, "episode"]))
        .group_by(o.c.measure, o.c.outcome)
    )
    counts: dict[tuple[str, str | None], int] = {}
    for measure, outcome, n in reader.rows(query):
        if measure == "episode":
            kind = "failed" if outcome == "failed" else None
        else:
            kind = _kind_of(outcome)
        if kind is not None:
            key = kind, gains.get(measure)
            counts[key] = counts.get(key, 0) + int(n)
    return counts


def _kind_of(outcome: str) -> str | None:
    """The kind of an outcome of a gain; None for the status of a missing one."""
    try:
        gain = float(outcome)
    except ValueError:
        return None
    return "rose" if gain > 0 else "fell" if gain < 0 else "equal"


def exchange_page(reader: Reader, wanted: ExchangeFilter, page: int = 1, size: int = PAGE) -> Page:
    """A page of the exchanges that match a filter, as `ExchangeRow`s.

    Raises:
        KeyError: the run has no such kind or order.
    """
    declared, ids = declaration_of(reader), measure_ids(reader)
    conditions = _conditions(reader, wanted, declared, ids, SEARCHED)
    total = int(reader.scalar(select(func.count(_e.c.id)).where(*conditions)))
    page, pages = page_number(page, total, size)
    start = (page - 1) * size
    name, descending = wanted.order.removeprefix("-"), wanted.order.startswith("-")
    if name == NUMBER:
        page_ids = _ids(reader, _by_number(conditions, descending).limit(size).offset(start))
    else:
        page_ids = _by_score(reader, conditions, ids[name], descending, start, size)
    return Page(exchange_rows(reader, page_ids, declared), total, start + 1, page, pages)


def exchange_numbers(reader: Reader, wanted: ExchangeFilter) -> Sequence[int]:
    """The numbers of all exchanges that match a filter, in its order, without their texts.

    Raises:
        KeyError: the run has no such kind or order.
    """
    declared, ids = declaration_of(reader), measure_ids(reader)
    conditions = _conditions(reader, wanted, declared, ids, SEARCHED)
    name, descending = wanted.order.removeprefix("-"), wanted.order.startswith("-")
    if name == NUMBER:
        query = _by_number(conditions, descending)
    else:
        score = (_s.c.measure_id == ids[name]) & (_s.c.episode_id == _e.c.id)
        value = _s.c.value.desc() if descending else _s.c.value
        query = (
            select(_e.c.id)
            .outerjoin(_s, score)
            .where(*conditions)
            .order_by(_s.c.value.is_(None), value, _e.c.id)
        )
    with reader.engine.connect() as connection:
        return array("q", [number - reader.base for number in connection.scalars(query)])


_e, _s = tables.episodes, tables.scores


def _ids(reader: Reader, query: Select[Any]) -> list[int]:
    return [row.id for row in reader.rows(query)]


def _by_number(conditions: Sequence[ColumnElement[bool]], descending: bool) -> Select[Any]:
    return select(_e.c.id).where(*conditions).order_by(_e.c.id.desc() if descending else _e.c.id)


def _by_score(
    reader: Reader,
    conditions: Sequence[ColumnElement[bool]],
    measure: int,
    descending: bool,
    start: int,
    size: int,
) -> list[int]:
    """The ids on a page of a list that is sorted by a measure, episodes without a score last.

    Scores are scanned by measure; episodes without a score are queried only for pages after them.
    """
    scored = (_s.c.measure_id == measure, _s.c.episode_id == _e.c.id)
    value = _s.c.value.desc() if descending else _s.c.value
    query = select(_e.c.id).where(*conditions, *scored).order_by(value, _e.c.id)
    page_ids = _ids(reader, query.limit(size).offset(start))
    if len(page_ids) == size:
        return page_ids
    count = int(reader.scalar(select(func.count(_e.c.id)).where(*conditions, *scored)))
    without = ~select(_s.c.episode_id).where(*scored).correlate(_e).exists()
    query = select(_e.c.id).where(*conditions, without).order_by(_e.c.id)
    rest = query.limit(size - len(page_ids)).offset(max(0, start - count))
    return page_ids + _ids(reader, rest)


def _conditions(
    reader: Reader,
    wanted: ExchangeFilter,
    declared: Declaration,
    ids: Mapping[str, int],
    newest: int | None,
) -> list[ColumnElement[bool]]:
    """The conditions of a filter on `episodes`.

    With `newest`, a search without other filters is limited to that many of the latest matches.
    """
    conditions = [_e.c.run_id == reader.run.id, *_of_episode(wanted)]
    if wanted.rater is not None:
        r = tables.ratings
        conditions.append(_e.c.id.in_(select(r.c.episode_id).where(r.c.rater == wanted.rater)))
    if wanted.label is not None:
        a = tables.agents
        authors = select(a.c.number).where(a.c.run_id == reader.run.id, a.c.label == wanted.label)
        conditions.append(_e.c.author.in_(authors))
    if wanted.question is not None:
        conditions.append(_e.c.question_id.in_(_same_question(reader, wanted.question)))
    if wanted.model is not None:
        conditions.append(_e.c.id.in_(_with_model(reader, wanted.model)))
    if wanted.kind is not None:
        conditions.append(_kind_condition(wanted, declared, ids))
    conditions += [_e.c.id.in_(_within(reader, limits, ids)) for limits in wanted.limits]
    if wanted.search is not None:
        limit = newest if wanted.search_only else None
        conditions.append(matches_words(reader, _e.c.id, wanted.search, limit))
    return conditions


def _of_episode(wanted: ExchangeFilter) -> Iterator[ColumnElement[bool]]:
    """The conditions on columns of the episode itself."""
    if wanted.round is not None:
        yield _e.c.round == wanted.round
    if wanted.first_round is not None:
        yield _e.c.round >= wanted.first_round
    if wanted.last_round is not None:
        yield _e.c.round <= wanted.last_round
    if wanted.author is not None:
        yield _e.c.author == wanted.author


def _same_question(reader: Reader, number: int) -> Select[Any]:
    """The ids of the questions with the same text as one of them."""
    q, one = tables.questions, tables.questions.alias()
    return (
        select(q.c.id)
        .join(one, one.c.text_id == q.c.text_id)
        .where(q.c.run_id == reader.run.id, one.c.id == reader.base + number)
    )


def _with_model(reader: Reader, name: str) -> Select[Any]:
    """The ids of the episodes of calls to a model."""
    c, m = tables.calls, tables.models
    models = select(m.c.id).where(m.c.run_id == reader.run.id, m.c.name == name)
    return select(c.c.episode_id).where(c.c.model_id.in_(models))


def _within(reader: Reader, limits: Limits, ids: Mapping[str, int]) -> Select[Any]:
    """The ids of the episodes within limits; an episode without a value is never within them."""
    if limits.measure == SPREAD:
        r = tables.ratings
        spread = func.max(r.c.rating) - func.min(r.c.rating)
        own = select(r.c.episode_id).where(reader.belongs_to_run(r.c.episode_id))
        return own.group_by(r.c.episode_id).having(*_between(spread, limits))
    scores = select(_s.c.episode_id).where(_s.c.measure_id == ids[limits.measure])
    return scores.where(*_between(_s.c.value, limits))


def _between(value: ColumnElement[Any], limits: Limits) -> Iterator[ColumnElement[bool]]:
    if limits.low is not None:
        yield value >= limits.low
    if limits.high is not None:
        yield value <= limits.high


def _kind_condition(
    wanted: ExchangeFilter, declared: Declaration, ids: Mapping[str, int]
) -> ColumnElement[bool]:
    value = _s.c.value
    gains = {"rose": value > 0, "equal": value == 0, "fell": value < 0}
    if wanted.kind in gains:
        scale = wanted.scale or gain_scales(declared)[0]
        gain = select(_s.c.episode_id).where(_s.c.measure_id == ids[f"{scale}_gain"])
        return _e.c.id.in_(gain.where(gains[wanted.kind]))
    others: dict[str, ColumnElement[bool]] = {
        "failed": _e.c.failed_at.is_not(None),
        "missing ratings": _e.c.ratings_missing > 0,
        "in play": _e.c.observed.is_(False),
    }
    return others[wanted.kind or ""]


def exchange_rows(reader: Reader, ids: Sequence[int], declared: Declaration) -> list[ExchangeRow]:
    """The rows of a list of exchanges, in the order of the given ids.

    Args:
        reader: the run.
        ids: in the database.
        declared: the run's declaration.
    """
    q, t, a = tables.questions, tables.texts, tables.agents
    query = (
        select(_e, t.c.text.label("question"), a.c.persona, a.c.label)
        .join(q, q.c.id == _e.c.question_id)
        .join(t, t.c.id == q.c.text_id)
        .outerjoin(a, (a.c.run_id == _e.c.run_id) & (a.c.number == _e.c.author))
    )
    rows: dict[int, Any] = {}
    scores: dict[int, dict[str, float]] = {}
    for batch in _batches(ids):
        rows.update((row.id, row) for row in reader.rows(query.where(_e.c.id.in_(batch))))
        for episode, name, value in _scores(reader, batch):
            scores.setdefault(episode, {})[name] = value
    return [
        _exchange_row(reader, rows[number], scores.get(number, {}), declared)
        for number in ids
        if number in rows
    ]


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _STREAMED] for start in range(0, len(ids), _STREAMED))


def _scores(reader: Reader, episodes: Sequence[int]) -> Iterator[tuple[int, str, float]]:
    names = {number: name for name, number in measure_ids(reader).items()}
    query = select(_s.c.episode_id, _s.c.measure_id, _s.c.value).where(
        _s.c.measure_id.in_(names), _s.c.episode_id.in_(episodes)
    )
    for episode, measure, value in reader.rows(query):
        yield episode, names[measure], float(value)


def _exchange_row(
    reader: Reader, row: Any, scores: Mapping[str, float], declared: Declaration
) -> ExchangeRow:
    peers = declared.peers
    return ExchangeRow(
        episode=row.id - reader.base,
        round=row.round,
        question=row.question,
        mean_rating=None if peers is None else scores.get(peers.name),
        scores={
            scale.name: [
                int_if_whole(scores.get(f"{stage}_{scale.name}"))
                for stage in declared.stages_of(scale)
            ]
            for scale in declared.observed
        },
        failed_at=row.failed_at,
        author=row.author,
        name=None if row.persona is None else str(json.loads(row.persona)["name"]),
        label=row.label,
        complete=bool(row.observed),
        ratings_read=row.ratings_read or 0,
        ratings_missing=row.ratings_missing or 0,
    )


def stream_exchanges(reader: Reader, wanted: ExchangeFilter) -> Iterator[Exchange]:
    """Yield all exchanges that match a filter, by number; each batch is a separate transaction."""
    declared = declaration_of(reader)
    conditions = _conditions(reader, wanted, declared, measure_ids(reader), None)
    last = -1
    while True:
        with snapshot(reader) as connection:
            ids = select(_e.c.id).where(*conditions, _e.c.id > last).order_by(_e.c.id)
            batch = connection.scalars(ids.limit(_STREAMED)).all()
            exchanges = list(exchanges_of(reader, connection, batch))
        yield from exchanges
        if not batch:
            return
        last = batch[-1]


def found_exchanges(
    reader: Reader, search: str | None, round: int | None, limit: int
) -> list[FoundExchange]:
    """Find exchanges by a search (see `storage.search`) and by round, in order.

    Args:
        reader: the run.
        search: only exchanges that contain this; those still being played are not searched.
        round: only this round.
        limit: the maximum number of exchanges.
    """
    declared = declaration_of(reader)
    wanted = ExchangeFilter(round=round, search=search, order=NUMBER)
    conditions = _conditions(reader, wanted, declared, {}, None)
    query = _by_number(conditions, descending=False).limit(limit)
    searched = terms(search or "")
    with snapshot(reader) as connection:
        ids = connection.scalars(query).all()
        exchanges = list(exchanges_of(reader, connection, ids))
    return [
        _found_exchange(exchange, declared, _excerpt(reader, exchange, searched))
        for exchange in exchanges
    ]


def _excerpt(reader: Reader, exchange: Exchange, searched: Sequence[Term]) -> Excerpt | None:
    """Where a search found something in an exchange, or in replies that are no part of it."""
    if not searched:
        return None
    said = conversation_texts(reader, [exchange.episode]).get(exchange.episode, ())
    found = find_excerpt((*text_parts(exchange), *said), searched, EXCERPT)
    if found is not None:
        return found
    replies = reader.calls_of([exchange.episode]).get(exchange.episode, ())
    return find_excerpt(unused_texts(replies), searched, EXCERPT)


def _found_exchange(
    exchange: Exchange, declared: Declaration, found: Excerpt | None
) -> FoundExchange:
    return FoundExchange(
        episode=exchange.episode,
        round=exchange.round,
        question=exchange.question,
        mean_rating=exchange.mean_rating,
        scores={
            scale.name: [exchange.score(stage, scale.name) for stage in declared.stages_of(scale)]
            for scale in declared.observed
        },
        failed_at=exchange.failed_at,
        author=exchange.author,
        found=found,
        texts=exchange.texts,
    )


def search_page(reader: Reader, search: str, page: int, size: int) -> tuple[Page, list[Exchange]]:
    """A page of the exchanges that match a search, and the same exchanges with their texts."""
    matches = exchange_page(reader, ExchangeFilter(search=search), page, size)
    with snapshot(reader) as connection:
        ids = [reader.base + row.episode for row in matches.rows]
        return matches, list(exchanges_of(reader, connection, ids))


@dataclass(frozen=True, kw_only=True)
class ExchangePair(Record):
    """An exchange that two runs have in common, and its main score in both."""

    episode: int
    round: int
    question: str
    before: float
    after: float


def furthest_apart(first: Reader, second: Reader, limit: int = 12) -> list[ExchangePair]:
    """The exchanges with the same number and question whose main scores differ most.

    The score is the final measure of the first run's main scale; the list is empty if the second
    run does not have it.
    """
    declared = declaration_of(first)
    final = None if declared.main is None else declared.final(declared.main)
    if final is None or first.run.per_round != second.run.per_round:
        return []
    before, after = (_main_scores(reader, final.name) for reader in (first, second))
    differences = [
        (abs(after[number][0] - score), number)
        for number, (score, source) in before.items()
        if number in after and after[number][1] == source
    ]
    largest = sorted(
        (pair for pair in differences if pair[0]), key=lambda pair: (-pair[0], pair[1])
    )
    numbers = [number for _, number in largest[:limit]]
    rows = exchange_rows(first, [first.base + number for number in numbers], declared)
    return [
        ExchangePair(
            episode=row.episode,
            round=row.round,
            question=row.question,
            before=before[row.episode][0],
            after=after[row.episode][0],
        )
        for row in rows
    ]


def _main_scores(reader: Reader, measure: str) -> dict[int, tuple[float, str | None]]:
    """A measure and the question's source, by the number of the episode."""
    q, ids = tables.questions, measure_ids(reader)
    if measure not in ids:
        return {}
    query = (
        select(_e.c.id, _s.c.value, q.c.source)
        .join(q, q.c.id == _e.c.question_id)
        .where(_s.c.measure_id == ids[measure], _s.c.episode_id == _e.c.id)
    )
    return {row[0] - reader.base: (float(row[1]), row[2]) for row in reader.rows(query)}
