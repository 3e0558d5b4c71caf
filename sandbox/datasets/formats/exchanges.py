"""The format `exchanges`: all recorded data, one exchange per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agents.scale import Scale, Stage
from sandbox.datasets.format import Columns, Format, Removed, Row, Settings, Type
from sandbox.datasets.schema import Schema, number_type, typed
from sandbox.datasets.source import SourcedExchange
from storage.errors import InputError
from storage.exchanges import Exchange

EXCHANGE = "exchange"


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield all exchanges, including failed ones."""
    for sourced in same_question:
        exchange, name = sourced.exchange, sourced.id()
        yield Row(
            kind=EXCHANGE,
            id=name,
            sourced=sourced,
            question=sourced.question,
            data=exchange_row(sourced, settings.schema),
            prompt=exchange.question,
            answers=tuple(text for text in exchange.texts.values() if text is not None),
            rating=_main_rating(sourced),
        )


def _main_rating(sourced: SourcedExchange) -> float | None:
    """The observer's rating of the last rated stage on the main scale."""
    declaration = sourced.origin.declaration
    final = None if declaration.main is None else declaration.final(declaration.main)
    return None if final is None else sourced.exchange.score(final.stage, final.scale.name)


def exchange_row(sourced: SourcedExchange, schema: Schema) -> dict[str, Any]:
    """An exchange as a row of this format.

    Args:
        sourced: the exchange.
        schema: the stages and scales of all runs in the table; columns that the run of this
            exchange does not declare are null.
    """
    run, exchange = sourced.origin.reader.run, sourced.exchange
    return {
        "id": sourced.id(),
        "run": run.name,
        "digest": run.digest,
        "episode": exchange.episode,
        "round": exchange.round,
        "author": exchange.author,
        "label": exchange.label,
        "persona": exchange.persona,
        "question": exchange.question,
        "question_source": exchange.question_source,
        **_recorded(exchange, schema),
        "shortened": list(exchange.shortened),
        "broken": [
            {"stage": stage, "rules": list(broken.rules), "refused": broken.refused}
            for stage, broken in sourced.aside.broken.items()
        ],
        "failed_at": exchange.failed_at,
        **_observed(exchange, schema),
        "model": exchange.model,
        "policy": sourced.origin.policy,
        "scene": exchange.scene and exchange.scene.as_dict(),
        "observer_model": next((seen.model for seen in exchange.observations), None),
        "scripted": sourced.scripted,
    }


def _recorded(exchange: Exchange, schema: Schema) -> dict[str, Any]:
    """The texts of all stages, with the peers' ratings after the stage that they rate."""
    values: dict[str, Any] = {}
    for stage in schema.stages:
        values[stage.name] = exchange.texts.get(stage.name)
        if stage.name == next(iter(schema.peer_stages), None):
            values["ratings"] = [
                given._asdict() | {"rating": typed(given.rating, schema.peers)}
                for given in exchange.ratings
            ]
            values["mean_rating"] = exchange.mean_rating
    return values


def _observed(exchange: Exchange, schema: Schema) -> dict[str, Any]:
    """The observer's ratings, by column."""
    values: dict[str, Any] = {}
    for stage, scale in schema.rated:
        name = column(scale, stage)
        if scale.subject != "stage":
            score = exchange.score(stage.name, scale.name)
            values[name] = None if score is None else float(score)
            continue
        seen = exchange.observation(stage.name, scale.name)
        values[name] = seen and typed(seen.rating, scale)
        values[f"{name}_reason"] = seen and seen.reason
        values[f"{name}_status"] = seen and seen.status
        values[f"{name}_expected"] = seen and seen.expected
    if schema.rates_agents:
        values["observations"] = [
            {
                "stage": seen.stage,
                "scale": seen.scale,
                "agent": seen.agent,
                "other": seen.other,
                "rating": None if seen.rating is None else float(seen.rating),
                "reason": seen.reason,
                "status": seen.status,
                "expected": seen.expected,
            }
            for seen in exchange.observations
            if seen.agent is not None
        ]
    return values


def column(scale: Scale, stage: Stage) -> str:
    """The name of the column of the observer's rating of a stage."""
    return f"{scale.name}_{stage.suffix or stage.name}"


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
    "notes": [{"kind": "string", "text": "string", "shortened": "bool"}],
}
_OBSERVATION: Columns = {
    "stage": "string",
    "scale": "string",
    "agent": "int64",
    "other": "int64",
    "rating": "float64",
    "reason": "string",
    "status": "string",
    "expected": "float64",
}


def columns(schema: Schema) -> Columns:
    """The columns for the stages and scales of the runs.

    Raises:
        InputError: two columns have the same name.
    """
    pairs = list(_columns(schema))
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"format exchanges: found two columns called {twice}; expected stages and scales "
            "with distinct column names"
        )
    return dict(pairs)


def _columns(schema: Schema) -> Iterator[tuple[str, Type]]:
    yield "id", "string"
    yield "run", "string"
    yield "digest", "string"
    yield "episode", "int64"
    yield "round", "int64"
    yield "author", "int64"
    yield "label", "string"
    yield "persona", "string"
    yield "question", "string"
    yield "question_source", "string"
    for stage in schema.stages:
        yield stage.name, "string"
        if stage.name == next(iter(schema.peer_stages), None):
            yield "ratings", [_rating(schema)]
            yield "mean_rating", "float64"
    yield "shortened", ["string"]
    yield "broken", [{"stage": "string", "rules": ["string"], "refused": "bool"}]
    yield "failed_at", "string"
    for stage, scale in schema.rated:
        name = column(scale, stage)
        yield name, number_type(scale) if scale.subject == "stage" else "float64"
        if scale.subject == "stage":
            yield f"{name}_reason", "string"
            yield f"{name}_status", "string"
            yield f"{name}_expected", "float64"
    if schema.rates_agents:
        yield "observations", [dict(_OBSERVATION)]
    yield "model", "string"
    yield "policy", "string"
    yield "scene", dict(_SCENE)
    yield "observer_model", "string"
    yield "scripted", "bool"


def _rating(schema: Schema) -> dict[str, Type]:
    return {
        "rater": "int64",
        "label": "string",
        "rating": number_type(schema.peers),
        "reason": "string",
        "status": "string",
        "expected": "float64",
        "model": "string",
    }


EXCHANGES = Format(
    name="exchanges",
    about=(
        "Every exchange, in the order of rounds and authors. Each stage has a column with its "
        "text, and the observer's rating of a stage on a scale has a column (the table of scales "
        "names them), with `_reason`, `_status` and, where the backend returns "
        "probabilities, `_expected`. Where the observer rates agents or pairs of agents, this "
        "column is the mean, and `observations` lists each rating. `ratings` are the peers', with "
        "their reasons, and `mean_rating` is the mean of those not null. Failed exchanges are "
        "included; `failed_at` names the step without a usable reply, and `shortened` the stages "
        "whose text was truncated and kept to its last whole sentence. `broken` names the stages "
        "whose text broke a rule of the policy, and whether the text is the policy's refusal. "
        "Missing texts and ratings "
        "are null, and `status` is the reason: `cut` (truncated), `empty`, `unreadable` "
        "(unparseable) or `failed`. A column is null in runs that do not declare its stage or "
        "scale. In worlds with scenes, `scene` contains the characters and their acts, whether "
        "each act passed the modulator, who saw it and what harm it did."
    ),
    kinds=(EXCHANGE,),
    columns=columns,
    rows=rows,
    uses=frozenset({"max_per_agent"}),
    complete=True,
    conversations="also",
    compares=False,
    by_round=True,
    counts="exchanges",
)
