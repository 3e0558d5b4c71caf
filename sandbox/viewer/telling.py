"""What a page tells of an exchange: changed words, why memories were recalled, every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from sandbox.reading import views
from sandbox.reading.charts import Spec
from sandbox.reading.charts import recall as recall_chart
from sandbox.reading.recall import Candidate, candidates
from sandbox.reading.text_diff import changes
from storage import tables
from storage.errors import NotThere
from storage.exchanges import exchange
from storage.reader import Reader

Row = dict[str, Any]

_SHOWN = 8  # candidates


def exchange_page(reader: Reader, number: int) -> Row:
    """An exchange with the words that changed and its calls.

    Raises:
        InputError: there is no such exchange.
    """
    found = exchange(reader, number)
    if found is None:
        size = reader.run.rounds * reader.run.per_round
        raise NotThere(f"exchange {number}: not played; expected one of 0 to {size - 1} that is")
    return {
        "one": found,
        "changes": changes(found.draft, found.revision),
        "calls": _calls(reader, number),
        "neighbours": _neighbours(reader, number),
    }


def _calls(reader: Reader, number: int) -> list[Row]:
    base = reader.base
    return [
        {
            **call._asdict(),
            "number": call.call_id - base,
            "recalled": None if call.memory_id is None else call.memory_id - base,
        }
        for call in reader.journal(number)
    ]


def _neighbours(reader: Reader, number: int) -> tuple[int | None, int | None]:
    """The exchanges before and after, by number, of those that are recorded."""
    e = tables.episodes
    mine = select(e.c.id).where(e.c.run_id == reader.run.id).limit(1)
    before = reader.scalar(mine.where(e.c.id < reader.base + number).order_by(e.c.id.desc()))
    after = reader.scalar(mine.where(e.c.id > reader.base + number).order_by(e.c.id))
    return before and before - reader.base, after and after - reader.base


def call_page(reader: Reader, number: int) -> Row:
    """A call with its exact prompt, its seed, and what the agent could be reminded of.

    Raises:
        InputError: there is no such call.
    """
    return {"call": views.call(reader, number), "recall": recall(reader, number)}


def recall(reader: Reader, number: int) -> Row | None:
    """Why a call's prompt shows the memory that it does, or none; None where a form shows none."""
    c, e, f = tables.calls, tables.episodes, tables.forms
    q, t = tables.questions, tables.texts
    query = (
        select(c.c.agent, c.c.memory_id, c.c.distance, e.c.question_id, e.c.round, f.c.template)
        .add_columns(t.c.text)
        .join(f, f.c.id == c.c.form_id)
        .join(e, e.c.id == c.c.episode_id)
        .join(q, q.c.id == e.c.question_id)
        .join(t, t.c.id == q.c.text_id)
        .where(c.c.id == reader.base + number)
    )
    call = reader.first(query)
    if call is None:
        return None  # the episode is still being played
    if call.agent is None or "past" not in call.template:
        return None
    found = candidates(reader, call.agent, call.question_id, call.round)
    chosen = None if call.memory_id is None else call.memory_id - reader.base
    shown = [one for place, one in enumerate(found) if place < _SHOWN or one.memory == chosen]
    by_distance = chosen is None or call.distance == _distance(found, chosen)
    return {
        **{"question": call.text, "round": call.round, "threshold": reader.run.threshold},
        **{"candidates": shown, "count": len(found), "chosen": chosen},
        **{"distance": call.distance, "by_distance": by_distance},
        "embedder": reader.run.embedder,
        "chart": _chart(shown, chosen, reader.run.threshold),
    }


def _distance(found: Sequence[Candidate], memory: int) -> float | None:
    return next((one.distance for one in found if one.memory == memory), None)


def _chart(shown: Sequence[Candidate], chosen: int | None, threshold: float) -> Spec | None:
    rows = [
        {
            "rank": rank,
            "question": one.question,
            "distance": one.distance,
            "chosen": one.memory == chosen,
        }
        for rank, one in enumerate(shown, 1)
    ]
    return recall_chart(rows, threshold) if rows else None
