"""Agents: all of them in a list, and one with what it believes, was told, gave and got."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import func, select

from agents.memory import PRIOR
from sandbox.reading import views
from sandbox.reading.figures import SCALES, named
from sandbox.viewer.addresses import Query
from sandbox.viewer.listing import Listed
from storage import tables
from storage.errors import NotThere
from storage.exchanges import exchanges_of, snapshot
from storage.reader import Reader
from storage.search import Term, terms

Row = dict[str, Any]

COLUMNS = (
    *("agent", "label", "name", "age", "place", "occupation", "got", "alignment", "rise"),
    *("failed", "episodes", "gave", "deviation", "missing", "given", "memories"),
)
"""What is known of an agent in a list."""

ORDERS = ("number", "name", "label", "got", "gave", "deviation", "alignment", "rise", "memories")
"""What agents can be sorted by; all but the first three the highest first."""


def agent_rows(reader: Reader, query: Query) -> list[Row]:
    """The agents that an address asks for (q, label), in its order, each with its figures."""
    wanted = _wanted(reader, query.text("q") or "", query.text("label"))
    got, gave, held = _got(reader), _gave(reader), views.memory_counts(reader)
    rows = [
        {
            **{"agent": row.number, "label": row.label, **_who(row.persona)},
            **got.get(row.number, _NOTHING_GOT),
            **gave.get(row.number, _NOTHING_GAVE),
            "memories": held.get(row.number, 0),
        }
        for row in wanted
    ]
    return _ordered(rows, query.choice("order", ORDERS) or "number")


def found_agents(reader: Reader, said: str, most: int) -> list[Row]:
    """The first agents whose persona says something."""
    rows = islice(_wanted(reader, said, None), most)
    return [{"agent": row.number, "label": row.label, **_who(row.persona)} for row in rows]


def _wanted(reader: Reader, said: str, label: str | None) -> Iterator[Any]:
    a, wish = tables.agents, terms(said)
    wanted = select(a.c.number, a.c.label, a.c.persona).where(a.c.run_id == reader.run.id)
    if label is not None:
        wanted = wanted.where(a.c.label == label)
    for term in wish:
        if all(word.isascii() for word in term.words):  # of others SQLite knows no lower case
            wanted = wanted.where(a.c.persona.ilike(_like(term)))
    for row in reader.rows(wanted.order_by(a.c.number)):
        if not wish or _says(wish, _values(row.persona)):
            yield row


def _like(term: Term) -> str:
    """What the database can tell: its words come after each other."""
    return f"%{'%'.join(term.words)}%"


def _values(persona: str) -> str:
    """What a persona says, without the names of its fields."""
    values = json.loads(persona).values()
    return "\n".join(
        ", ".join(value) if isinstance(value, list) else str(value) for value in values
    )


def _who(persona: str) -> Row:
    data = json.loads(persona)
    return {name: data[name] for name in ("name", "age", "place", "occupation")}


def _ordered(rows: list[Row], order: str) -> list[Row]:
    if order == "number":
        return rows
    if order in ("name", "label"):
        return sorted(rows, key=lambda row: (str(row[order]), row["agent"]))
    return sorted(rows, key=lambda row: (row[order] is None, -(row[order] or 0), row["agent"]))


def agent_page(reader: Reader, query: Query) -> Listed:
    """A page of `agent_rows`."""
    return Listed.of(agent_rows(reader, query), query)


_NOTHING_GOT: Row = {"got": None, "alignment": None, "rise": None, "failed": 0, "episodes": 0}
_NOTHING_GAVE: Row = {"gave": None, "deviation": None, "missing": 0, "given": 0}


def _got(reader: Reader) -> dict[int, Row]:
    """How an agent's own exchanges went, by its number: means over all of them."""
    e = tables.episodes
    rise = func.avg(e.c.revision_alignment - e.c.draft_alignment)
    peers = func.sum(e.c.mean_rating * e.c.ratings_read) / func.nullif(
        func.sum(e.c.ratings_read), 0
    )
    query = (
        select(
            e.c.author,
            peers.label("got"),
            func.avg(e.c.revision_alignment).label("alignment"),
            rise.label("rise"),
            func.count(e.c.failed_at).label("failed"),
            func.count().label("episodes"),
        )
        .where(e.c.run_id == reader.run.id, e.c.author.is_not(None))
        .group_by(e.c.author)
    )
    return {
        author: {
            **dict(zip(("got", "alignment", "rise"), map(_float, values[:3]), strict=True)),
            **dict(zip(("failed", "episodes"), values[3:], strict=True)),
        }
        for author, *values in reader.rows(query)
    }


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _gave(reader: Reader) -> dict[int, Row]:
    """How an agent rated others, by its number; see `sandbox.reading.figures.biases`."""
    r = tables.rater_sums
    sums = (r.c.ratings, r.c.missing, r.c.total, r.c.compared, r.c.deviation)
    query = select(r.c.rater, *map(func.sum, sums)).where(r.c.run_id == reader.run.id)
    return {
        rater: {
            "gave": int(total) / (int(given) - int(missing)) if given > missing else None,
            "deviation": apart / int(compared) if compared else None,
            "missing": int(missing),
            "given": int(given),
        }
        for rater, given, missing, total, compared, apart in reader.rows(query.group_by(r.c.rater))
    }


