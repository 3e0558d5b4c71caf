"""The format `raters`: one row per rating of an answer, with its rater."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agents.scale import Declaration
from sandbox.datasets.answers import (
    completion,
    form_of,
    lineage_columns,
    needs_answers,
    no_rating,
    no_text,
    peer_stage,
    prompt,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.format import MESSAGES, Columns, Format, Removed, Row, Settings
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import SourcedExchange
from storage.exchanges import GivenRating, Observation

PEER, OBSERVER = "peer", "observer"

_WHERE = (
    "id",
    "run",
    "digest",
    "episode",
    "round",
    "agent",
    "agent_label",
    "stage",
    "form",
    "model",
    "policy",
    "scripted",
)
_PERSON = ("name", "age", "place", "occupation", "values")


def needs(declaration: Declaration, choices: Choices) -> str | None:
    """What a run lacks of an answer that peers or the observer rate; None if it has one."""
    missing = needs_answers(1, declaration)
    if missing is not None:
        return missing
    rated = {
        stage
        for scale in declaration.scales
        if scale.subject == "stage"
        for stage in declaration.stages_of(scale)
    }
    wanted = "peers or an observer who rate an answer"
    return None if rated.intersection(declaration.answers) else wanted


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield the peers' ratings, then the observer's; not the latter where raters are chosen."""
    for sourced in same_question:
        yield from _peers(sourced, settings)
        if not settings.choices.raters:
            yield from _observer(sourced, settings)


def _peers(sourced: SourcedExchange, settings: Settings) -> Iterator[Row | Removed]:
    declaration = sourced.origin.declaration
    stage, peers = peer_stage(declaration), declaration.peers
    if stage is None or peers is None or stage not in declaration.answers:
        return
    for given in sourced.exchange.ratings:
        person = sourced.origin.people.get(given.rater, {})
        rater = {
            "rater": given.rater,
            "rater_label": given.label,
            **{f"rater_{name}": person.get(name) for name in _PERSON},
            "scale": peers.same_as or peers.name,
        }
        name = sourced.id(stage, PEER, given.rater)
        yield _row(sourced, PEER, name, stage, given, rater, settings)


def _observer(sourced: SourcedExchange, settings: Settings) -> Iterator[Row | Removed]:
    no_agent = dict.fromkeys(("rater", "rater_label", *(f"rater_{name}" for name in _PERSON)))
    answers = sourced.origin.declaration.answers
    for seen in sourced.exchange.observations:
        if seen.stage in answers and seen.agent is None:
            name = sourced.id(seen.stage, OBSERVER, seen.scale)
            rater = {**no_agent, "scale": seen.scale}
            yield _row(sourced, OBSERVER, name, seen.stage, seen, rater, settings)


def _row(
    sourced: SourcedExchange,
    kind: str,
    name: str,
    stage: str,
    given: GivenRating | Observation,
    rater: dict[str, Any],
    settings: Settings,
) -> Row | Removed:
    run, exchange = sourced.origin.reader.run, sourced.exchange
    text = exchange.texts.get(stage)
    if text is None:
        return Removed(kind, no_text(sourced, stage), name)
    if given.rating is None:
        return Removed(kind, no_rating([given]), name)
    data = {
        "prompt": prompt(exchange.question),
        "response": completion(text),
        "rating": given.rating if _rating_type(settings.schema) == "int64" else float(given.rating),
        "expected": given.expected,
        "reason": given.reason,
        "status": given.status,
        "kind": kind,
        **rater,
        "rater_model": given.model,
        "id": name,
        "run": run.name,
        "digest": run.digest,
        "episode": exchange.episode,
        "round": exchange.round,
        "agent": exchange.author,
        "agent_label": exchange.label,
        "stage": stage,
        "form": form_of(sourced, stage),
        "model": exchange.model,
        "policy": sourced.origin.policy,
        "scripted": sourced.scripted,
    }
    return Row(
        kind=kind,
        id=name,
        sourced=sourced,
        question=sourced.question,
        data=data,
        prompt=exchange.question,
        answers=(text,),
        rating=float(given.rating),
    )


def _rating_type(schema: Schema) -> str:
    """The type of ratings on all scales together."""
    scales = [*schema.of_stages, *([schema.peers] if schema.peers else [])]
    return "int64" if all(scale.integer for scale in scales) else "float64"


def columns(schema: Schema) -> Columns:
    """The columns: an answer, its rating, the rater, and lineage."""
    lineage = lineage_columns(schema)
    return {
        "prompt": MESSAGES,
        "response": MESSAGES,
        "rating": _rating_type(schema),
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
        **{name: lineage[name] for name in _WHERE},
    }


RATERS = Format(
    name="raters",
    about=(
        "One row per rating, as in HelpSteer3, which keeps every annotator: `response` to "
        "`prompt`, `rating` on `scale`, `reason`, and the rater. Rows of the kind `peer` are "
        "ratings by agents; those of the kind `observer` are by a model without memory and "
        "persona. `expected` is the expected rating from the probabilities of the labels, where "
        "the backend returns them."
    ),
    kinds=(PEER, OBSERVER),
    columns=columns,
    rows=rows,
    needs=needs,
    uses=frozenset({"mix", "max_per_agent"}),
    counts="ratings",
)
