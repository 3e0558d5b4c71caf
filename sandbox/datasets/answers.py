"""Answers: drafts and revisions with the rating that counts, and where each is from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from sandbox.datasets.choices import Choices
from sandbox.datasets.rows import ROLES, Columns, Removed, Row
from sandbox.datasets.source import Told
from storage.exchanges import Exchange

ANSWER, INSTRUCTION = "answer", "instruction"
"""The kinds: answers to questions, and those to instructions that were drawn from scenes."""

DRAFT, REVISION = STAGES = ("draft", "revision")

FORMS = {DRAFT: "draft", REVISION: "revise", INSTRUCTION: "answer"}
"""The form that brings the text of a stage."""

NO_TEXT = "no such text"
NO_RATING = "no readable rating"
NOT_SCORED = "not scored by the observer"
NOT_EXPECTED = "the backend told no expected rating"
PEERS_RATE_DRAFTS = "peers rate drafts alone"

RATED_BY: frozenset[str] = frozenset({"ratings", "scale"})
"""The choices that say which rating counts."""

LINEAGE: Columns = {
    "id": "string",
    "rating": "float64",
    "rated_by": "string",
    "reason": "string",
    "run": "string",
    "digest": "string",
    "episode": "int64",
    "round": "int64",
    "agent": "int64",
    "agent_label": "string",
    "stage": "string",
    "form": "string",
    "model": "string",
    "raters": ["int64"],
    "draft_ratings": ["int64"],
    "scripted": "bool",
}
"""Where an answer is from: columns that stand beside those that trainers read. `raters` are the
peers, and `draft_ratings` what they gave the exchange's draft, of which a revision is made."""


class Answer(NamedTuple):
    """One answer.

    Attributes:
        told: the exchange that it is from.
        stage: draft, revision, or instruction: the answer to an instruction drawn from a scene.
        question: the number of what it answers.
        asked: what it answers.
        text: the answer.
        rating: what counts, from 1 (worst) to 7 (best); None only for an instruction's answer,
            which nobody rates.
        rated_by: who gave the rating: peers, or the name of the observer's model.
        reason: the observer's reason.
        number: of the instruction within its scene; None elsewhere.
    """

    told: Told
    stage: str
    question: int
    asked: str
    text: str
    rating: float | None
    rated_by: str | None
    reason: str | None
    number: int | None = None

    @property
    def id(self) -> str:
        """What `inspect` takes back to the exchange."""
        parts = (self.stage,) if self.number is None else (self.stage, self.number)
        return self.told.id(*parts)

    @property
    def score(self) -> float:
        """The rating of an answer that is rated."""
        assert self.rating is not None
        return self.rating

    def lineage(self) -> dict[str, Any]:
        """The values of the columns of `LINEAGE`."""
        run, one = self.told.origin.reader.run, self.told.exchange
        peers = () if self.stage == INSTRUCTION else one.ratings
        return {
            "id": self.id,
            "rating": self.rating,
            "rated_by": self.rated_by,
            "reason": self.reason,
            "run": run.name,
            "digest": run.digest,
            "episode": one.episode,
            "round": one.round,
            "agent": one.author,
            "agent_label": one.label,
            "stage": self.stage,
            "form": FORMS[self.stage],
            "model": one.model,
            "raters": [given.rater for given in peers],
            "draft_ratings": [given.rating for given in peers],
            "scripted": self.told.scripted,
        }

    def row(self, kind: str, data: dict[str, Any], like: str = "") -> Row:
        """A row with this answer and its lineage; `like` tells apart what is not compared."""
        return Row(
            kind=kind,
            id=self.id,
            told=self.told,
            question=self.question,
            data=data | self.lineage(),
            prompt=self.asked,
            answers=(self.text,),
            like=f"{like}{self.text}",
            rating=self.rating,
        )


def prompt(text: str) -> list[dict[str, str]]:
    """What is asked, as a conversation."""
    return [{"role": ROLES[0], "content": text}]


def completion(text: str) -> list[dict[str, str]]:
    """An answer, as what goes on with a conversation."""
    return [{"role": ROLES[1], "content": text}]


def answers(about: Sequence[Told], kind: str, choices: Choices) -> Iterator[Answer | Removed]:
    """Drafts and revisions, each with the rating that counts or the rule that removes it."""
    for told in about:
        for stage in STAGES:
            found = answer(told, stage, choices)
            yield Removed(kind, found, told.id(stage)) if isinstance(found, str) else found


def answer(told: Told, stage: str, choices: Choices) -> Answer | str:
    """The answer of a stage with the rating that counts, or the rule that removes it."""
    one = told.exchange
    text = one.draft if stage == DRAFT else one.revision
    if text is None:
        return NO_TEXT
    rated = _rated(one, stage, choices)
    if isinstance(rated, str):
        return rated
    return Answer(told, stage, told.question, one.question, text, *rated)


def _rated(one: Exchange, stage: str, choices: Choices) -> tuple[float, str, str | None] | str:
    """The rating that counts, who gave it and why; or why there is none."""
    if str(choices.ratings).startswith("peers"):
        if stage != DRAFT:
            return PEERS_RATE_DRAFTS
        mean = _peers(one, choices)
        if mean is None:
            return NO_RATING if one.mean_rating is None else NOT_EXPECTED
        return mean, "peers", None
    seen = one.observation(stage, str(choices.scale))
    if seen is None:
        return NOT_SCORED
    if seen.rating is None:
        return NO_RATING
    rating = seen.expected if choices.ratings == "observer-expected" else seen.rating
    return NOT_EXPECTED if rating is None else (float(rating), seen.model, seen.reason)


def _peers(exchange: Exchange, choices: Choices) -> float | None:
    """The mean of what peers gave or are expected to give; None where there is none."""
    if choices.ratings == "peers":
        return exchange.mean_rating
    read = [given for given in exchange.ratings if given.rating is not None]
    expected = [given.expected for given in read if given.expected is not None]
    return sum(expected) / len(expected) if expected else None


def instructed(about: Sequence[Told]) -> Iterator[Answer]:
    """The answers to the instructions that were drawn from scenes; nobody rates them."""
    for told in about:
        notes = told.exchange.scene.notes if told.exchange.scene else ()
        number = 0
        for first, second in pairwise(notes):
            if (first.kind, second.kind) == ("instruction", "answer"):
                asked = told.numbers[first.text]
                texts = (first.text, second.text)
                yield Answer(told, INSTRUCTION, asked, *texts, None, None, None, number)
                number += 1


def best(found: Sequence[Answer]) -> Answer:
    """The best rated; of equal ones a revision before a draft, then the first."""
    return max(found, key=lambda one: (one.score, one.stage == REVISION))


def worst(found: Sequence[Answer]) -> Answer:
    """The worst rated; of equal ones a draft before a revision, then the first."""
    return min(found, key=lambda one: (one.score, one.stage == REVISION))
