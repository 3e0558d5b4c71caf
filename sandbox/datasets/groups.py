"""Whom a dataset is aligned to: what the users of conversations want and score, group by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sandbox.datasets.choices import Choices
from sandbox.datasets.formats.preference import DIMENSIONS
from sandbox.datasets.rater_choices import matches, parse_raters
from sandbox.datasets.source import Origin, SourcedExchange
from sandbox.reading.statistics import Interval, clustered, mean

SHOWN = {
    "age": "age",
    "gender": "gender",
    "religion": "religion",
    "politics": "politics",
    "reside_region": "region",
}
"""The groups that the card shows, by the field of the survey."""

FEWEST = 5
"""Raters of a group from which on its figures are shown."""

Labels = Mapping[str, str]
"""Which of a pair suits the first end of a dimension better, by dimension: chosen or rejected."""


@dataclass
class _Rater:
    """What one user did: the scores, the gains of personalisation, and the labels of pairs."""

    persona: Mapping[str, Any]
    conversations: int = 0
    scores: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)


class Group(NamedTuple):
    """A group of users.

    Attributes:
        kind: what they have in common, such as ``gender``.
        name: the group.
        raters, conversations: their numbers.
        stated: the mean stated preferences, 0 to 100.
        score: the mean score, 1 to 100; None without scores.
        spread: the standard deviation of all scores; None with fewer than two.
        disagreement: the standard deviation of the users' mean scores; None with fewer than two.
        gain: the mean gain of a personal answer over one of one policy for all.
        flips: the share of labelled pairs that would turn round; None without labels.
        labelled: the number of pairs that `flips` is a share of.
    """

    kind: str
    name: str
    raters: int
    conversations: int
    stated: Mapping[str, float]
    score: float | None
    spread: float | None
    disagreement: float | None
    gain: Interval
    flips: float | None
    labelled: int


class Groups:
    """Counts conversations by user, in one pass.

    Args:
        origins: the runs.
        choices: the conditions on raters; others are not counted.
    """

    def __init__(self, origins: Sequence[Origin], choices: Choices) -> None:
        conditions = parse_raters(choices.raters or ())
        self._raters = {
            (origin.place, number): _Rater(persona)
            for origin in origins
            if origin.schema.conversations
            for number, persona in origin.people.items()
            if matches(conditions, persona)
        }

    @property
    def any(self) -> bool:
        """Whether a run has conversations."""
        return bool(self._raters)

    def add(self, sourced: SourcedExchange) -> None:
        """Count the conversation of an exchange, with the answers that no rule leaves out."""
        talk, exchange = sourced.conversation, sourced.exchange
        rater = self._raters.get((sourced.origin.place, exchange.author or 0))
        if rater is None or talk is None:
            return
        usable = [one for one in talk.candidates if one.rule is None]
        rater.conversations += 1
        rater.scores += [one.score for one in usable if one.score is not None]
        rater.gains += _gains(sourced)
        chosen = next((one for one in usable if one.turn == 0 and one.chosen), None)
        for other in usable:
            if chosen is not None and other.score is not None and other is not chosen:
                found = {name: talk.label(name, chosen, other) for name in DIMENSIONS}
                labels = {name: label for name, label in found.items() if label is not None}
                rater.labels += [labels] if labels else []

    def groups(self) -> Iterator[Group]:
        """Yield each group of each kind, sorted by name."""
        pairs = [labels for rater in self._raters.values() for labels in rater.labels]
        for kind, title in SHOWN.items():
            members: dict[str, list[_Rater]] = {}
            for rater in self._raters.values():
                told = (rater.persona.get("survey") or {}).get(kind)
                members.setdefault("not told" if told is None else str(told), []).append(rater)
            for name, raters in sorted(members.items()):
                yield _group(title, name, raters, pairs)


def _gains(sourced: SourcedExchange) -> list[float]:
    """The gain of the author's own rating, where both blind ratings were read."""
    declaration = sourced.origin.declaration
    scale = next((one for one in declaration.observed if one.rater == "author"), None)
    measure = None if scale is None else declaration.gain(scale)
    if scale is None or measure is None or measure.base is None:
        return []
    before, after = (
        sourced.exchange.score(stage, scale.name) for stage in (measure.base, measure.stage)
    )
    return [] if before is None or after is None else [scale.gain(before, after)]


def _group(kind: str, name: str, raters: Sequence[_Rater], pairs: Sequence[Labels]) -> Group:
    scores = np.array([score for rater in raters for score in rater.scores])
    means = np.array([np.mean(rater.scores) for rater in raters if rater.scores])
    gains = np.array([gain for rater in raters for gain in rater.gains])
    whose = np.repeat(np.arange(len(raters)), [len(rater.gains) for rater in raters])
    flips = _flips([labels for rater in raters for labels in rater.labels], pairs)
    return Group(
        kind=kind,
        name=name,
        raters=len(raters),
        conversations=sum(rater.conversations for rater in raters),
        stated=_stated(raters),
        score=mean(scores) if len(scores) else None,
        spread=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        disagreement=float(means.std(ddof=1)) if len(means) > 1 else None,
        gain=clustered(gains, whose),
        flips=sum(flips) / len(flips) if flips else None,
        labelled=len(flips),
    )


def _stated(raters: Sequence[_Rater]) -> dict[str, float]:
    weights: dict[str, list[int]] = {}
    for rater in raters:
        wanted = rater.persona.get("preferences") or {}
        for name, weight in (wanted.get("stated") or {}).items():
            weights.setdefault(name, []).append(weight)
    return {name: sum(given) / len(given) for name, given in weights.items()}


def majority(own: Sequence[Labels]) -> dict[str, str]:
    """The label that a group gave most often on each dimension; a tie gives none."""
    counts: dict[str, Counter[str]] = {}
    for labels in own:
        for name, label in labels.items():
            counts.setdefault(name, Counter())[label] += 1
    return {
        name: count.most_common(1)[0][0]
        for name, count in counts.items()
        if count["chosen"] != count["rejected"]
    }


def _flips(own: Sequence[Labels], pairs: Sequence[Labels]) -> list[bool]:
    """Whether each pair turns round: most of its labels differ from the group's majority."""
    usual = majority(own)
    shared = ([label != usual[n] for n, label in pair.items() if n in usual] for pair in pairs)
    return [2 * sum(differ) > len(differ) for differ in shared if differ]
