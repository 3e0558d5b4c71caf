"""Answers to questions: texts, selected ratings, and lineage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from agents.forms import Status
from agents.scale import Declaration, Stage
from sandbox.datasets.choices import Choices
from sandbox.datasets.conversations import ANSWER_FORM, NO_TEXT, Candidate
from sandbox.datasets.format import ROLES, Columns, Removed, Row, Settings
from sandbox.datasets.schema import Schema, goodness, number_type, typed
from sandbox.datasets.source import SourcedExchange
from storage.exchanges import Exchange, GivenRating, Observation

ANSWER, INSTRUCTION = "answer", "instruction"
"""Kinds of rows: answers to questions, and answers to instructions drawn from scenes."""

CANDIDATE = "candidate"
"""In place of a stage: an answer in a conversation of a user."""

INSTRUCTION_FORM = "answer"
"""The name of the prompt template for answers to instructions."""

USER = "user"
"""Who scored the answers of a conversation."""

SHORTENED = "truncated, and kept to its last whole sentence"
NO_RATING = "no readable rating"
LENIENT_RATING = "rating read leniently"
NOT_SCORED = "not scored by the observer"
NOT_EXPECTED = "the backend told no expected rating"

RATED_BY: frozenset[str] = frozenset({"ratings", "scale"})
"""The choices that select the rating."""


def by_peers(choices: Choices) -> bool:
    """Whether the choices select the peers' ratings, not the observer's."""
    return str(choices.ratings).startswith("peers")


def only_rated_by_peers(stages: Sequence[str]) -> str:
    """The rule that removes answers that peers do not rate."""
    return f"peers rate {' and '.join(f'{stage}s' for stage in stages)} alone"


def needs_answers(count: int, declaration: Declaration) -> str | None:
    """What a run lacks of `count` stages that answer the question; None if it has them."""
    if len(declaration.answers) >= count:
        return None
    number = "a stage that answers" if count == 1 else f"{count} stages that answer"
    return f"{number} the question"


def needs_ratings(declaration: Declaration, choices: Choices) -> str | None:
    """What a run lacks of an answer with a rating of the selected kind; None if it has one."""
    missing = needs_answers(1, declaration)
    if missing is not None:
        return missing
    if by_peers(choices):
        scales = [] if declaration.peers is None else [declaration.peers]
        wanted = "peers who rate an answer"
    else:
        scales = [scale for scale in declaration.observed if scale.subject == "stage"]
        wanted = "an observer who rates an answer"
    rated = {stage for scale in scales for stage in declaration.stages_of(scale)}
    return None if rated.intersection(declaration.answers) else wanted


def lineage_columns(schema: Schema) -> Columns:
    """The lineage columns of an answer, in addition to the columns that trainers read.

    `raters` are the peers, and `STAGE_ratings` their ratings of the stage that they rate, whichever
    answer of the exchange is in the row. Both exist only if a run has peers.
    """
    given = [number_type(schema.peers)]
    return {
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
        "policy": "string",
        **({"raters": ["int64"]} if schema.peer_stages else {}),
        **{f"{stage}_ratings": given for stage in schema.peer_stages},
        "scripted": "bool",
    }


class Answer(NamedTuple):
    """An answer.

    Attributes:
        sourced: its exchange.
        stage: its stage; `INSTRUCTION` for the answer to an instruction drawn from a scene,
            `CANDIDATE` for one in a conversation.
        question: the number of the question.
        asked: the text of the question, or what the user said.
        text: the answer.
        rating: the selected rating; None only for answers to instructions, which are not rated.
        rated_by: "peers", or the name of the observer's model.
        reason: the observer's reason.
        settings: the settings of the export.
        number: the number of the instruction within its scene, or of the answer within its
            conversation; otherwise None.
        candidate: the answer as a part of a conversation; otherwise None.
    """

    sourced: SourcedExchange
    stage: str
    question: int
    asked: str
    text: str
    rating: float | None
    rated_by: str | None
    reason: str | None
    settings: Settings
    number: int | None = None
    candidate: Candidate | None = None

    @property
    def prompt(self) -> list[dict[str, str]]:
        """What it answers as a conversation, with the conversation before it."""
        history = () if self.candidate is None else self.candidate.history
        before = [message for said, text in history for message in prompt(said) + completion(text)]
        return before + prompt(self.asked)

    @property
    def prompt_text(self) -> str:
        """The texts of `prompt`, in which tokens are counted."""
        return "\n".join(message["content"] for message in self.prompt)

    @property
    def turn(self) -> int | None:
        """The turn of its conversation; None for other answers."""
        return None if self.candidate is None else self.candidate.turn

    @property
    def id(self) -> str:
        """An id that `inspect` accepts."""
        parts = (self.stage,) if self.number is None else (self.stage, self.number)
        return self.sourced.id(*parts)

    @property
    def score(self) -> float:
        """The rating, which must exist."""
        assert self.rating is not None
        return self.rating

    @property
    def goodness(self) -> float:
        """The rating, negated if lower is better, so that higher is always better."""
        return goodness(self.score, self.settings.rated_on)

    def at_least(self, rating: float) -> bool:
        """Whether the rating is this one or better."""
        return self.goodness >= goodness(rating, self.settings.rated_on)

    def at_most(self, rating: float) -> bool:
        """Whether the rating is this one or worse."""
        return self.goodness <= goodness(rating, self.settings.rated_on)

    def lineage(self) -> dict[str, Any]:
        """The values of the columns of `lineage_columns`."""
        run, exchange = self.sourced.origin.reader.run, self.sourced.exchange
        return {
            "id": self.id,
            "rating": self.rating,
            "rated_by": self.rated_by,
            "reason": self.reason,
            "run": run.name,
            "digest": run.digest,
            "episode": exchange.episode,
            "round": exchange.round,
            "agent": exchange.author,
            "agent_label": exchange.label,
            "stage": self.stage,
            "form": form_of(self.sourced, self.stage),
            "model": exchange.model,
            "policy": self.sourced.origin.policy,
            **self._peers(),
            "scripted": self.sourced.scripted,
        }

    def _peers(self) -> dict[str, Any]:
        """The peers' ratings, in the column of the stage that they rate in this run."""
        schema, own = self.settings.schema, peer_stage(self.sourced.origin.declaration)
        if not schema.peer_stages:
            return {}
        ratings = () if self.number is not None else self.sourced.exchange.ratings
        values = [typed(given.rating, schema.peers) for given in ratings]
        return {
            "raters": [given.rater for given in ratings],
            **{f"{stage}_ratings": values if stage == own else [] for stage in schema.peer_stages},
        }

    def row(self, kind: str, data: dict[str, Any], dedup_class: str = "") -> Row:
        """Create a row with this answer and its lineage.

        Args:
            kind: one of the kinds of the format.
            data: the columns that trainers read.
            dedup_class: rows of different classes are never near-duplicates of each other.
        """
        asked = "" if self.candidate is None else f"{self.asked}\n"
        return Row(
            kind=kind,
            id=self.id,
            sourced=self.sourced,
            question=self.question,
            data=data | self.lineage(),
            prompt=self.prompt_text,
            answers=(self.text,),
            dedup_text=f"{dedup_class}{asked}{self.text}",
            rating=self.rating,
        )


