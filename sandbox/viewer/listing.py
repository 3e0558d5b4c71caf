"""Lists of exchanges and of calls: filters that live in the address, an order, a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from agents.forms import Status
from sandbox.reading.figures import named
from sandbox.viewer.addresses import Query
from storage import tables
from storage.exchanges import Exchange, exchanges_of, snapshot
from storage.reader import Reader
from storage.search import says
from storage.tables import first_id

Row = dict[str, Any]

PAGE = 50
_EXPORTED = 500  # rows at a time: a slow reader of an export holds no lock

_e = tables.episodes
_RISE = _e.c.revision_alignment - _e.c.draft_alignment

ORDERS: Mapping[str, tuple[ColumnElement[Any], ...]] = {
    "newest": (_e.c.id.desc(),),
    "oldest": (_e.c.id,),
    "rise": (_RISE.desc().nulls_last(), _e.c.id),
    "fall": (_RISE.asc().nulls_last(), _e.c.id),
    "best": (_e.c.revision_alignment.desc().nulls_last(), _e.c.id),
    "worst": (_e.c.revision_alignment.asc().nulls_last(), _e.c.id),
    "peers": (_e.c.mean_rating.desc().nulls_last(), _e.c.id),
}
"""Orders of exchanges: by number, by the rise of alignment, by the revision's alignment, by the
mean of the peers' ratings."""

KINDS: Mapping[str, ColumnElement[bool]] = {
    "rose": _RISE > 0,
    "equal": _RISE == 0,
    "fell": _RISE < 0,
    "failed": _e.c.failed_at.is_not(None),
    "missing ratings": _e.c.ratings_missing > 0,
    "in play": _e.c.observed.is_(False),
}
"""Kinds of exchanges: by what became of alignment, and by what is missing."""


def exchange_filter(
    reader: Reader, query: Query, newest: int | None = None
) -> list[ColumnElement[bool]]:
    """The conditions of an address on `episodes`: q, round, author, rater, label, kind.

    With `newest` a search for words alone looks through so many that say them, the latest.
    """
    conditions = [_e.c.run_id == reader.run.id]
    for name in ("round", "author"):
        number = query.number(name)
        if number is not None:
            conditions.append(_e.c[name] == number)
    rater, label = query.number("rater"), query.text("label")
    r, a = tables.ratings, tables.agents
    if rater is not None:
        conditions.append(_e.c.id.in_(select(r.c.episode_id).where(r.c.rater == rater)))
    if label is not None:
        alike = select(a.c.number).where(a.c.run_id == reader.run.id, a.c.label == label)
        conditions.append(_e.c.author.in_(alike))
    kind = query.choice("kind", KINDS)
    if kind is not None:
        conditions.append(KINDS[kind])
    said = query.text("q")
    if said is not None:
        conditions.append(says(reader, _e.c.id, said, newest if _only_words(query) else None))
    return conditions


MOST = 10_000
"""So many exchanges, the latest, does a page of a search for words alone look through."""


def _only_words(query: Query) -> bool:
    return not {"round", "author", "rater", "label", "kind"} & query.values.keys()


class Listed(NamedTuple):
    """A page of a list.

    Attributes:
        rows: as they are shown.
        total: how many the filters leave.
        first: the place of the first row in the list, from 1.
        page: its number, from 1.
        pages: how many there are.
    """

    rows: list[Row]
    total: int
    first: int
    page: int
    pages: int

    @classmethod
    def of(cls, rows: Sequence[Row], query: Query, size: int = PAGE) -> Listed:
        """The page of rows that an address asks for."""
        page, pages = _page(query, len(rows), size)
        start = (page - 1) * size
        return cls(list(rows[start : start + size]), len(rows), start + 1, page, pages)


