"""The format `kto`: single answers, each marked as desirable or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sandbox.datasets.answers import (
    ANSWER,
    LINEAGE,
    RATED_BY,
    Answer,
    answers,
    completion,
    prompt,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.near import plain
from sandbox.datasets.rows import MESSAGES, Format, Removed, Row
from sandbox.datasets.source import Told

CONTRADICTS = "an equal text has the other label"


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """The answers that are good or bad enough; of equal ones the first tells the label."""
    labels: dict[str, bool] = {}
    for one in answers(about, ANSWER, choices):
        if isinstance(one, Removed):
            yield one
            continue
        label = _label(one, choices)
        if isinstance(label, str):
            yield Removed(ANSWER, label, one.id)
        elif labels.setdefault(plain(one.text), label) != label:
            yield Removed(ANSWER, CONTRADICTS, one.id)
        else:
            yield _row(one, label)


def _label(one: Answer, choices: Choices) -> bool | str:
    low, high = choices.max_rating or 0, choices.min_rating or 0
    if one.score >= high:
        return True
    return False if one.score <= low else f"rated between {low:g} and {high:g}"


def _row(one: Answer, label: bool) -> Row:
    data = {"prompt": prompt(one.asked), "completion": completion(one.text), "label": label}
    return one.row(ANSWER, data, like=f"{label} ")


KTO = Format(
    name="kto",
    about=(
        "Single answers for KTO: `label` is true where the answer is rated `min_rating` or "
        "higher, and false where it is rated `max_rating` or lower; those between are left out."
    ),
    kinds=(ANSWER,),
    columns={"prompt": MESSAGES, "completion": MESSAGES, "label": "bool", **LINEAGE},
    rows=rows,
    uses=RATED_BY | {"min_rating", "max_rating", "max_per_agent"},
)
