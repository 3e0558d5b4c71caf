"""Statistics of the exchanges of an export: ratings, gains, lengths, agreement, raters.

Everything is counted in one pass. Memory grows by up to 21 bytes per rated text for agreement (one
per value of the scale, or per bin of a long scale) and by 16 bytes per rated text for lengths.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.forms import Status
from agents.scale import Scale
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import Origin, SourcedExchange
from sandbox.reading.agreement import BOTH, PEERS, Alpha, TextSums, alpha
from storage.exchanges import Exchange

"""The peers, as raters whose agreement is measured."""

USERS = "users"
"""The users of conversations, as raters."""

_VALUES = 200  # maximum number of bins of a scale; ratings on longer scales are rounded

Ints = npt.NDArray[np.int64]


class Change:
    """Gains of the last stage over the first, on a scale.

    Attributes:
        scale: the scale.
        first, last: the stages.
        better, equal, worse: the number of exchanges with a positive, zero and negative gain.
        margins: the number of occurrences of each gain; positive is better.
    """

    def __init__(self, scale: Scale, first: str, last: str) -> None:
        self.scale, self.first, self.last = scale, first, last
        self.better = self.equal = self.worse = 0
        self.margins: Counter[float] = Counter()
        self._sums = {first: 0.0, last: 0.0}

    def add(self, before: float, after: float) -> None:
        """Count an exchange."""
        gain = self.scale.gain(before, after)
        self.better += gain > 0
        self.equal += gain == 0
        self.worse += gain < 0
        self.margins[_bin(gain, self.scale)] += 1
        self._sums[self.first] += before
        self._sums[self.last] += after

    @property
    def pairs(self) -> int:
        """The number of exchanges with both ratings."""
        return self.better + self.equal + self.worse

    def mean(self, stage: str) -> float | None:
        """The mean rating of a stage, over exchanges with both ratings."""
        return self._sums[stage] / self.pairs if self.pairs else None


class Survey:
    """Statistics of exchanges.

    A scale that two runs declare differently is left out.

    Attributes:
        exchanges: the number of exchanges.
        failed: the number of failed ones, by the step without a usable reply.
        missing: the number of unreadable ratings, by rater and status.
        lenient: the number of ratings that were read leniently, by rater.
        shortened: the number of texts kept to their last whole sentence, by stage.
        raters: the number of ratings by each agent, by the index of its run and its number.
        ratings: how often each rating was given, by rater (and stage) and scale.
        observed: how often a mean of the peers' ratings and the observer's rating of the same text
            occur together, where both are on the same range.
        peers: the peers' scale; None where no peers rate.
        peers_rate: the name of the observer's scale that means the same and has the same range, or
            the name of the peers' own; empty where no peers rate.
        main: the main scale; None where the observer does not rate.
        stages: the names of all stages.
        peer_stage: the stage that peers rate; empty where none do.

    Args:
        schema: the stages and scales of the runs.
    """

    def __init__(self, schema: Schema) -> None:
        self.exchanges = 0
        self.failed: Counter[str] = Counter()
        self.missing: Counter[tuple[str, str]] = Counter()
        self.lenient: Counter[str] = Counter()
        self.shortened: Counter[str] = Counter()
        self.raters: Counter[tuple[int, int]] = Counter()
        self.ratings: dict[tuple[str, str], Counter[float]] = {}
        self.observed: Counter[tuple[float, float]] = Counter()
        self._scales = {
            scale.name: scale for scale in schema.observed if schema.conflict(scale) is None
        }
        peers = schema.peers
        self.peers = None if peers is None or schema.conflict(peers) else peers
        main = schema.main
        self.main = None if main is None else self._scales.get(main.name)
        self._changes = [
            Change(scale, stages[0], stages[-1])
            for scale in self._scales.values()
            if len(stages := [stage.name for stage, own in schema.rated if own is scale]) > 1
        ]
        self._stages = {
            scale.name: [stage.name for stage, own in schema.rated if own is scale]
            for scale in self._scales.values()
        }
        self.stages = tuple(stage.name for stage in schema.stages)
        self.peer_stage = next(iter(schema.peer_stages), "")
        self.peers_rate = _rated_by_peers(self.peers, self._scales)
        self._sums: dict[str, Counter[TextSums]] = {PEERS: Counter(), BOTH: Counter()}
        self._lengths, self._scores = array("q"), array("d")
        self._agreements: dict[str, Alpha] | None = None

    @property
    def scales(self) -> Mapping[str, Scale]:
        """The observer's scales by name."""
        return self._scales

    @property
    def changes(self) -> Sequence[Change]:
        """The gain on every scale that rates two stages or more."""
        return self._changes

    def add(self, sourced: SourcedExchange) -> None:
        """Count an exchange."""
        exchange = sourced.exchange
        self.exchanges += 1
        if exchange.failed_at is not None:
            self.failed[exchange.failed_at] += 1
        self.shortened.update(exchange.shortened)
        for given in exchange.ratings:
            self._add_rating(PEERS, self.peers_rate, self.peers, given.rating, given.status)
            self.raters[sourced.origin.place, given.rater] += given.rating is not None
        self._add_scores(sourced)
        for seen in exchange.observations:
            scale = self._scales.get(seen.scale)
            by_user = scale is not None and scale.rater == "author"
            who = f"{USERS if by_user else 'observer'}, {seen.stage}"
            self._add_rating(who, seen.scale, scale, seen.rating, seen.status)
        for change in self._changes:
            name = change.scale.name
            before, after = exchange.score(change.first, name), exchange.score(change.last, name)
            if before is not None and after is not None:
                change.add(before, after)
        self._add_lengths(exchange)
        self._add_agreement(sourced)

    def _add_scores(self, sourced: SourcedExchange) -> None:
        """Count the scores that a user gave in a conversation."""
        talk, author = sourced.conversation, sourced.exchange.author
        scores = [] if talk is None else [one.score for one in talk.candidates]
        scale = next((one for one in self._scales.values() if one.rater == "author"), None)
        if author is None or scale is None:
            return
        for score in scores:
            if score is not None:
                self.raters[sourced.origin.place, author] += 1
                counts = self.ratings.setdefault((USERS, scale.name), Counter())
                counts[_bin(score, scale)] += 1

    def _add_rating(
        self, who: str, name: str, scale: Scale | None, rating: float | None, status: str
    ) -> None:
        self.lenient[who.partition(",")[0]] += status == Status.LENIENT
        if rating is None and status != Status.LENIENT:
            self.missing[who.partition(",")[0], status] += 1
        elif rating is not None and scale is not None:
            self.ratings.setdefault((who, name), Counter())[_bin(rating, scale)] += 1

    def _add_lengths(self, exchange: Exchange) -> None:
        """Record the lengths of texts that are rated on the main scale."""
        for stage in [] if self.main is None else self._stages[self.main.name]:
            text = exchange.texts.get(stage)
            score = exchange.score(stage, self.main.name) if self.main is not None else None
            if text is not None and score is not None:
                self._lengths.append(len(text))
                self._scores.append(score)

    def _add_agreement(self, sourced: SourcedExchange) -> None:
        """Record ratings of the same text by peers and the observer, for agreement."""
        declaration, exchange = sourced.origin.declaration, sourced.exchange
        if self.peers is None or declaration.peers is None:
            return
        ratings = [given.rating for given in exchange.ratings if given.rating is not None]
        self._add_sums(PEERS, ratings)
        same = declaration.same_as(declaration.measure(declaration.peers.name))
        observer = None if same is None else exchange.score(same.stage, same.scale.name)
        if ratings and observer is not None:
            mean = (2 * sum(ratings) + len(ratings)) // (2 * len(ratings))  # rounds half up
            self.observed[mean, observer] += 1
            self._add_sums(BOTH, [*ratings, observer])

    def _add_sums(self, who: str, ratings: Sequence[float]) -> None:
        """Add the ratings of one text."""
        if len(ratings) > 1:
            self._sums[who][TextSums.of(ratings)] += 1

    def agreements(self) -> Mapping[str, Alpha]:
        """The agreement of peers, and of peers and the observer, by these names.

        It is computed once, when all exchanges have been added; it is empty where no peers rate.
        """
        if self._agreements is None:
            named = self._sums.items() if self.peers is not None else ()
            self._agreements = {who: alpha(texts) for who, texts in named}
        return self._agreements

    def lengths(self) -> tuple[Ints, npt.NDArray[np.float64]]:
        """Characters of each text that is rated on the main scale, and its rating."""
        return np.array(self._lengths, dtype=np.int64), np.array(self._scores, dtype=np.float64)

    def length_bias(self) -> float | None:
        """Pearson's correlation of length and rating; None if either is constant."""
        lengths, scores = self.lengths()
        if len(scores) < 2 or np.ptp(lengths) == 0 or np.ptp(scores) == 0:
            return None
        return float(np.corrcoef(lengths, scores)[0, 1])


