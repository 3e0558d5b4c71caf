"""The format `sft`: answers worth imitating, as conversations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from sandbox.datasets.answers import (
    ANSWER,
    INSTRUCTION,
    LINEAGE,
    RATED_BY,
    Answer,
    answers,
    best,
    completion,
    instructed,
    prompt,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.rows import MESSAGES, Format, Removed, Row
from sandbox.datasets.source import Told

NOT_BEST = {"exchange": "not the best of its exchange", "question": "not the best of its question"}


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """The best answers, if they are good enough, and what was drawn from scenes."""
    found: list[Answer] = []
    for one in answers(about, ANSWER, choices):
        if isinstance(one, Removed):
            yield one
        else:
            found.append(one)
    for group in _groups(found, choices):
        top = best(group)
        for one in group:
            rule = _rule(one, top, choices)
            yield _row(ANSWER, one) if rule is None else Removed(ANSWER, rule, one.id)
    yield from (_row(INSTRUCTION, one) for one in instructed(about))


def _groups(found: Sequence[Answer], choices: Choices) -> Iterator[list[Answer]]:
    """The answers of which the best is taken."""
    if choices.pick == "exchange":
        for _, group in groupby(found, key=lambda one: one.told.id()):
            yield list(group)
    elif found:
        yield list(found)


def _rule(one: Answer, top: Answer, choices: Choices) -> str | None:
    if choices.pick != "all" and one is not top:
        return NOT_BEST[str(choices.pick)]
    low = one.score < (choices.min_rating or 0)
    return f"rated below {choices.min_rating:g}" if low else None


def _row(kind: str, one: Answer) -> Row:
    return one.row(kind, {"messages": prompt(one.asked) + completion(one.text), "kind": kind})


SFT = Format(
    name="sft",
    about=(
        "Conversations for supervised fine-tuning: `messages` is a question and an answer that is "
        "worth imitating. Rows of the kind `instruction` answer what was drawn from scenes; "
        "nobody rates these, so the mix leaves them out unless it is told otherwise."
    ),
    kinds=(ANSWER, INSTRUCTION),
    columns={"messages": MESSAGES, "kind": "string", **LINEAGE},
    rows=rows,
    uses=RATED_BY | {"pick", "min_rating", "mix", "max_per_agent"},
    defaults={"mix": (1, 0)},
)