def one(reader: Reader, number: int) -> Row:
    """Who an agent is.

    Raises:
        InputError: there is no such agent.
    """
    a = tables.agents
    query = select(a).where(a.c.run_id == reader.run.id, a.c.number == number)
    row = reader.first(query)
    if row is None:
        count = reader.scalar(select(func.count()).where(a.c.run_id == reader.run.id))
        there = f"expected 0 to {count - 1}" if count else "its scenes invent their people"
        raise NotThere(f"agent {number}: no such agent; {there}")
    links = [] if row.neighbours is None else [int(link) for link in row.neighbours.split(",")]
    return {**row._mapping, "persona": json.loads(row.persona), "links": links}


def beliefs(reader: Reader, number: int, query: Query) -> Listed:
    """A page of `believed`."""
    return Listed.of(believed(reader, number, query), query, _BELIEFS)


def believed(reader: Reader, number: int, query: Query) -> list[Row]:
    """What an agent believes as an address asks for it (q, round, only), the latest first.

    See `views.memory`.
    """
    rows = views.beliefs(reader, number, query.number("round"))
    said = terms(query.text("q") or "")
    if query.choice("only", ("changed", "learned", "prior")) is not None:
        rows = [row for row in rows if _kind(row, query.values["only"])]
    if said:
        rows = [row for row in rows if _says(said, f"{row['question']}\n{row['answer']}")]
    return rows


def _kind(row: Row, kind: str) -> bool:
    if kind == "changed":
        return row["was"] is not None and row["was"] != row["answer"]
    return (row["round"] is None) == (kind == "prior")


def _says(said: Sequence[Any], text: str) -> bool:
    return all(term.pattern.search(text) for term in said)


_LATEST = 6
_BELIEFS = 10  # on a page


def told(reader: Reader, number: int, round: int | None) -> list[Row]:
    """What others said of an agent's latest drafts, as of the end of a round."""
    e = tables.episodes
    query = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.author == number)
    if round is not None:
        query = query.where(e.c.round <= round)
    query = query.order_by(e.c.round.desc(), e.c.id.desc()).limit(_LATEST)
    with snapshot(reader) as connection:
        ids = connection.scalars(query).all()
        return [one._asdict() for one in exchanges_of(reader, connection, ids)]


def gave(reader: Reader, number: int) -> list[Row]:
    """The latest ratings that an agent gave, with the exchange that each is from."""
    r, e, t, a = tables.ratings, tables.episodes, tables.texts, tables.agents
    query = (
        select(r.c.rating, r.c.status, t.c.text.label("reason"), e.c.id, e.c.round, e.c.author)
        .add_columns(e.c.mean_rating, a.c.persona, a.c.label)
        .join(e, e.c.id == r.c.episode_id)
        .join(a, (a.c.run_id == e.c.run_id) & (a.c.number == e.c.author))
        .outerjoin(t, t.c.id == r.c.reason_id)
        .where(r.c.rater == number, reader.mine(r.c.episode_id))
        .order_by(r.c.episode_id.desc())
        .limit(_LATEST)
    )
    return [
        {**row._mapping, "episode": row.id - reader.base, "name": named(row.persona)}
        for row in reader.rows(query)
    ]


def rated_by(reader: Reader, number: int) -> list[Row]:
    """Who rated an agent's drafts, how often and how, the most frequent first."""
    r, e, a = tables.ratings, tables.episodes, tables.agents
    query = (
        select(r.c.rater, a.c.label, a.c.persona, func.count(), func.avg(r.c.rating))
        .add_columns(func.count() - func.count(r.c.rating))
        .select_from(e)
        .join(r, r.c.episode_id == e.c.id)
        .join(a, (a.c.run_id == e.c.run_id) & (a.c.number == r.c.rater + 0))
        .where(e.c.run_id == reader.run.id, e.c.author == number)
        .group_by(r.c.rater, a.c.label, a.c.persona)
        .order_by(func.count().desc(), r.c.rater)
    )
    return [
        {
            "agent": rater,
            "label": label,
            "name": named(persona),
            "ratings": n,
            "mean": _float(mean),
            "missing": missing,
        }
        for rater, label, persona, n, mean, missing in reader.rows(query)
    ]


def history(reader: Reader, number: int) -> list[Row]:
    """An agent's own scores: a row for each round, stage and scale."""
    e = tables.episodes
    scores = [(stage, scale) for scale in SCALES for stage in ("draft", "revision")]
    query = select(e.c.round, *(e.c[f"{stage}_{scale}"] for stage, scale in scores))
    query = query.where(e.c.run_id == reader.run.id, e.c.author == number).order_by(e.c.round)
    return [
        {"round": round, "stage": stage, "scale": scale, "score": value}
        for round, *values in reader.rows(query)
        for (stage, scale), value in zip(scores, values, strict=True)
        if value is not None
    ]


def priors(reader: Reader, query: str) -> list[Row]:
    """Prior memories that say something, each once, with how many agents were born with it."""
    m, q = tables.memories, tables.questions
    asked, answer = tables.texts.alias(), tables.texts.alias()
    wanted = (
        select(asked.c.text, answer.c.text, func.count(), func.min(m.c.agent))
        .select_from(m)
        .join(q, q.c.id == m.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .join(answer, answer.c.id == m.c.text_id)
        .where(m.c.run_id == reader.run.id, m.c.round == PRIOR)
        .group_by(asked.c.text, answer.c.text)
    )
    said = terms(query)
    for term in said:
        like = _like(term)
        wanted = wanted.where(asked.c.text.ilike(like) | answer.c.text.ilike(like))
    return [
        {"question": question, "answer": text, "agents": n, "agent": first}
        for question, text, n, first in reader.rows(wanted)
        if _says(said, f"{question}\n{text}")
    ]
