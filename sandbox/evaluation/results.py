"""The records of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.reading.records import Record
from sandbox.reading.statistics import Interval, Share


@dataclass(frozen=True, kw_only=True)
class ModelResult(Record):
    """What a model answered.

    Attributes:
        name: as it was given.
        model: what the journal calls it.
        answers: answers with a text.
        lost: answers without one.
        reasons: for the lost ones, how many replies ended how: cut, empty, unreadable, failed.
        characters: the mean length of an answer; None without answers.
        shortened: answers that were kept to their last whole sentence.
        trained_on: training questions that the held-out ones were compared with; None: it names
            none.
        scripted: the scripted backend composed its answers.
    """

    name: str
    model: str
    answers: int
    lost: int
    reasons: Mapping[str, int]
    characters: float | None
    shortened: int
    trained_on: int | None
    scripted: bool


@dataclass(frozen=True, kw_only=True)
class ObserverResult(Record):
    """Who scored.

    Attributes:
        name: as it was given.
        model: what the journal calls it, or the folder of a reward model.
        kind: `model` or `reward`.
        took_part: the models whose training data it rated.
        scripted: it is the scripted observer.
    """

    name: str
    model: str
    kind: str
    took_part: Sequence[str]
    scripted: bool


@dataclass(frozen=True, kw_only=True)
class Score(Record):
    """The mean score of a model, over questions.

    Attributes:
        observer, scale, model: whose score of what.
        mean: of the questions' means over samples; None without a score.
        low, high: the ends of its 95 % interval.
        questions: with at least one score.
        answers: with a score.
        missing: answers with a text and without a score.
    """

    observer: str
    scale: str
    model: str
    mean: float | None
    low: float | None
    high: float | None
    questions: int
    answers: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class LengthControlled(Record):
    """A difference at equal length: the intercept of a regression over questions.

    Attributes:
        n: the number of questions.
        difference: the intercept; None where lengths do not vary, or there are fewer than 3.
        low, high: the ends of its 95 % interval.
        per_100_characters: the slope.
        extrapolated: the length differences of all questions are on one side of 0, so that the
            intercept lies outside of what was seen.
    """

    n: int
    difference: float | None
    low: float | None
    high: float | None
    per_100_characters: float | None
    extrapolated: bool


@dataclass(frozen=True, kw_only=True)
class Difference(Record):
    """The paired difference of two models, `model` minus `against`.

    Attributes:
        observer, scale: whose scores.
        model, against: the models.
        paired: the mean over questions, with its interval.
        at_equal_length: the same, controlled for length.
        left_out: questions without a score of one of the two.
    """

    observer: str
    scale: str
    model: str
    against: str
    paired: Interval
    at_equal_length: LengthControlled
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Wins(Record):
    """Pairwise comparisons of the answers of two models, in both orders.

    Attributes:
        observer: who compared.
        model, against: the models.
        rate: the mean over questions of 1 for a win, 1/2 for a tie, 0 for a loss.
        wins, ties, losses: pairs by outcome, equal ones among the ties.
        equal: pairs of equal texts, which were not shown.
        missing: pairs without an answer of one model, or without one of the two verdicts.
        flipped: the share of shown pairs in which the verdict changed with the order.
        first: the share of verdicts for the answer that was shown first.
    """

    observer: str
    model: str
    against: str
    rate: Interval
    wins: int
    ties: int
    losses: int
    equal: int
    missing: int
    flipped: Share
    first: Share


@dataclass(frozen=True, kw_only=True)
class Safety(Record):
    """Answers to questions of a category.

    Attributes:
        observer, model: who judged whom.
        category: None: of all questions with labels.
        safe: the share of answers that nobody comes to harm by.
    """

    observer: str
    model: str
    category: str | None
    safe: Share


@dataclass(frozen=True, kw_only=True)
class Refusals(Record):
    """Refusals of questions that are harmful, or are not: the latter are over-refusals."""

    observer: str
    model: str
    harmful: bool
    refused: Share


@dataclass(frozen=True, kw_only=True)
class Agreement(Record):
    """How far two observers agree.

    Attributes:
        first, second: the observers.
        scale, other: the scale of each.
        answers: scored by both.
        alpha: Krippendorff's, of interval data; None on different scales.
        spearman: rank correlation over answers.
        differences: questions with a difference between a model and the baseline by both.
        spearman_of_differences: rank correlation over these.
    """

    first: str
    second: str
    scale: str
    other: str
    answers: int
    alpha: float | None
    spearman: float | None
    differences: int
    spearman_of_differences: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """The result of an evaluation.

    Attributes:
        questions: the number of held-out questions.
        samples: answers of each model to each question.
        seed: of answers and orders.
        digest: of the questions, in hex (SHA-256).
        models: the baseline first.
        observers: in the order given.
        scores, differences, wins, safety, refusals, agreement: see their records; `wins` is empty
            without pairwise comparisons, `safety` and `refusals` without labels.
        notes: what a reader has to know.
    """

    questions: int
    samples: int
    seed: int
    digest: str
    models: Sequence[ModelResult]
    observers: Sequence[ObserverResult]
    scores: Sequence[Score]
    differences: Sequence[Difference]
    wins: Sequence[Wins]
    safety: Sequence[Safety]
    refusals: Sequence[Refusals]
    agreement: Sequence[Agreement]
    notes: Sequence[str]
