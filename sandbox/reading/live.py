"""How a run that is being played gets on: speed, time left, and what it has just written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from sandbox.progress import Waiting
from sandbox.reading.metrics import EPISODE
from sandbox.reading.personas import persona_name
from sandbox.reading.records import Record
from sandbox.reading.runs import RunState
from storage import tables
from storage.reader import Reader

_CALLS = 400  # the latest calls, from which the speed is computed
_EXCHANGES = 5  # the latest exchanges


@dataclass(frozen=True, kw_only=True)
class LatestExchange(Record):
    """An exchange that has just been completed; author and name are None without an author."""

    episode: int
    round: int
    author: int | None
    name: str | None
    question: str


@dataclass(frozen=True, kw_only=True)
class Live(Record):
    """How a run gets on.

    Attributes:
        round: the latest round with a complete exchange, from 0; None before the first.
        rounds: the number of rounds in the config.
        episodes, episodes_total: the number of complete exchanges, and of all.
        in_round, per_round: the same of that round.
        calls_failed, unparsed: the number of calls without a reply, and of unparseable replies.
        calls_per_second, tokens_per_second: over the latest calls; None where unknown.
        seconds_left: at that speed; None where unknown.
        waiting: what calls wait for.
        latest: the latest complete exchanges, the newest first.
    """

    round: int | None
    rounds: int
    episodes: int
    episodes_total: int
    in_round: int
    per_round: int
    calls_failed: int
    unparsed: int
    calls_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    waiting: Sequence[Waiting]
    latest: Sequence[LatestExchange]

    @property
    def percent(self) -> int:
        """The share of exchanges that are complete, 0 to 100, rounded down."""
        return 100 * self.episodes // max(1, self.episodes_total)


def live(reader: Reader, state: RunState) -> Live:
    """Read how a run gets on with a few short queries."""
    calls, tokens = _speed(reader)
    round, in_round = _round(reader)
    left = None
    if calls and state.episodes:
        rest = state.episodes_total - state.episodes
        left = rest * state.calls / state.episodes / calls
    return Live(
        round=round,
        rounds=state.rounds,
        episodes=state.episodes,
        episodes_total=state.episodes_total,
        in_round=in_round,
        per_round=reader.run.per_round,
        calls_failed=state.calls_failed,
        unparsed=state.unparsed,
        calls_per_second=calls,
        tokens_per_second=tokens,
        seconds_left=left,
        waiting=state.waiting,
        latest=latest_exchanges(reader, _EXCHANGES),
    )


def _round(reader: Reader) -> tuple[int | None, int]:
    """The latest round with complete exchanges, and their number."""
    o = tables.outcomes
    query = (
        select(o.c.round, func.sum(o.c.n))
        .where(o.c.run_id == reader.run.id, o.c.measure == EPISODE)
        .group_by(o.c.round)
        .order_by(o.c.round.desc())
    )
    row = reader.first(query.limit(1))
    return (None, 0) if row is None else (int(row[0]), int(row[1]))


def _speed(reader: Reader) -> tuple[float | None, float | None]:
    """Calls and tokens per second of working time, over the latest calls; None where unknown."""
    c = tables.calls
    columns = (c.c.started, c.c.took, c.c.tokens_in, c.c.tokens_out)
    query = select(*columns).where(reader.belongs_to_run(c.c.id)).order_by(c.c.id.desc())
    rows = list(reader.rows(query.limit(_CALLS)))
    if len(rows) < 2:
        return None, None
    ends = [row.started + row.took for row in rows]
    seconds = (max(ends) - min(ends)) / 1000
    if seconds <= 0:
        return None, None
    known = [row for row in rows[:-1] if row.tokens_in is not None or row.tokens_out is not None]
    tokens = sum((row.tokens_in or 0) + (row.tokens_out or 0) for row in known)
    return (len(rows) - 1) / seconds, tokens / seconds if known else None


def latest_exchanges(reader: Reader, limit: int) -> list[LatestExchange]:
    """The latest complete exchanges, the newest first."""
    e, q, t, a = tables.episodes, tables.questions, tables.texts, tables.agents
    query = (
        select(e.c.id, e.c.round, e.c.author, a.c.persona, t.c.text)
        .join(q, q.c.id == e.c.question_id)
        .join(t, t.c.id == q.c.text_id)
        .outerjoin(a, (a.c.run_id == e.c.run_id) & (a.c.number == e.c.author))
        .where(reader.belongs_to_run(e.c.id), e.c.observed)
        .order_by(e.c.id.desc())
        .limit(limit)
    )
    return [
        LatestExchange(
            episode=row.id - reader.base,
            round=row.round,
            author=row.author,
            name=None if row.persona is None else persona_name(row.persona),
            question=row.text,
        )
        for row in reader.rows(query)
    ]
