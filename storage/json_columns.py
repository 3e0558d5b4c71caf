"""Columns that hold JSON: parsed, and checked to be of the kind that they are written in."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row


def parse_mapping(text: str, column: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: it is none; the message names the column.
    """
    return _parsed(text, column, dict, "a JSON object")  # type: ignore[no-any-return]


def parse_list(text: str, column: str, of: type) -> list[Any]:
    """Parse a JSON list whose values are all of one type.

    Raises:
        ValueError: it is none; the message names the column.
    """
    values = _parsed(text, column, list, "a JSON list")
    for value in values:
        if not isinstance(value, of):
            raise ValueError(f"{column}: found {_shown(value)} in the list; expected {of.__name__}")
    return values  # type: ignore[no-any-return]


def check_run(run: Row[Any]) -> None:
    """Check the JSON columns of a row of `runs`.

    Raises:
        ValueError: one has another content than the program writes; the message names it.
    """
    _needs(parse_mapping(run.config, "runs.config"), "runs.config", "world", dict)
    stages = _needs(parse_mapping(run.declaration, "runs.declaration"), "runs.declaration",
                    "stages", list)  # fmt: skip
    for stage in stages:
        if not isinstance(stage, dict) or not isinstance(stage.get("name"), str):
            raise ValueError(f"runs.declaration: found the stage {_shown(stage)}; expected a name")
    for label, stance in parse_mapping(run.stances, "runs.stances").items():
        if not isinstance(stance, str):
            raise ValueError(f"runs.stances: {label}: found {_shown(stance)}; expected a sentence")
    if run.inputs is not None:
        parse_list(run.inputs, "runs.inputs", str)
    if run.policy is not None:
        _needs(parse_mapping(run.policy, "runs.policy"), "runs.policy", "rules", list)
    if run.origin is not None:
        origin = parse_mapping(run.origin, "runs.origin")
        _needs(origin, "runs.origin", "forked_from", dict)


def _needs(values: dict[str, Any], column: str, key: str, kind: type) -> Any:
    if not isinstance(values.get(key), kind):
        found = _shown(values[key]) if key in values else "nothing"
        raise ValueError(f"{column}: {key}: found {found}; expected a {_KINDS[kind]}")
    return values[key]


_KINDS: dict[type, str] = {dict: "JSON object", list: "JSON list"}


def _parsed(text: str, column: str, kind: type, expected: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None
    if not isinstance(value, kind):
        raise ValueError(f"{column}: found {_shown(value)}; expected {expected}")
    return value


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]