def _page(query: Query, total: int, size: int) -> tuple[int, int]:
    """The page that is asked for, or the last one, and how many there are."""
    pages = max(1, -(-total // size))
    return min(query.number("page", 1) or 1, pages), pages


def exchange_page(reader: Reader, query: Query, size: int = PAGE) -> Listed:
    """The exchanges that an address asks for, so many on a page."""
    conditions = exchange_filter(reader, query, MOST)
    order = ORDERS[query.choice("order", ORDERS) or "newest"]
    total = int(reader.scalar(select(func.count()).select_from(_e).where(*conditions)))
    page, pages = _page(query, total, size)
    start = (page - 1) * size
    ids = select(_e.c.id).where(*conditions).order_by(*order).limit(size).offset(start)
    rows = _lines(reader, [row.id for row in reader.rows(ids)])
    return Listed(rows, total, start + 1, page, pages)


def _lines(reader: Reader, ids: Sequence[int]) -> list[Row]:
    """What a list shows of exchanges, in the order of their ids."""
    q, t, a = tables.questions, tables.texts, tables.agents
    query = (
        select(_e, t.c.text.label("question"), a.c.persona, a.c.label)
        .join(q, q.c.id == _e.c.question_id)
        .join(t, t.c.id == q.c.text_id)
        .outerjoin(a, (a.c.run_id == _e.c.run_id) & (a.c.number == _e.c.author))
        .where(_e.c.id.in_(ids))
    )
    found = {
        row.id: {
            **row._mapping,
            "episode": row.id - reader.base,
            "name": row.persona and named(row.persona),
        }
        for row in reader.rows(query)
    }
    return [found[number] for number in ids if number in found]


def exported(reader: Reader, query: Query) -> Iterator[Exchange]:
    """All exchanges that an address asks for, by number; each batch is a reading of its own."""
    conditions = exchange_filter(reader, query)
    last = -1
    while True:
        with snapshot(reader) as connection:
            ids = select(_e.c.id).where(*conditions, _e.c.id > last).order_by(_e.c.id)
            some = connection.scalars(ids.limit(_EXPORTED)).all()
            found = list(exchanges_of(reader, connection, some))
        yield from found
        if not some:
            return
        last = some[-1]


STATUSES = tuple(status.value for status in Status)


def call_filter(reader: Reader, query: Query) -> list[ColumnElement[bool]]:
    """The conditions of an address on `calls`: form, status, agent, round, before, after."""
    c, f = tables.calls, tables.forms
    conditions: list[ColumnElement[bool]] = []
    form, agent, round = query.text("form"), query.number("agent"), query.number("round")
    if form is not None:
        mine = select(f.c.id).where(f.c.run_id == reader.run.id, f.c.name == form)
        conditions.append(c.c.form_id.in_(mine))
    if agent is not None:
        conditions.append(c.c.agent == agent)
    if round is not None:
        first = reader.base + round * reader.run.per_round
        conditions.append(c.c.episode_id.between(first, first + reader.run.per_round - 1))
    before, after = query.number("before"), query.number("after")
    low = reader.base if after is None else reader.base + after + 1
    high = first_id(reader.run.id + 1) if before is None else reader.base + before
    conditions.append(_order(query).between(low, high - 1))
    status = query.choice("status", (*STATUSES, "not ok"))
    if status == "not ok":
        conditions.append(c.c.status != "ok")
    elif status is not None:
        conditions.append(c.c.status == status)
    if status not in (None, "ok"):
        conditions.append(c.c.status != "ok")  # so that the index of these serves
    return conditions


def _order(query: Query) -> ColumnElement[Any]:
    """What calls are sorted by: their id.

    Of one round a sum: so its episodes are looked up, in place of the whole journal.
    """
    column = tables.calls.c.id
    return column if query.number("round") is None else column + 0


class Stretch(NamedTuple):
    """A stretch of the journal: rows, and the numbers to go on from (None: there is no more)."""

    rows: list[Row]
    before: int | None
    after: int | None


def call_stretch(reader: Reader, query: Query) -> Stretch:
    """The calls that an address asks for, the latest first; `before` and `after` are call numbers.

    A journal of a million calls is not counted and not skipped through: each stretch begins where
    the one before ended.
    """
    c, f, m = tables.calls, tables.forms, tables.models
    before, after = query.number("before"), query.number("after")
    columns = (c.c.id, c.c.episode_id, c.c.agent, c.c.turn, c.c.attempt, c.c.status, c.c.error)
    costs = (c.c.tokens_in, c.c.tokens_out, c.c.cached_tokens, c.c.took, c.c.memory_id)
    order = _order(query)
    wanted: Select[Any] = (
        select(*columns, *costs, c.c.distance, f.c.name.label("form"), m.c.name.label("model"))
        .join(f, f.c.id == c.c.form_id)
        .join(m, m.c.id == c.c.model_id)
        .where(*call_filter(reader, query))
        .order_by(order.desc() if after is None else order)
        .limit(PAGE + 1)
    )
    found = [_call_line(reader, row) for row in reader.rows(wanted)]
    more, rows = len(found) > PAGE, found[:PAGE]
    if after is not None:
        rows.reverse()
    older = more if after is None else bool(rows)
    newer = more if after is not None else before is not None
    return Stretch(
        rows,
        rows[-1]["call"] if rows and older else None,
        rows[0]["call"] if rows and newer else None,
    )


def _call_line(reader: Reader, row: Any) -> Row:
    episode = row.episode_id - reader.base
    return {
        **row._mapping,
        "call": row.id - reader.base,
        "episode": episode,
        "round": episode // reader.run.per_round,
    }
