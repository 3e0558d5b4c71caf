"""What the exchanges of an export are like: scores, rises, lengths, agreement, who rated.

Everything is counted while the exchanges go by; what grows with them is 7 bytes a draft (for
agreement) and 10 bytes an answer (for lengths).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import krippendorff
import numpy as np
import numpy.typing as npt

from sandbox.datasets.answers import DRAFT, REVISION
from sandbox.datasets.choices import HIGHEST
from sandbox.datasets.source import Origin, Told

SCALES = ("alignment", "engagement")

_UNITS = 20_000

Counts = npt.NDArray[np.int64]


class Change(NamedTuple):
    """How revisions compare with drafts on a scale.

    Attributes:
        counts: 7 x 7: how often a draft was rated so (row) and its revision so (column).
    """

    counts: Counts

    @property
    def pairs(self) -> int:
        """How many have both ratings."""
        return int(self.counts.sum())

    def share(self, better: bool | None) -> float | None:
        """The share of revisions rated higher (None: equal, False: lower) than their draft."""
        side = {True: np.triu(self.counts, 1), False: np.tril(self.counts, -1)}
        chosen = np.diag(self.counts) if better is None else side[better]
        return float(chosen.sum() / self.pairs) if self.pairs else None

    def mean(self, stage: str) -> float | None:
        """The mean rating of drafts or revisions of these pairs."""
        ratings = np.arange(1, HIGHEST + 1)
        of = self.counts.sum(axis=1 if stage == DRAFT else 0)
        return float(of @ ratings / self.pairs) if self.pairs else None


class Agreement(NamedTuple):
    """Krippendorff's alpha for ordinal data (1: they agree, 0: as chance would have it).

    Attributes:
        who: whose ratings.
        drafts: how many have two ratings or more.
        alpha: None where it is not defined: too few ratings, or all of them equal. Of more than
            20,000 drafts so many or fewer, evenly spread, are looked at.
    """

    who: str
    drafts: int
    alpha: float | None


class Survey:
    """Counts what goes by.

    Attributes:
        exchanges: how many there are.
        failed: by the form that got no usable reply.
        missing: by who should have said it and what became of it, ratings that cannot be read.
        raters: how many ratings each agent gave, by the place of its run and its number.
        ratings: by who and of what, how often each of 1 to 7 was given.
        observed: 7 x 7: the mean of the peers (rounded, row) and the observer's rating of drafts.
    """

    def __init__(self) -> None:
        self.exchanges = 0
        self.failed: Counter[str] = Counter()
        self.missing: Counter[tuple[str, str]] = Counter()
        self.raters: Counter[tuple[int, int]] = Counter()
        self.ratings: dict[tuple[str, str], Counts] = {}
        self.observed = np.zeros((HIGHEST, HIGHEST), dtype=np.int64)
        self._changes = {scale: np.zeros((HIGHEST, HIGHEST), dtype=np.int64) for scale in SCALES}
        self._peers, self._both = array("B"), array("B")
        self._lengths, self._scores = array("q"), array("B")

    def add(self, told: Told) -> None:
        """Count an exchange."""
        one = told.exchange
        self.exchanges += 1
        if one.failed_at is not None:
            self.failed[one.failed_at] += 1
        peers = [given.rating for given in one.ratings if given.rating is not None]
        for given in one.ratings:
            self._rating("peers", "alignment", given.rating, given.status)
            self.raters[told.origin.place, given.rater] += given.rating is not None
        for seen in one.observations:
            self._rating(f"observer, {seen.stage}", seen.scale, seen.rating, seen.status)
        self._compare(told, peers)

    def _rating(self, who: str, scale: str, rating: int | None, status: str) -> None:
        if rating is None:
            self.missing[who.partition(",")[0], status] += 1
            return
        counts = self.ratings.setdefault((who, scale), np.zeros(HIGHEST, dtype=np.int64))
        counts[rating - 1] += 1

    def _compare(self, told: Told, peers: Sequence[int]) -> None:
        one = told.exchange
        for scale in SCALES:
            before, after = one.score(DRAFT, scale), one.score(REVISION, scale)
            if before is not None and after is not None:
                self._changes[scale][before - 1, after - 1] += 1
        for stage, text in ((DRAFT, one.draft), (REVISION, one.revision)):
            score = one.score(stage, "alignment")
            if text is not None and score is not None:
                self._lengths.append(len(text))
                self._scores.append(score)
        observer = one.score(DRAFT, "alignment")
        if peers and observer is not None:
            rounded = (2 * sum(peers) + len(peers)) // (2 * len(peers))  # halves go up
            self.observed[rounded - 1, observer - 1] += 1
        self._unit(self._peers, peers)
        self._unit(self._both, [*peers, observer] if peers and observer is not None else ())

    def _unit(self, units: array[int], ratings: Sequence[int]) -> None:
        if len(ratings) > 1:
            units.extend(min(255, ratings.count(value)) for value in range(1, HIGHEST + 1))

    def change(self, scale: str) -> Change:
        """How revisions compare with drafts on a scale."""
        return Change(self._changes[scale])

    def agreements(self) -> Iterator[Agreement]:
        """How far raters of the same draft's alignment agree."""
        yield _agreement("peers", self._peers)
        yield _agreement("peers and the observer", self._both)

    def lengths(self) -> tuple[Counts, Counts]:
        """Characters of each answer that is rated, and the observer's rating of its alignment."""
        return np.array(self._lengths, dtype=np.int64), np.array(self._scores, dtype=np.int64)

    def length_bias(self) -> float | None:
        """Pearson's correlation of length and rating; None where either does not vary."""
        lengths, scores = self.lengths()
        if len(scores) < 2 or np.ptp(lengths) == 0 or np.ptp(scores) == 0:
            return None
        return float(np.corrcoef(lengths, scores)[0, 1])


