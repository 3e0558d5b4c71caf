"""The format `rated`: all answers to a question with their ratings and reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from sandbox.datasets.answers import ANSWER, RATED_BY, Answer, answers
from sandbox.datasets.choices import Choices
from sandbox.datasets.near import NEAR, Near
from sandbox.datasets.rows import Columns, Format, Removed, Row
from sandbox.datasets.source import Told

ALONE = "no second rated answer"
ENOUGH = "more than max_per_question"


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """One row with the answers to a question, where there are two or more."""
    near, found = Near(choices.near), list[Answer]()
    for one in answers(about, ANSWER, choices):
        if isinstance(one, Removed):
            yield one
        elif near.add(one.text).any:
            yield Removed(ANSWER, NEAR, one.id)
        else:
            found.append(one)
    kept = _drawn(found, choices)
    yield from (Removed(ANSWER, ENOUGH, one.id) for one in found if one not in kept)
    if len(kept) > 1:
        yield _row(kept)
    yield from (Removed(ANSWER, ALONE, one.id) for one in kept if len(kept) == 1)


def _drawn(found: list[Answer], choices: Choices) -> list[Answer]:
    """At most so many of them, by chance and by the seed, in their order."""
    limit = choices.max_per_question
    if limit is None or len(found) <= limit:
        return found
    chance = Random(f"{choices.seed}/{found[0].asked}")
    return [found[place] for place in sorted(chance.sample(range(len(found)), limit))]


def _row(found: Sequence[Answer]) -> Row:
    told = [one.lineage() for one in found]
    scores = [one.score for one in found]
    data: dict[str, Any] = {
        "id": found[0].id,
        "instruction": found[0].asked,
        "generations": [one.text for one in found],
        "generation_models": [one["model"] for one in told],
        "ratings": scores,
        "rationales": [one["reason"] for one in told],
        **{plural: [one[name] for one in told] for plural, (name, _) in _LISTS.items()},
        "scripted": any(one["scripted"] for one in told),
    }
    return Row(
        kind=ANSWER,
        id=found[0].id,
        told=found[0].told,
        question=found[0].question,
        data=data,
        prompt=found[0].asked,
        answers=tuple(one.text for one in found),
        rating=max(scores),
        margin=max(scores) - min(scores),
        size=len(found),
    )


_LISTS = {
    "ids": ("id", "string"),
    "rated_by": ("rated_by", "string"),
    "runs": ("run", "string"),
    "digests": ("digest", "string"),
    "episodes": ("episode", "int64"),
    "rounds": ("round", "int64"),
    "agents": ("agent", "int64"),
    "stages": ("stage", "string"),
    "forms": ("form", "string"),
    "raters": ("raters", ["int64"]),
    "draft_ratings": ("draft_ratings", ["int64"]),
}
"""What says of each answer where it is from: the column, and what it is called in lineages."""

_COLUMNS: Columns = {
    "id": "string",
    "instruction": "string",
    "generations": ["string"],
    "generation_models": ["string"],
    "ratings": ["float64"],
    "rationales": ["string"],
    **{plural: [one] for plural, (_, one) in _LISTS.items()},
    "scripted": "bool",
}

RATED = Format(
    name="rated",
    about=(
        "Many rated answers to one question, in the columns of UltraFeedback as distilabel writes "
        "it: `instruction`, and under `generations`, `generation_models`, `ratings` (1 to 7) and "
        "`rationales` one entry an answer. So are the columns that say where each is from. "
        "`max_per_question` limits the answers in a row."
    ),
    kinds=(ANSWER,),
    columns=_COLUMNS,
    rows=rows,
    uses=RATED_BY,
    own=frozenset({"max_per_question"}),
    counts="answers",
)
