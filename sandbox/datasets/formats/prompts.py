"""The format `prompts`: what can be asked, for training that samples its own answers (GRPO)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sandbox.datasets.answers import (
    DRAFT,
    INSTRUCTION,
    LINEAGE,
    RATED_BY,
    Answer,
    answers,
    best,
    instructed,
    prompt,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.rows import MESSAGES, Columns, Format, Removed, Row
from sandbox.datasets.source import Told

QUESTION = "question"

_OF_REFERENCE: Columns = {f"reference_{name}": LINEAGE[name] for name in ("rating", "id", "model")}
_OWN: Columns = {
    name: LINEAGE[name] for name in ("id", "run", "digest", "episode", "round", "agent")
}


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """The question with the best answer that was given to it, and what was drawn from scenes."""
    found = [one for one in answers(about, QUESTION, choices) if isinstance(one, Answer)]
    drafts = [one.score for one in found if one.stage == DRAFT]
    values = {
        "kind": QUESTION,
        "asked": len(about),
        "draft_rating": sum(drafts) / len(drafts) if drafts else None,
    }
    first, reference = about[0], best(found) if found else None
    yield _row(first, first.question, first.exchange.question, first.id(), values, reference)
    for one in instructed(about):
        drawn = {"kind": INSTRUCTION, "asked": 1, "draft_rating": None}
        yield _row(one.told, one.question, one.asked, one.id, drawn, one)


def _row(
    told: Told,
    number: int,
    asked: str,
    made: str,
    values: dict[str, Any],
    reference: Answer | None,
) -> Row:
    run, one = told.origin.reader.run, told.exchange
    answered = {} if reference is None else reference.lineage()
    data = {
        "prompt": prompt(asked),
        **values,
        "source": one.question_source if values["kind"] == QUESTION else None,
        "reference": reference and reference.text,
        **{f"reference_{name}": answered.get(name) for name in ("rating", "id", "model")},
        **{"id": made, "run": run.name, "digest": run.digest, "episode": one.episode},
        **{"round": one.round, "agent": one.author},
        "scripted": told.scripted,
    }
    kind = str(values["kind"])
    return Row(kind, made, told, number, data, asked, (), asked, values["draft_rating"])


PROMPTS = Format(
    name="prompts",
    about=(
        "What was asked, each question once, for training that samples its own answers (GRPO, "
        "RLOO). `asked` is how often, `draft_rating` the mean rating of first answers (how hard "
        "it is), `reference` the best rated answer that was given; all of them reach reward "
        "functions. Rows of the kind `instruction` were drawn from scenes."
    ),
    kinds=(QUESTION, INSTRUCTION),
    columns={
        "prompt": MESSAGES,
        "kind": "string",
        "asked": "int64",
        "draft_rating": "float64",
        "source": "string",
        "reference": "string",
        **_OF_REFERENCE,
        **_OWN,
        "scripted": "bool",
    },
    rows=rows,
    uses=RATED_BY | {"mix"},
)
