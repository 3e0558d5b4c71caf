"""The format `kto`: single answers, each labelled as desirable or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.scale import plain_number
from sandbox.datasets.answers import (
    ANSWER,
    RATED_BY,
    Answer,
    answers,
    completion,
    lineage_columns,
    needs_ratings,
)
from sandbox.datasets.format import MESSAGES, Columns, Format, Removed, Row, Settings
from sandbox.datasets.near_duplicates import normalized
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import SourcedExchange

CONTRADICTS = "an equal text has the other label"


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield the answers above or below the thresholds; the first of equal texts sets the label."""
    labels: dict[tuple[str, str], bool] = {}
    for answer in answers(same_question, ANSWER, settings):
        if isinstance(answer, Removed):
            yield answer
            continue
        label = _label(answer, settings)
        if isinstance(label, str):
            yield Removed(ANSWER, label, answer.id)
        elif labels.setdefault((answer.prompt_text, normalized(answer.text)), label) != label:
            yield Removed(ANSWER, CONTRADICTS, answer.id)
        else:
            yield _row(answer, label)


def _label(answer: Answer, settings: Settings) -> bool | str:
    """The label, or the rule that removes the answer."""
    if answer.at_least(settings.min_rating):
        return True
    if answer.at_most(settings.max_rating):
        return False
    low, high = sorted((settings.max_rating, settings.min_rating))
    return f"rated between {plain_number(low)} and {plain_number(high)}"


def _row(answer: Answer, label: bool) -> Row:
    data = {"prompt": answer.prompt, "completion": completion(answer.text), "label": label}
    return answer.row(ANSWER, data, dedup_class=f"{label} ")


def columns(schema: Schema) -> Columns:
    """The columns: question, answer, label, and lineage."""
    return {
        "prompt": MESSAGES,
        "completion": MESSAGES,
        "label": "bool",
        **lineage_columns(schema),
    }


KTO = Format(
    name="kto",
    about=(
        "Single answers for KTO: `label` is true where the answer is rated `min_rating` or "
        "better, and false where it is rated `max_rating` or worse; those between are removed."
    ),
    kinds=(ANSWER,),
    columns=columns,
    rows=rows,
    needs=needs_ratings,
    uses=RATED_BY | {"min_rating", "max_rating", "max_per_agent"},
    conversations="also",
)
