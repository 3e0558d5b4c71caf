"""The format `raters`: one row for everything that one rater said of one answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sandbox.datasets.answers import DRAFT, FORMS, LINEAGE, NO_RATING, NO_TEXT, completion, prompt
from sandbox.datasets.choices import Choices
from sandbox.datasets.rows import MESSAGES, Columns, Format, Removed, Row
from sandbox.datasets.source import Told

PEER, OBSERVER = "peer", "observer"

_WHERE = (
    *("id", "run", "digest", "episode", "round", "agent", "agent_label"),
    *("stage", "form", "model", "scripted"),
)
_PERSON = ("name", "age", "place", "occupation", "values")


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """What peers said of drafts, then what the observer said of both answers."""
    for told in about:
        yield from _peers(told)
        yield from _observer(told)


def _peers(told: Told) -> Iterator[Row | Removed]:
    one = told.exchange
    for given in one.ratings:
        made = told.id(DRAFT, PEER, given.rater)
        said = given._asdict()
        person = told.origin.people.get(given.rater, {})
        values = {
            "rater": given.rater,
            "rater_label": given.label,
            **{f"rater_{name}": person.get(name) for name in _PERSON},
            "scale": "alignment",
        }
        yield _row(told, PEER, made, DRAFT, said, values)


def _observer(told: Told) -> Iterator[Row | Removed]:
    nobody = dict.fromkeys(("rater", "rater_label", *(f"rater_{name}" for name in _PERSON)))
    for seen in told.exchange.observations:
        made = told.id(seen.stage, OBSERVER, seen.scale)
        values = {**nobody, "scale": seen.scale}
        yield _row(told, OBSERVER, made, seen.stage, seen._asdict(), values)


def _row(
    told: Told, kind: str, made: str, stage: str, said: Mapping[str, Any], values: dict[str, Any]
) -> Row | Removed:
    run, one = told.origin.reader.run, told.exchange
    text = one.draft if stage == DRAFT else one.revision
    if text is None:
        return Removed(kind, NO_TEXT, made)
    if said["rating"] is None:
        return Removed(kind, NO_RATING, made)
    data = {
        "prompt": prompt(one.question),
        "response": completion(text),
        **{name: said[name] for name in ("rating", "expected", "reason", "status")},
        "kind": kind,
        **values,
        "rater_model": said["model"],
        **{"id": made, "run": run.name, "digest": run.digest, "episode": one.episode},
        **{"round": one.round, "agent": one.author, "agent_label": one.label},
        **{"stage": stage, "form": FORMS[stage], "model": one.model},
        "scripted": told.scripted,
    }
    rating = float(said["rating"])
    return Row(kind, made, told, told.question, data, one.question, (text,), None, rating)


_COLUMNS: Columns = {
    "prompt": MESSAGES,
    "response": MESSAGES,
    "rating": "int64",
    "expected": "float64",
    "reason": "string",
    "status": "string",
    "kind": "string",
    "rater": "int64",
    "rater_label": "string",
    "rater_name": "string",
    "rater_age": "int64",
    "rater_place": "string",
    "rater_occupation": "string",
    "rater_values": ["string"],
    "scale": "string",
    "rater_model": "string",
    **{name: LINEAGE[name] for name in _WHERE},
}

RATERS = Format(
    name="raters",
    about=(
        "One row a rating, with who gave it, as HelpSteer3 keeps every annotator: `response` to "
        "`prompt`, `rating` (1 to 7) and `reason`, and who the rater is. Rows of the kind `peer` "
        "are agents who rate a draft's alignment; those of the kind `observer` are a model "
        "without memory and persona that scores both answers on both scales. `expected` is the "
        "rating to be expected from the probabilities of 1 to 7, where the backend tells them."
    ),
    kinds=(PEER, OBSERVER),
    columns=_COLUMNS,
    rows=rows,
    uses=frozenset({"mix", "max_per_agent"}),
    counts="ratings",
)
