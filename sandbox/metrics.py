"""Figures of a run: pure functions over the store. A missing rating enters no figure."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select

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