def _rated_by_peers(peers: Scale | None, scales: Mapping[str, Scale]) -> str:
    if peers is None:
        return ""
    same = scales.get(peers.same_as or "")
    equal = same is not None and (same.low, same.high) == (peers.low, peers.high)
    return same.name if same is not None and equal else peers.name


def _bin(value: float, scale: Scale) -> float:
    """Round a rating or gain to its bin, on scales with many values."""
    step = max(0.01, (scale.high - scale.low) / _VALUES)
    rounded = value if scale.integer and value % 1 == 0 else round(round(value / step) * step, 4)
    return int(rounded) if rounded % 1 == 0 else rounded


class Share(NamedTuple):
    """A demographic group of raters, or several groups together.

    Attributes:
        group: its name.
        ratings: the number of ratings by each of its agents, by the index of the run and the
            agent's number.
    """

    group: str
    ratings: Mapping[tuple[int, int], int]

    @property
    def agents(self) -> int:
        """The number of its agents."""
        return len(self.ratings)

    @property
    def given(self) -> int:
        """The number of ratings by its agents."""
        return sum(self.ratings.values())

    @classmethod
    def together(cls, name: str, shares: Sequence[Share]) -> Share:
        """Several groups as one, in which an agent of several of them counts once."""
        return cls(name, {agent: n for one in shares for agent, n in one.ratings.items()})


_AGES = ((0, 25), (25, 35), (35, 50), (50, 65), (65, 200))


def demographics(
    origins: Sequence[Origin], raters: Mapping[tuple[int, int], int]
) -> dict[str, list[Share]]:
    """Return agents and ratings by starting label, age, place, occupation and values.

    Args:
        origins: the runs.
        raters: the number of ratings by each agent, by the index of its run and its number.
    """
    groups: dict[str, dict[str, dict[tuple[int, int], int]]] = {}
    for (place, number), count in raters.items():
        for what, group in _groups(origins[place].people[number]):
            groups.setdefault(what, {}).setdefault(group, {})[place, number] = count
    shares = {what: [Share(*item) for item in of.items()] for what, of in groups.items()}
    return {
        what: sorted(of, key=lambda share: (-share.given, share.group))
        for what, of in shares.items()
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
