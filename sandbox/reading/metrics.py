"""Figures of a run: pure functions over the store. A missing rating enters no figure.

They are read from the summaries that the writer keeps, and count complete episodes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, select

from agents.forms import UNPARSED, Status
from storage import tables
from storage.reader import Reader

PEERS = "peer_rating"
EPISODE = "episode"
AGREEMENT = "agreement"

Outcomes = dict[int, dict[str, Counter[str]]]
"""Round, measure, outcome: how often. An outcome is a rating from 1 to 7, a gain from -6 to 6, or
what became of the reply where none can be read; of `EPISODE` it is played or failed, of `AGREEMENT`
the mean of the peers (rounded, halves up) and the observer's rating of a draft, as in 5/6."""


class Spread(NamedTuple):
    """Values that can be read, and how many cannot.

    Attributes:
        n: how many can be read.
        mean: their mean; None where there are none.
        deviation: their standard deviation; None where there are fewer than two.
        missing: how many cannot be read.
    """

    n: int
    mean: float | None
    deviation: float | None
    missing: int

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Spread:
        """Of how often there was which outcome."""
        values = {int(key): n for key, n in counts.items() if key.lstrip("-").isdigit()}
        n = sum(values.values())
        missing = sum(counts.values()) - n
        if not n:
            return cls(0, None, None, missing)
        mean = sum(value * some for value, some in values.items()) / n
        squares = sum((value - mean) ** 2 * some for value, some in values.items())
        return cls(n, mean, math.sqrt(squares / (n - 1)) if n > 1 else None, missing)

    @property
    def error(self) -> float | None:
        """The standard error of the mean, as of independent values."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.n)


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


def outcomes(reader: Reader) -> Outcomes:
    """How often there was which outcome of which measure, by round."""
    o = tables.outcomes
    query = select(o.c.round, o.c.measure, o.c.outcome, o.c.n).where(o.c.run_id == reader.run.id)
    found: Outcomes = defaultdict(lambda: defaultdict(Counter))
    for round, measure, outcome, n in reader.rows(query.order_by(o.c.round)):
        found[round][measure][outcome] = n
    return found


def scores_by_round(reader: Reader) -> list[RoundScores]:
    """Means of the observer's scores and of the peers' ratings, by round."""
    return [_round_scores(round, found) for round, found in outcomes(reader).items()]


def _round_scores(round: int, found: Mapping[str, Counter[str]]) -> RoundScores:
    def mean(measure: str) -> float | None:
        return Spread.of(found.get(measure, {})).mean

    episodes, peers = found[EPISODE], Spread.of(found.get(PEERS, {}))
    return RoundScores(
        round,
        episodes.total(),
        episodes["failed"],
        mean("draft_alignment"),
        mean("revision_alignment"),
        mean("draft_engagement"),
        mean("revision_engagement"),
        peers.mean,
        peers.missing,
    )


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
    """What each form has cost, in the order of the world's forms."""
    c, f = tables.call_sums, tables.forms
    unusable = [one.value for one in UNPARSED]
    summed = (
        select(
            c.c.form_id,
            func.sum(c.c.calls).label("calls"),
            func.sum(c.c.calls).filter(c.c.status == Status.FAILED.value).label("failed"),
            func.sum(c.c.calls).filter(c.c.status.in_(unusable)).label("unparsed"),
            func.sum(c.c.tokens_in).label("tokens_in"),
            func.sum(c.c.tokens_out).label("tokens_out"),
            func.sum(c.c.cached_tokens).label("tokens_cached"),
            func.sum(c.c.told).label("told"),
            func.sum(c.c.tokens_told).label("tokens_told"),
        )
        .where(c.c.run_id == reader.run.id)
        .group_by(c.c.form_id)
        .having(func.sum(c.c.calls) > 0)
        .subquery()
    )
    query = select(f.c.name, summed).join(f, f.c.id == summed.c.form_id).order_by(f.c.id)
    return [_form_calls(row) for row in reader.rows(query)]


def _form_calls(row: Any) -> FormCalls:
    cached = int(row.tokens_cached) if row.told else None
    return FormCalls(
        form=row.name,
        calls=int(row.calls),
        failed=int(row.failed or 0),
        unparsed=int(row.unparsed or 0),
        tokens_in=int(row.tokens_in),
        tokens_out=int(row.tokens_out),
        tokens_cached=cached,
        prefix_share=None if cached is None else cached / max(1, int(row.tokens_told)),
    )