def form_of(sourced: SourcedExchange, stage: str) -> str | None:
    """The name of the prompt template whose reply is the text of a stage."""
    if stage == INSTRUCTION:
        return INSTRUCTION_FORM
    if stage == CANDIDATE:
        return ANSWER_FORM
    return declared_stage(sourced.origin.declaration, stage).form


def declared_stage(declaration: Declaration, name: str) -> Stage:
    """The stage with this name, which must exist."""
    return next(stage for stage in declaration.stages if stage.name == name)


def peer_stage(declaration: Declaration) -> str | None:
    """The stage that peers rate; None without peers."""
    peers = declaration.peers
    return None if peers is None else next(iter(declaration.stages_of(peers)), None)


def prompt(text: str) -> list[dict[str, str]]:
    """A question as a conversation."""
    return [{"role": ROLES[0], "content": text}]


def completion(text: str) -> list[dict[str, str]]:
    """An answer as the continuation of a conversation."""
    return [{"role": ROLES[1], "content": text}]


def answers(
    same_question: Sequence[SourcedExchange], kind: str, settings: Settings
) -> Iterator[Answer | Removed]:
    """Yield all answers with the selected rating, or the rule that removes them."""
    for sourced in same_question:
        if sourced.origin.schema.conversations:
            yield from candidates(sourced, kind, settings)
            continue
        for stage in sourced.origin.declaration.answers:
            found = answer(sourced, stage, settings)
            yield Removed(kind, found, sourced.id(stage)) if isinstance(found, str) else found


def candidates(
    sourced: SourcedExchange, kind: str, settings: Settings
) -> Iterator[Answer | Removed]:
    """Yield the scored answers of a conversation, turn by turn, or the rule that removes them."""
    conversation = sourced.conversation
    for one in () if conversation is None else conversation.candidates:
        rule = one.rule or _not_scored(sourced, one, settings)
        if rule is not None:
            yield Removed(kind, rule, sourced.id(CANDIDATE, one.number))
        else:
            yield Answer(
                sourced=sourced,
                stage=CANDIDATE,
                question=sourced.question,
                asked=one.prompt,
                text=one.answer,
                rating=one.score,
                rated_by=USER,
                reason=None,
                settings=settings,
                number=one.number,
                candidate=one,
            )


