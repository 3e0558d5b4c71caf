"""The format `sft`: well rated answers, as conversations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from agents.scale import plain_number
from sandbox.datasets.answers import (
    ANSWER,
    INSTRUCTION,
    RATED_BY,
    Answer,
    answers,
    best,
    completion,
    instructed,
    lineage_columns,
    needs_ratings,
)
from sandbox.datasets.format import MESSAGES, Columns, Format, Removed, Row, Settings
from sandbox.datasets.schema import Schema, below
from sandbox.datasets.source import SourcedExchange

NOT_BEST = {"exchange": "not the best of its exchange", "question": "not the best of its question"}

NOT_CHOSEN = "not the chosen answer of its turn"


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield the best answers rated `min_rating` or better, and the answers to instructions."""
    rated: list[Answer] = []
    for found in answers(same_question, ANSWER, settings):
        if isinstance(found, Removed):
            yield found
        else:
            rated.append(found)
    for group in _groups(rated, settings):
        top = _top(group)
        for answer in group:
            rule = _rule(answer, top, settings)
            yield _row(ANSWER, answer) if rule is None else Removed(ANSWER, rule, answer.id)
    for drawn in instructed(same_question, settings):
        yield drawn if isinstance(drawn, Removed) else _row(INSTRUCTION, drawn)


def _groups(rated: Sequence[Answer], settings: Settings) -> Iterator[list[Answer]]:
    """Yield the groups of answers from each of which one is selected."""
    talked = [answer for answer in rated if answer.candidate is not None]
    others = [answer for answer in rated if answer.candidate is None]
    for _, group in groupby(talked, key=lambda answer: (answer.sourced.id(), answer.turn)):
        yield list(group)
    if settings.choices.pick == "exchange":
        for _, group in groupby(others, key=lambda answer: answer.sourced.id()):
            yield list(group)
    elif others:
        yield others


def _top(group: Sequence[Answer]) -> Answer | None:
    """The best answer; in a conversation the one that it went on from."""
    if group[0].candidate is None:
        return best(group)
    return next((one for one in group if one.candidate and one.candidate.chosen), None)


def _rule(answer: Answer, top: Answer | None, settings: Settings) -> str | None:
    pick = str(settings.choices.pick)
    if answer.candidate is not None and pick != "all" and answer is not top:
        return NOT_CHOSEN
    if pick != "all" and answer is not top:
        return NOT_BEST[pick]
    least = settings.min_rating
    return (
        None
        if answer.at_least(least)
        else f"rated {below(settings.rated_on)} {plain_number(least)}"
    )


def _row(kind: str, answer: Answer) -> Row:
    messages = answer.prompt + completion(answer.text)
    return answer.row(kind, {"messages": messages, "kind": kind})


def columns(schema: Schema) -> Columns:
    """The columns: a conversation, and the lineage of its answer."""
    return {"messages": MESSAGES, "kind": "string", **lineage_columns(schema)}


SFT = Format(
    name="sft",
    about=(
        "Conversations for supervised fine-tuning: `messages` is a question and a well rated "
        "answer; in worlds with conversations, the conversation up to an answer that its user "
        "chose. Rows of the kind `instruction` answer instructions drawn from scenes; these are "
        "not rated, so the default mix excludes them."
    ),
    kinds=(ANSWER, INSTRUCTION),
    columns=columns,
    rows=rows,
    needs=needs_ratings,
    uses=RATED_BY | {"pick", "min_rating", "mix", "max_per_agent"},
    defaults={"mix": (1, 0)},
    conversations="also",
)
