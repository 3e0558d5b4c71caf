"""The format `prompts`: questions for online training, which samples its own answers (GRPO)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agents.scale import Declaration
from sandbox.datasets.answers import (
    INSTRUCTION,
    RATED_BY,
    Answer,
    answers,
    best,
    instructed,
    lineage_columns,
    needs_answers,
    prompt,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.format import MESSAGES, Columns, Format, Removed, Row, Settings
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import SourcedExchange

QUESTION = "question"

_OF_REFERENCE = ("rating", "id", "model")
_OWN = ("id", "run", "digest", "episode", "round", "agent", "policy")


def needs(declaration: Declaration, choices: Choices) -> str | None:
    """What a run lacks of an answer, rated or not; None if it has one."""
    return needs_answers(1, declaration)


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield the question with its best rated answer, then the instructions drawn from scenes."""
    rated = [one for one in answers(same_question, QUESTION, settings) if isinstance(one, Answer)]
    means = {
        stage: _mean([one.score for one in rated if one.stage == stage])
        for stage in settings.schema.first_answers
    }
    first = same_question[0]
    yield _row(
        sourced=first,
        kind=QUESTION,
        question=first.question,
        asked=first.exchange.question,
        name=first.id(),
        times=len(same_question),
        means=means,
        reference=best(rated) if rated else None,
    )
    for answer in instructed(same_question, settings):
        if isinstance(answer, Removed):
            yield answer
            continue
        yield _row(
            sourced=answer.sourced,
            kind=INSTRUCTION,
            question=answer.question,
            asked=answer.asked,
            name=answer.id,
            times=1,
            means=dict.fromkeys(means),
            reference=answer,
        )


def _mean(ratings: Sequence[float]) -> float | None:
    return sum(ratings) / len(ratings) if ratings else None


def _row(
    *,
    sourced: SourcedExchange,
    kind: str,
    question: int,
    asked: str,
    name: str,
    times: int,
    means: dict[str, float | None],
    reference: Answer | None,
) -> Row:
    run, exchange = sourced.origin.reader.run, sourced.exchange
    lineage = {} if reference is None else reference.lineage()
    data: dict[str, Any] = {
        "prompt": prompt(asked),
        "kind": kind,
        "asked": times,
        **{f"{stage}_rating": mean for stage, mean in means.items()},
        "source": exchange.question_source if kind == QUESTION else None,
        "reference": reference and reference.text,
        **{f"reference_{key}": lineage.get(key) for key in _OF_REFERENCE},
        "id": name,
        "run": run.name,
        "digest": run.digest,
        "episode": exchange.episode,
        "round": exchange.round,
        "agent": exchange.author,
        "policy": sourced.origin.policy,
        "scripted": sourced.scripted,
    }
    return Row(
        kind=kind,
        id=name,
        sourced=sourced,
        question=question,
        data=data,
        prompt=asked,
        answers=(),
        dedup_text=asked,
        rating=next((mean for mean in means.values() if mean is not None), None),
    )


def columns(schema: Schema) -> Columns:
    """The columns: a question, its mean ratings, its best answer, and lineage."""
    lineage = lineage_columns(schema)
    return {
        "prompt": MESSAGES,
        "kind": "string",
        "asked": "int64",
        **{f"{stage}_rating": "float64" for stage in schema.first_answers},
        "source": "string",
        "reference": "string",
        **{f"reference_{key}": lineage[key] for key in _OF_REFERENCE},
        **{key: lineage[key] for key in _OWN},
        "scripted": "bool",
    }


PROMPTS = Format(
    name="prompts",
    about=(
        "Every question once, for online training such as GRPO and RLOO. `asked` is the number of "
        "times that it was asked; the mean rating of first answers (`draft_rating` if the first "
        "answer is a draft) indicates its difficulty; `reference` is its best rated answer. All "
        "columns are passed to reward functions. Rows of the kind `instruction` are drawn from "
        "scenes."
    ),
    kinds=(QUESTION, INSTRUCTION),
    columns=columns,
    rows=rows,
    needs=needs,
    uses=RATED_BY | {"mix"},
)