def _not_scored(sourced: SourcedExchange, one: Candidate, settings: Settings) -> str | None:
    """Why a candidate has no rating of the selected kind; None if it has one."""
    scales = {scale.name: scale for scale in sourced.origin.declaration.observed}
    scale = scales.get(str(settings.choices.scale))
    if scale is None or scale.rater != "author":
        return f"users do not score {settings.choices.scale}"
    if settings.choices.ratings == "observer-expected":
        return NOT_EXPECTED
    return NO_RATING if one.score is None else None


def answer(sourced: SourcedExchange, stage: str, settings: Settings) -> Answer | str:
    """Return the answer of a stage with the selected rating, or the rule that removes it."""
    exchange = sourced.exchange
    text = exchange.texts.get(stage)
    if text is None:
        return no_text(sourced, stage)
    rated = _rated(sourced, stage, settings)
    if isinstance(rated, str):
        return rated
    rating, rated_by, reason = rated
    return Answer(
        sourced=sourced,
        stage=stage,
        question=sourced.question,
        asked=exchange.question,
        text=text,
        rating=rating,
        rated_by=rated_by,
        reason=reason,
        settings=settings,
    )


def no_text(sourced: SourcedExchange, stage: str) -> str:
    """The rule that removes an answer without a text.

    Texts that broke a rule of the policy are left out, and shortened ones by default.
    """
    exchange, broken = sourced.exchange, sourced.aside.broken.get(stage)
    if broken is not None:
        return broken.reason
    return SHORTENED if stage in exchange.shortened else NO_TEXT


def _rated(
    sourced: SourcedExchange, stage: str, settings: Settings
) -> tuple[float, str, str | None] | str:
    """Return the selected rating, its rater and reason, or the rule that removes the answer."""
    exchange, choices = sourced.exchange, settings.choices
    if by_peers(choices):
        rated = peer_stage(sourced.origin.declaration)
        if stage != rated:
            return NOT_SCORED if rated is None else only_rated_by_peers([rated])
        mean = _peers(exchange, choices)
        if mean is None:
            return NOT_EXPECTED if exchange.mean_rating is not None else no_rating(exchange.ratings)
        return mean, "peers", None
    seen = exchange.observation(stage, str(choices.scale))
    if seen is None:
        return NOT_SCORED
    if seen.rating is None:
        return no_rating([seen])
    rating = seen.expected if choices.ratings == "observer-expected" else seen.rating
    return NOT_EXPECTED if rating is None else (float(rating), seen.model, seen.reason)


def no_rating(given: Sequence[GivenRating | Observation]) -> str:
    """The rule that removes an answer without a rating; lenient ones may be left out by choice."""
    lenient = any(one.rating is None and one.status == Status.LENIENT for one in given)
    return LENIENT_RATING if lenient else NO_RATING


def _peers(exchange: Exchange, choices: Choices) -> float | None:
    """The mean of the peers' ratings or of their expected ratings; None if there are none."""
    if choices.ratings == "peers":
        return exchange.mean_rating
    read = [given for given in exchange.ratings if given.rating is not None]
    expected = [given.expected for given in read if given.expected is not None]
    return sum(expected) / len(expected) if expected else None


def instructed(
    same_question: Sequence[SourcedExchange], settings: Settings
) -> Iterator[Answer | Removed]:
    """Yield the answers to instructions drawn from scenes, which are not rated.

    Where one of them broke a rule of the policy, all of its scene are left out.
    """
    for sourced in same_question:
        notes = sourced.exchange.scene.notes if sourced.exchange.scene else ()
        number = 0
        for first, second in pairwise(notes):
            if (first.kind, second.kind) == ("instruction", "answer"):
                broken = sourced.aside.instructions
                if broken is not None:
                    name = sourced.id(INSTRUCTION, number)
                    yield Removed(INSTRUCTION, f"its scene {broken.reason}", name)
                    number += 1
                    continue
                yield Answer(
                    sourced=sourced,
                    stage=INSTRUCTION,
                    question=sourced.numbers[first.text],
                    asked=first.text,
                    text=second.text,
                    rating=None,
                    rated_by=None,
                    reason=None,
                    settings=settings,
                    number=number,
                )
                number += 1


def best(rated: Sequence[Answer]) -> Answer:
    """The best rated answer; ties go to the later stage, then to the first."""
    return max(rated, key=_rank)


def worst(rated: Sequence[Answer]) -> Answer:
    """The worst rated answer; ties go to the earlier stage, then to the first."""
    return min(rated, key=_rank)


def _rank(answer: Answer) -> tuple[float, int]:
    return answer.goodness, answer.sourced.origin.declaration.answers.index(answer.stage)
