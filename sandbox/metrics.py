"""Figures of a run: pure functions over the store. A missing rating enters no figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, select

from agents.forms import Status
from sandbox.calls import UNPARSED
from storage import tables
from storage.reader import Reader


class RoundScores(NamedTuple):
    """One round: means on the 1-7 scales (None where nobody scored), and what is missing."""

    round: int
    episodes: int
    failed: int
    draft_alignment: float | None
    revision_alignment: float | None
    draft_engagement: float | None
    revision_engagement: float | None
    peer_rating: float | None
    missing_ratings: int


def scores_by_round(reader: Reader) -> list[RoundScores]:
    """Means of the observer's scores and of the peers' ratings, by round."""
    e = tables.episodes
    query = (
        select(e.c.round, func.count(), func.count(e.c.failed_at))
        .where(reader.mine(e.c.id))
        .group_by(e.c.round)
        .order_by(e.c.round)
    )
    observed, rated = _observed(reader), _rated(reader)
    return [
        RoundScores(
            round,
            episodes,
            failed,
            observed.get((round, "draft", "alignment")),
            observed.get((round, "revision", "alignment")),
            observed.get((round, "draft", "engagement")),
            observed.get((round, "revision", "engagement")),
            *rated.get(round, (None, 0)),
        )
        for round, episodes, failed in reader.rows(query)
    ]


def _observed(reader: Reader) -> dict[tuple[int, str, str], float]:
    e, o = tables.episodes, tables.observations
    query = (
        select(e.c.round, o.c.stage, o.c.scale, func.avg(o.c.rating))
        .join(o, o.c.episode_id == e.c.id)
        .where(reader.mine(e.c.id), o.c.rating.is_not(None))
        .group_by(e.c.round, o.c.stage, o.c.scale)
    )
    return {(round, stage, scale): float(mean) for round, stage, scale, mean in reader.rows(query)}


def _rated(reader: Reader) -> dict[int, tuple[float | None, int]]:
    e, r = tables.episodes, tables.ratings
    query = (
        select(e.c.round, func.avg(r.c.rating), func.count() - func.count(r.c.rating))
        .join(r, r.c.episode_id == e.c.id)
        .where(reader.mine(e.c.id))
        .group_by(e.c.round)
    )
    return {
        round: (None if mean is None else float(mean), int(missing))
        for round, mean, missing in reader.rows(query)
    }


@dataclass(frozen=True)
class FormCalls:
    """The calls of one form.

    Attributes:
        form: its name.
        calls, failed, unparsed: how many there are, have no reply, have one that cannot be used.
        tokens_in, tokens_out: of prompts and replies, where the backend counts them.
        tokens_cached: those of prompts that a prefix cache held; None where no backend told.
        prefix_share: their share of the prompts whose backend told; None where none did.
    """

    form: str
    calls: int
    failed: int
    unparsed: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int | None
    prefix_share: float | None


def calls_by_form(reader: Reader) -> list[FormCalls]:
    """What each form has cost, in the order of the world's forms; one pass over the journal."""
    c, f = tables.calls, tables.forms
    counted = (
        select(
            c.c.form_id,
            func.count().label("calls"),
            func.count().filter(c.c.status == Status.FAILED.value).label("failed"),
            func.count().filter(c.c.status.in_([one.value for one in UNPARSED])).label("unparsed"),
            func.sum(c.c.tokens_in).label("tokens_in"),
            func.sum(c.c.tokens_out).label("tokens_out"),
            func.sum(c.c.cached_tokens).label("tokens_cached"),
            func.sum(c.c.tokens_in).filter(c.c.cached_tokens.is_not(None)).label("tokens_told"),
        )
        .where(reader.mine(c.c.id))
        .group_by(c.c.form_id)
        .subquery()
    )
    query = select(f.c.name, counted).join(f, f.c.id == counted.c.form_id).order_by(f.c.id)
    return [_form_calls(row) for row in reader.rows(query)]


def _form_calls(row: Any) -> FormCalls:
    cached = None if row.tokens_cached is None else int(row.tokens_cached)
    return FormCalls(
        form=row.name,
        calls=row.calls,
        failed=row.failed,
        unparsed=row.unparsed,
        tokens_in=int(row.tokens_in or 0),
        tokens_out=int(row.tokens_out or 0),
        tokens_cached=cached,
        prefix_share=None if cached is None else cached / max(1, int(row.tokens_told or 0)),
    )
