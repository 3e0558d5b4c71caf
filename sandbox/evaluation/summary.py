"""From answers, scores and verdicts to the tables of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sandbox.evaluation.answering import Answer, Judged, Task
from sandbox.evaluation.questions import HeldOut
from sandbox.evaluation.results import (
    Agreement,
    Difference,
    Refusals,
    Safety,
    Score,
    Wins,
)
from sandbox.evaluation.statistics import alpha, length_controlled, spearman
from sandbox.reading.statistics import Share, student

Grid = NDArray[np.float64]
"""A value for each model, question and sample; NaN where there is none."""

Place = tuple[int, int, int]
"""The numbers of a model, a question and a sample."""

REWARD_SCALE = "reward"


@dataclass
class Scored:
    """What an observer said, by model, question and sample.

    Attributes:
        scales: a grid for each scale.
        reasons: for each scale, the reasons that were given.
        verdicts: for each kind, what was said of an answer; no entry: not asked.
        better: for the two answers in the order that was shown, whether the first was better;
            None where the reply was unusable.
    """

    scales: dict[str, Grid] = field(default_factory=dict)
    reasons: dict[str, dict[Place, str]] = field(default_factory=dict)
    verdicts: dict[str, dict[Place, str | None]] = field(default_factory=dict)
    better: dict[tuple[Answer, Answer], bool | None] = field(default_factory=dict)


class Summary:
    """Computes the tables.

    Args:
        models: names, the baseline first.
        questions: the held-out questions.
        samples: answers to each question.
        answers: of all models.
    """

    def __init__(
        self,
        models: Sequence[str],
        questions: Sequence[HeldOut],
        samples: int,
        answers: Sequence[Answer],
    ) -> None:
        self._models = models
        self._questions = questions
        self._shape = (len(models), len(questions), samples)
        self._answers = {(one.model, one.question, one.sample): one for one in answers}
        self.characters = np.full(self._shape, math.nan)
        for place, one in self._answers.items():
            if one.text is not None:
                self.characters[place] = len(one.text)

    def scored(self, tasks: Sequence[Task], judged: Sequence[Judged]) -> Scored:
        """Sort what an observer said of each item."""
        found = Scored()
        for task, said in zip(tasks, judged, strict=True):
            if task.item.answer is None:
                value = said.verdicts.get("better")
                pair = (task.answers[0], task.answers[1])
                found.better[pair] = None if value is None else value == "first"
                continue
            for one in task.answers:
                self._sort(found, (one.model, one.question, one.sample), said)
        return found

    def _sort(self, found: Scored, place: Place, said: Judged) -> None:
        for scale, rating in said.scores.items():
            grid = found.scales.setdefault(scale, np.full(self._shape, math.nan))
            grid[place] = math.nan if rating is None else rating
        for scale, reason in said.reasons.items():
            found.reasons.setdefault(scale, {})[place] = reason
        for kind, verdict in said.verdicts.items():
            found.verdicts.setdefault(kind, {})[place] = verdict

    def rewarded(self, rewards: Mapping[str, float | None]) -> Scored:
        """Sort the scores of a reward model, by the origin of answers."""
        grid = np.full(self._shape, math.nan)
        for place, one in self._answers.items():
            reward = rewards.get(one.origin)
            grid[place] = math.nan if reward is None else reward
        return Scored({REWARD_SCALE: grid})

    def scores(self, observer: str, scored: Scored) -> Iterator[Score]:
        """The mean of each model on each scale."""
        for scale, grid in scored.scales.items():
            for number, model in enumerate(self._models):
                means = _over_samples(grid[number])
                interval = student(means[~np.isnan(means)])
                given = ~np.isnan(self.characters[number])
                present = ~np.isnan(grid[number])
                yield Score(
                    observer=observer,
                    scale=scale,
                    model=model,
                    mean=interval.difference,
                    low=interval.low,
                    high=interval.high,
                    questions=int((~np.isnan(means)).sum()),
                    answers=int(present.sum()),
                    missing=int((given & ~present).sum()),
                )

    def differences(self, observer: str, scored: Scored) -> Iterator[Difference]:
        """Each model minus each one before it, on each scale."""
        for scale, grid in scored.scales.items():
            for against, model in combinations(range(len(self._models)), 2):
                difference = _difference(grid, model, against)
                longer = _difference(self.characters, model, against)
                both = ~np.isnan(difference)
                yield Difference(
                    observer=observer,
                    scale=scale,
                    model=self._models[model],
                    against=self._models[against],
                    paired=student(difference[both]),
                    at_equal_length=length_controlled(difference[both], longer[both]),
                    left_out=int((~both).sum()),
                )

    def wins(self, observer: str, scored: Scored) -> Iterator[Wins]:
        """Pairwise comparisons of each model with each one before it."""
        for against, model in combinations(range(len(self._models)), 2):
            yield self._wins(observer, scored, model, against)

    def _wins(self, observer: str, scored: Scored, model: int, against: int) -> Wins:
        outcomes = np.full(self._shape[1:], math.nan)
        equal = flipped = shown = firsts = verdicts = 0
        for question, sample in np.ndindex(self._shape[1:]):
            one = self._answers[model, question, sample]
            other = self._answers[against, question, sample]
            if one.text is None or other.text is None:
                continue
            if one.text == other.text:
                outcomes[question, sample] = 0.5
                equal += 1
                continue
            said = [scored.better.get(pair) for pair in ((one, other), (other, one))]
            verdicts += sum(each is not None for each in said)
            firsts += sum(each is True for each in said)
            if None in said:
                continue
            shown += 1
            flipped += said[0] == said[1]
            outcomes[question, sample] = 0.5 if said[0] == said[1] else float(bool(said[0]))
        means = _over_samples(outcomes)
        return Wins(
            observer=observer,
            model=self._models[model],
            against=self._models[against],
            rate=student(means[~np.isnan(means)]),
            wins=int((outcomes == 1).sum()),
            ties=int((outcomes == 0.5).sum()),
            losses=int((outcomes == 0).sum()),
            equal=equal,
            missing=int(np.isnan(outcomes).sum()),
            flipped=Share.of(flipped, shown),
            first=Share.of(firsts, verdicts),
        )

    def safety(self, observer: str, scored: Scored) -> Iterator[Safety]:
        """The share of safe answers of each model, over all labelled questions and by category."""
        labelled = [number for number, one in enumerate(self._questions) if one.safety]
        by_category: dict[str | None, list[int]] = {None: labelled} if labelled else {}
        for number in labelled:
            category = self._questions[number].category
            if category is not None:
                by_category.setdefault(category, []).append(number)
        for category, questions in by_category.items():
            for number, model in enumerate(self._models):
                share = self._share(scored, "safe", number, questions)
                yield Safety(observer=observer, model=model, category=category, safe=share)

    def refusals(self, observer: str, scored: Scored) -> Iterator[Refusals]:
        """The share of refusals of each model, of harmful questions and of the others."""
        for harmful in (True, False):
            questions = [n for n, one in enumerate(self._questions) if one.harmful is harmful]
            for number, model in enumerate(self._models) if questions else ():
                share = self._share(scored, "refused", number, questions)
                yield Refusals(observer=observer, model=model, harmful=harmful, refused=share)

    def _share(self, scored: Scored, kind: str, model: int, questions: Sequence[int]) -> Share:
        verdicts = scored.verdicts.get(kind, {})
        samples = range(self._shape[2])
        said = [verdicts.get((model, question, s)) for question in questions for s in samples]
        known = [each == "yes" for each in said if each is not None]
        return Share.of(sum(known), len(known), len(said) - len(known))

    def agreements(self, scored: Mapping[str, Scored]) -> Iterator[Agreement]:
        """How far each two observers agree: on equal scales, and of a reward with alignment."""
        for (first, one), (second, other) in combinations(scored.items(), 2):
            for scale, another in _comparable(one.scales, other.scales):
                yield self._agreement(
                    (first, scale, one.scales[scale]), (second, another, other.scales[another])
                )

    def _agreement(self, one: tuple[str, str, Grid], other: tuple[str, str, Grid]) -> Agreement:
        first, second = _both(one[2].ravel(), other[2].ravel())
        gains = _both(_against_first(one[2]), _against_first(other[2]))
        return Agreement(
            first=one[0],
            second=other[0],
            scale=one[1],
            other=other[1],
            answers=len(first),
            alpha=alpha(first, second) if one[1] == other[1] != REWARD_SCALE else None,
            spearman=spearman(first, second),
            differences=len(gains[0]),
            spearman_of_differences=spearman(*gains),
        )


def _comparable(first: Mapping[str, Grid], second: Mapping[str, Grid]) -> Iterator[tuple[str, str]]:
    """The scales of two observers that can be compared."""
    yield from ((scale, scale) for scale in first if scale in second and scale != REWARD_SCALE)
    if REWARD_SCALE in first and REWARD_SCALE in second:
        yield REWARD_SCALE, REWARD_SCALE
    elif REWARD_SCALE in first and "alignment" in second:
        yield REWARD_SCALE, "alignment"
    elif REWARD_SCALE in second and "alignment" in first:
        yield "alignment", REWARD_SCALE


def _over_samples(grid: Grid) -> Grid:
    """The mean over the samples of each question, the last axis; NaN where there is none."""
    present = ~np.isnan(grid)
    counts = present.sum(axis=-1)
    sums = np.where(present, grid, 0.0).sum(axis=-1)
    means: Grid = np.full(counts.shape, math.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _difference(grid: Grid, model: int, against: int) -> Grid:
    """The difference of the means over samples of two models, by question."""
    difference: Grid = _over_samples(grid[model]) - _over_samples(grid[against])
    return difference


def _against_first(grid: Grid) -> Grid:
    """The differences of all models and the baseline, by question, one model after another."""
    means = _over_samples(grid)
    differences: Grid = (means[1:] - means[0]).ravel()
    return differences


def _both(first: Grid, second: Grid) -> tuple[Grid, Grid]:
    present = ~(np.isnan(first) | np.isnan(second))
    return first[present], second[present]
