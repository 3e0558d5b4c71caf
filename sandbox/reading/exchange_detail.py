"""One exchange with its ratings, calls and text changes, and a list of all its texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import select

from agents.forms import READ
from agents.scale import Declaration
from sandbox.reading.calls import Call, calls_of
from sandbox.reading.conversation import Breach, Conversation, breaches, conversation
from sandbox.reading.declaration import declaration_of
from sandbox.reading.influence import new_words, uptake, words
from sandbox.reading.records import PAGES_ONLY, Record
from sandbox.reading.text_diff import Piece, changes, words_kept
from storage import tables
from storage.errors import NotThere
from storage.exchanges import (
    Exchange,
    GivenRating,
    Observation,
    exchange,
)
from storage.reader import Journalled, Reader
from storage.scenes import Scene


class Adopted(NamedTuple):
    """What the last answer took up of a rater's reason.

    Attributes:
        share: of the words that are new in the last answer, the share that the reason contains; see
            `sandbox.reading.influence.uptake`.
        words: these words, in lower case.
    """

    share: float
    words: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ExchangeDetail(Record):
    """One exchange with all ratings, observations and calls.

    The attributes of `storage.exchanges.Exchange`, and:
        mean_rating: the mean of the peers' ratings.
        models: the names of all models that took part.
        calls: in the order of the journal.
        conversation: in worlds with conversations.
        breaches: all replies that broke a rule of the policy.
        exchange: the exchange itself.
        changes: by stage, the word diff against the previous stage; None where a text is missing.
        kept: by stage, the share of the previous stage's words that it keeps; see `words_kept`.
        adopted: by rater, the words of its reason that the last answer took up.
        question_number: the number of the question within the run.
        previous, next: the numbers of the stored exchanges before and after it.
    """

    episode: int
    round: int
    author: int | None
    label: str | None
    persona: str | None
    question: str
    question_source: str | None
    texts: Mapping[str, str | None]
    ratings: Sequence[GivenRating]
    failed_at: str | None
    observations: Sequence[Observation]
    model: str
    scene: Scene | None
    shortened: Sequence[str]
    mean_rating: float | None
    models: Sequence[str]
    calls: Sequence[Call]
    conversation: Conversation | None
    breaches: Sequence[Breach]
    exchange: Exchange = field(metadata=PAGES_ONLY)
    changes: Mapping[str, Sequence[Piece] | None] = field(metadata=PAGES_ONLY)
    kept: Mapping[str, float | None] = field(metadata=PAGES_ONLY)
    adopted: Mapping[int, Adopted] = field(metadata=PAGES_ONLY)
    question_number: int = field(metadata=PAGES_ONLY)
    previous: int | None = field(metadata=PAGES_ONLY)
    next: int | None = field(metadata=PAGES_ONLY)
    declaration: Declaration = field(metadata=PAGES_ONLY)

    @property
    def adopted_words(self) -> frozenset[str]:
        """All words that the last answer took up of raters' reasons."""
        return frozenset[str]().union(*(taken.words for taken in self.adopted.values()))


def read_exchange(reader: Reader, number: int) -> ExchangeDetail:
    """Read one exchange, by its number within the run.

    Raises:
        NotThere: there is no such exchange.
    """
    stored, declared = exchange(reader, number), declaration_of(reader)
    if stored is None:
        last = reader.run.rounds * reader.run.per_round - 1
        raise NotThere(f"episode {number}: not played; expected a played one of 0 to {last}")
    previous, following = _neighbours(reader, number)
    changed = stage_changes(stored)
    question = select(tables.episodes.c.question_id).where(
        tables.episodes.c.id == reader.base + number
    )
    return ExchangeDetail(
        **stored._asdict(),
        mean_rating=stored.mean_rating,
        models=sorted(stored.models),
        calls=calls_of(reader, [number]),
        conversation=conversation(reader, number),
        breaches=[one for each in breaches(reader, number).values() for one in each],
        exchange=stored,
        changes=changed,
        kept={stage: words_kept(pieces) for stage, pieces in changed.items()},
        adopted=adopted_advice(stored, declared),
        question_number=int(reader.scalar(question)) - reader.base,
        previous=previous,
        next=following,
        declaration=declared,
    )


def _neighbours(reader: Reader, number: int) -> tuple[int | None, int | None]:
    e = tables.episodes
    one_id = select(e.c.id).where(e.c.run_id == reader.run.id).limit(1)
    before = reader.scalar(one_id.where(e.c.id < reader.base + number).order_by(e.c.id.desc()))
    after = reader.scalar(one_id.where(e.c.id > reader.base + number).order_by(e.c.id))
    return before and before - reader.base, after and after - reader.base


def stage_changes(exchange: Exchange) -> dict[str, list[Piece] | None]:
    """The word diff of each stage against the previous stage; the first stage is left out."""
    stages = list(exchange.texts)
    return {
        stage: changes(exchange.texts[before], exchange.texts[stage])
        for before, stage in pairwise(stages)
    }


def adopted_advice(exchange: Exchange, declared: Declaration) -> dict[int, Adopted]:
    """By rater, what the last answer took up of its reason.

    Empty where peers do not rate or a text is missing; raters without a reason are left out.
    """
    rated = declared.stages_of(declared.peers) if declared.peers is not None else ()
    if not rated or not declared.answers:
        return {}
    new = new_words(exchange.texts.get(rated[0]), exchange.texts.get(declared.answers[-1]))
    if new is None:
        return {}
    return {
        given.rater: Adopted(uptake(new, given.reason), frozenset(new & words(given.reason)))
        for given in exchange.ratings
        if given.reason is not None
    }


def text_parts(exchange: Exchange) -> Iterator[tuple[str, str | None]]:
    """All texts of an exchange, each with the name of the part that it belongs to."""
    yield "question", exchange.question
    yield from exchange.texts.items()
    yield from ((f"rating by {given.rater}", given.reason) for given in exchange.ratings)
    yield from (
        (f"reason, {seen.stage}, {seen.scale}", seen.reason) for seen in exchange.observations
    )
    if exchange.scene is not None:
        for part in exchange.scene.parts:
            yield from (("part", part.name), ("part", part.about))
        for act in exchange.scene.acts:
            yield from (("act", act.text), ("modulator", act.why), ("critic", act.critique))
        yield from ((note.kind, note.text) for note in exchange.scene.notes)


def unused_texts(calls: Iterable[Journalled]) -> Iterator[tuple[str, str | None]]:
    """Model texts that are not part of an exchange: unusable replies, and reasoning."""
    for call in calls:
        if call.status not in READ:
            yield f"{call.form}, {call.status}", call.reply
        yield f"{call.form}, reasoning", call.thinking
