"""The format `rated`: all answers to a question with their ratings and reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from random import Random
from typing import Any

from sandbox.datasets.answers import (
    ANSWER,
    RATED_BY,
    Answer,
    answers,
    lineage_columns,
    needs_ratings,
)
from sandbox.datasets.format import TOO_LONG, Columns, Format, Removed, Row, Settings
from sandbox.datasets.near_duplicates import NEAR, NearDuplicates
from sandbox.datasets.sampling import PER_QUESTION
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import SourcedExchange

ALONE = "no second rated answer"
LATER = "not of the first turn of its conversation"

_RENAMED = {
    "id": "ids",
    "rated_by": "rated_by",
    "run": "runs",
    "digest": "digests",
    "episode": "episodes",
    "round": "rounds",
    "agent": "agents",
    "stage": "stages",
    "form": "forms",
    "policy": "policies",
}
_ELSEWHERE = ("rating", "reason", "agent_label", "model", "scripted")


def _lists(schema: Schema) -> dict[str, str]:
    """The names of list columns, by the lineage column that they collect."""
    columns = lineage_columns(schema)
    return {name: _RENAMED.get(name, name) for name in columns if name not in _ELSEWHERE}


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield one row with the answers to a question, if there are at least two.

    Of a conversation there is one with the answers of the first turn.
    """
    talks = [sourced for sourced in same_question if sourced.origin.schema.conversations]
    others = [sourced for sourced in same_question if not sourced.origin.schema.conversations]
    for group in [*([talk] for talk in talks), *([others] if others else [])]:
        yield from _of_one(group, settings)


def _of_one(same: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield one row with the answers to the same words."""
    near = NearDuplicates(settings.choices.near)
    distinct: list[Answer] = []
    for answer in answers(same, ANSWER, settings):
        if isinstance(answer, Removed):
            yield answer
        elif answer.turn:
            yield Removed(ANSWER, LATER, answer.id)
        elif near.add(answer.text).any:
            yield Removed(ANSWER, NEAR, answer.id)
        else:
            distinct.append(answer)
    asked = distinct[0].asked if distinct else ""
    long = settings.too_long(asked, [one.text for one in distinct])
    yield from (Removed(ANSWER, TOO_LONG, one.id) for one in compress(distinct, long))
    fitting = [one for one, too_long in zip(distinct, long, strict=True) if not too_long]
    drawn = _drawn(fitting, settings)
    yield from (Removed(ANSWER, PER_QUESTION, one.id) for one in fitting if one not in drawn)
    if len(drawn) > 1:
        yield _row(drawn, settings)
    yield from (Removed(ANSWER, ALONE, one.id) for one in drawn if len(drawn) == 1)


def _drawn(distinct: list[Answer], settings: Settings) -> list[Answer]:
    """Draw at most `max_per_question` of the answers by the seed, in their order."""
    limit = settings.choices.max_per_question
    if limit is None or len(distinct) <= limit:
        return distinct
    random = Random(f"{settings.choices.seed}/{distinct[0].asked}")
    return [distinct[index] for index in sorted(random.sample(range(len(distinct)), limit))]


def _row(drawn: Sequence[Answer], settings: Settings) -> Row:
    lineages = [one.lineage() for one in drawn]
    goodness = [one.goodness for one in drawn]
    data: dict[str, Any] = {
        "id": drawn[0].id,
        "instruction": drawn[0].asked,
        "generations": [one.text for one in drawn],
        "generation_models": [lineage["model"] for lineage in lineages],
        "ratings": [one.score for one in drawn],
        "rationales": [lineage["reason"] for lineage in lineages],
        **{
            plural: [lineage[name] for lineage in lineages]
            for name, plural in _lists(settings.schema).items()
        },
        "scripted": any(lineage["scripted"] for lineage in lineages),
    }
    return Row(
        kind=ANSWER,
        id=drawn[0].id,
        sourced=drawn[0].sourced,
        question=drawn[0].question,
        data=data,
        prompt=drawn[0].asked,
        answers=tuple(one.text for one in drawn),
        rating=max(drawn, key=lambda one: one.goodness).score,
        margin=max(goodness) - min(goodness),
        size=len(drawn),
    )


def columns(schema: Schema) -> Columns:
    """The columns: a question, and lists with an entry for each answer."""
    lineage = lineage_columns(schema)
    return {
        "id": "string",
        "instruction": "string",
        "generations": ["string"],
        "generation_models": ["string"],
        "ratings": ["float64"],
        "rationales": ["string"],
        **{plural: [lineage[name]] for name, plural in _lists(schema).items()},
        "scripted": "bool",
    }


RATED = Format(
    name="rated",
    about=(
        "Several rated answers to one question, with the columns of UltraFeedback as written by "
        "distilabel: `instruction`, and lists with an entry for each answer in `generations`, "
        "`generation_models`, `ratings`, `rationales` and the lineage columns. Of a conversation "
        "there is a row with the answers of the first turn. "
        "`max_per_question` limits the answers in a row."
    ),
    kinds=(ANSWER,),
    columns=columns,
    rows=rows,
    needs=needs_ratings,
    uses=RATED_BY,
    own=frozenset({"max_per_question"}),
    conversations="also",
    counts="answers",
)
