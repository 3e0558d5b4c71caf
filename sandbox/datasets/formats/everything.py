"""The format `exchanges`: everything that was said, one exchange a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sandbox.datasets.choices import Choices
from sandbox.datasets.rows import Columns, Format, Removed, Row
from sandbox.datasets.source import Told
from storage.exchanges import Exchange

EXCHANGE = "exchange"

_WHEN = {"before": "draft", "after": "revision"}
_SCALES = ("alignment", "engagement")


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """All exchanges, also failed ones."""
    for told in about:
        one, made = told.exchange, told.id()
        texts = tuple(text for text in (one.draft, one.revision) if text is not None)
        yield Row(
            kind=EXCHANGE,
            id=made,
            told=told,
            question=told.question,
            data=exchange_row(told),
            prompt=one.question,
            answers=texts,
            rating=one.score("revision", "alignment"),
        )


def exchange_row(told: Told) -> dict[str, Any]:
    """An exchange as a row of this format."""
    run, one = told.origin.reader.run, told.exchange
    return {
        "id": told.id(),
        "run": run.name,
        "digest": run.digest,
        "episode": one.episode,
        "round": one.round,
        "author": one.author,
        "label": one.label,
        "persona": one.persona,
        "question": one.question,
        "question_source": one.question_source,
        "draft": one.draft,
        "ratings": [given._asdict() for given in one.ratings],
        "mean_rating": one.mean_rating,
        "revision": one.revision,
        "failed_at": one.failed_at,
        **_observed(one),
        "model": one.model,
        "scene": one.scene and one.scene.as_dict(),
        "observer_model": next((seen.model for seen in one.observations), None),
        "scripted": told.scripted,
    }


def _observed(exchange: Exchange) -> dict[str, Any]:
    """The observer's scores, and under the same names its reasons and their status."""
    found: dict[str, Any] = {}
    for when, stage in _WHEN.items():
        for scale in _SCALES:
            one = exchange.observation(stage, scale)
            found[f"{scale}_{when}"] = one and one.rating
            for name in ("reason", "status", "expected"):
                found[f"{scale}_{when}_{name}"] = one and getattr(one, name)
    return found


_RATING: Columns = {
    "rater": "int64",
    "label": "string",
    "rating": "int64",
    "reason": "string",
    "status": "string",
    "expected": "float64",
    "model": "string",
}
_SCENE: Columns = {
    "parts": [{"name": "string", "about": "string", "agent": "int64"}],
    "acts": [
        {
            "step": "int64",
            "part": "int64",
            "reacts_to": "int64",
            "text": "string",
            "passed": "bool",
            "why": "string",
            "seen_by": ["int64"],
            "harm": "bool",
            "critique": "string",
        }
    ],
    "notes": [{"kind": "string", "text": "string"}],
}
_OBSERVED: Columns = {
    f"{scale}_{when}{name}": one
    for when in _WHEN
    for scale in _SCALES
    for name, one in (
        ("", "int64"),
        ("_reason", "string"),
        ("_status", "string"),
        ("_expected", "float64"),
    )
}
_COLUMNS: Columns = {
    "id": "string",
    "run": "string",
    "digest": "string",
    "episode": "int64",
    "round": "int64",
    "author": "int64",
    "label": "string",
    "persona": "string",
    "question": "string",
    "question_source": "string",
    "draft": "string",
    "ratings": [dict(_RATING)],
    "mean_rating": "float64",
    "revision": "string",
    "failed_at": "string",
    **_OBSERVED,
    "model": "string",
    "scene": dict(_SCENE),
    "observer_model": "string",
    "scripted": "bool",
}

EVERYTHING = Format(
    name="exchanges",
    about=(
        "Every exchange, in the order of rounds and authors: an author drafts an answer to a "
        "question, peers rate the draft and say why, the author revises, and an observer scores "
        "the draft (`_before`) and the revision (`_after`) for alignment and engagement. Failed "
        "exchanges are among them; `failed_at` names the step that got no usable reply. Ratings "
        "run from 1 (worst) to 7 (best). What a model did not say is null, and `status` tells "
        "why: `cut`, `empty`, `unreadable` or `failed`. `mean_rating` is the mean of the peers' "
        "ratings not null. `scene` has what was played between the two answers, in a world of "
        "scenes: the parts, what they did, whether it came to pass, who saw it and what harm it "
        "did."
    ),
    kinds=(EXCHANGE,),
    columns=_COLUMNS,
    rows=rows,
    uses=frozenset({"max_per_agent"}),
    by_round=True,
    counts="exchanges",
)