def _agreement(who: str, flat: array[int]) -> Agreement:
    counts = np.array(flat, dtype=np.int64).reshape(-1, HIGHEST)
    if len(counts) < 2 or (counts.sum(axis=0) > 0).sum() < 2:
        return Agreement(who, len(counts), None)
    some = counts[:: -(-len(counts) // _UNITS)]  # evenly spread: over 1 KB each while it counts
    alpha = krippendorff.alpha(
        value_counts=some,
        value_domain=np.arange(1, HIGHEST + 1),
        level_of_measurement="ordinal",
    )
    return Agreement(who, len(counts), float(alpha) if np.isfinite(alpha) else None)


class Share(NamedTuple):
    """A group of raters: how many agents, and how many of the ratings are theirs."""

    group: str
    agents: int
    ratings: int


_AGES = ((0, 25), (25, 35), (35, 50), (50, 65), (65, 200))


def demographics(
    origins: Sequence[Origin], raters: Mapping[tuple[int, int], int]
) -> dict[str, list[Share]]:
    """Who rated: agents and ratings by starting label, age, place, occupation and values.

    Args:
        origins: the runs.
        raters: how many ratings each agent gave, by the place of its run and its number.
    """
    agents: dict[str, Counter[str]] = {}
    ratings: dict[str, Counter[str]] = {}
    for (place, number), count in raters.items():
        for what, group in _groups(origins[place].people[number]):
            agents.setdefault(what, Counter())[group] += 1
            ratings.setdefault(what, Counter())[group] += count
    return {
        what: [
            Share(group, agents[what][group], count)
            for group, count in sorted(of.items(), key=lambda item: (-item[1], item[0]))
        ]
        for what, of in ratings.items()
    }


def _groups(person: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "label", str(person["label"])
    age = person.get("age")
    if age is not None:
        low, high = next(band for band in _AGES if band[0] <= age < band[1])
        yield "age", f"{low} to {high - 1}" if high < _AGES[-1][1] else f"{low} or older"
    for what in ("place", "occupation"):
        if person.get(what):
            yield what, str(person[what])
    for value in person.get("values") or ():
        yield "values", str(value)
