"""Personas and prior memories: files of JSON objects with known fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agents.forms import clean
from agents.persona import Persona
from sandbox.sources.json_files import json_values
from sandbox.sources.prism import NOTE, is_prism, persona_fields
from storage.errors import InputError
from worlds.base import Pair
from worlds.text_files import FileFault

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = "expected JSON lines (.jsonl), or an array of objects (.json)"


def read_personas(path: Path, notes: list[str] | None = None) -> list[Persona]:
    """Read personas from JSON lines or a JSON array.

    A row ``{"persona": "A nurse who ..."}``, as in PersonaHub, is a persona with that description;
    one without a name is named after its line. A row with the fields of PRISM's survey is a person
    of PRISM; see `sandbox.sources.prism`.

    Args:
        path: the file; it may end in .gz.
        notes: a line about what was read is appended to it.

    Raises:
        InputError: the file cannot be read, is empty, or has an invalid persona.
    """
    return _read_models("personas", path, Persona, "persona", notes)


def read_pairs(path: Path, notes: list[str] | None = None) -> list[Pair]:
    """Read prior pairs of question and answer from JSON lines or a JSON array.

    Args:
        path: the file; it may end in .gz.
        notes: a line about what was read is appended to it.

    Raises:
        InputError: the file cannot be read, is empty, or has an invalid pair.
    """
    return _read_models("memory.prior", path, Pair, "prior pair", notes)


def _read_models(
    key: str, path: Path, model: type[Model], what: str, notes: list[str] | None
) -> list[Model]:
    models, of_prism = [], False
    try:
        for line, value in json_values(path):
            place = f"{path}:{line}"
            if model is Persona and is_prism(value):
                of_prism, value = True, persona_fields(value, place)
            elif model is Persona:
                value = _described(value, place, line)
            models.append(_validated(model, value, place))
    except OSError as error:
        raise InputError(f"{key}: {path}: {error.strerror or error}; {_EXPECTED}") from None
    except FileFault as fault:
        raise InputError(f"{key}: {fault}") from None
    if not models:
        raise InputError(f"{key}: {path}: found no line; expected at least 1")
    if notes is not None:
        plural = "" if len(models) == 1 else "s"
        notes.append(f"{len(models):,} {what}{plural} from {path.name}")
        notes += [f"{path.name}: {NOTE}"] if of_prism else []
    return models


def _described(value: Any, place: str, line: int) -> Any:
    """The fields of a persona for a row of a list of descriptions."""
    if not isinstance(value, dict) or not {"persona", "description"} & value.keys():
        return value
    fields = dict(value)
    if "persona" in fields:
        if "description" in fields:
            raise InputError(f"{place}: found persona and description; expected one of them")
        fields["description"] = fields.pop("persona")
    fields.setdefault("name", f"Persona {line}")
    return fields


def _validated(model: type[Model], value: Any, place: str) -> Model:
    if not isinstance(value, dict):
        raise InputError(f"{place}: found {type(value).__name__}; expected an object")
    known = list(model.model_fields)
    unknown = next((name for name in value if name not in known), None)
    if unknown is not None:
        shown = clean(unknown)[:60]
        raise InputError(f"{place}: {shown!r}: unknown field; expected {', '.join(known)}")
    try:
        return model.model_validate(_clean(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise InputError(f"{place}: {field + ': ' if field else ''}expected: {message}") from None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    return value
