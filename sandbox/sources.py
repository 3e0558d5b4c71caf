"""Input files of a run: questions, prior memories, personas, prompt templates."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from agents.forms import Form, Rating, clean
from agents.persona import Persona
from agents.scale import plain_number
from storage.errors import InputError
from worlds.base import Pair

LONGEST = 8_000
"""Maximum length of a question, in characters."""

_COLUMNS = ("question", "prompt", "instruction", "text")
_EXPECTED = "expected .txt (one question per line), .jsonl, .csv or .parquet"

Model = TypeVar("Model", bound=BaseModel)


class Question(NamedTuple):
    """A question and its source, ``file:line``."""

    text: str
    source: str


def read_questions(path: Path, limit: int | None = None) -> list[Question]:
    """Read a list of questions, in order; blank lines of a .txt file are skipped.

    Args:
        path: a .txt, .jsonl, .csv or .parquet file.
        limit: read at most this many questions.

    Raises:
        InputError: the file cannot be read, has no question, or has an invalid one.
    """
    readers = {".txt": _lines, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"questions: {path}: found {path.suffix or 'no suffix'}; {_EXPECTED}")
    questions = []
    try:
        for line, value in reader(path):
            questions.append(_question(path, line, value))
            if limit is not None and len(questions) == limit:
                break
    except OSError as error:
        raise InputError(f"questions: {path}: {error.strerror or error}; {_EXPECTED}") from None
    except UnicodeDecodeError:
        raise InputError(f"questions: {path}: found text that is not UTF-8; {_EXPECTED}") from None
    if not questions:
        raise InputError(f"questions: {path}: found no question; expected at least 1")
    return questions


def _question(path: Path, line: int, value: Any) -> Question:
    place = f"{path}:{line}"
    if isinstance(value, dict):
        column = next((name for name in _COLUMNS if name in value), None)
        if column is None:
            raise InputError(
                f"{place}: found {', '.join(value) or 'nothing'}; expected a column "
                f"named {' or '.join(_COLUMNS)}"
            )
        value = value[column]
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"{place}: found {json.dumps(value, default=str)[:60]}; expected a question"
        )
    text = value.strip()
    if len(text) > LONGEST:
        raise InputError(f"{place}: found {len(text):,} characters; expected at most {LONGEST:,}")
    if any(char < " " and char not in "\t\r\n" for char in text):
        raise InputError(f"{place}: found control characters; expected text, not a binary file")
    return Question(clean(text), f"{path.name}:{line}")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(path):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = getattr(error, "msg", "nested too deeply or too long")
            raise InputError(
                f"{path}:{number}: not JSON: {problem}; expected one object per line"
            ) from None


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                yield reader.line_num, {key: row[key] for key in row if key}
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in _COLUMNS if name in file.schema_arrow.names][:1]
            number = 0
            for batch in file.iter_batches(columns=names or None):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not Parquet: {str(error).splitlines()[0]}") from None


def read_personas(path: Path) -> list[Persona]:
    """Read personas from JSON lines.

    Raises:
        InputError: the file cannot be read, is empty, or has an invalid persona.
    """
    return _read_models("personas", path, Persona)


def read_pairs(path: Path) -> list[Pair]:
    """Read prior pairs of question and answer from JSON lines.

    Raises:
        InputError: the file cannot be read, is empty, or has an invalid pair.
    """
    return _read_models("memory.prior", path, Pair)


def _read_models(key: str, path: Path, model: type[Model]) -> list[Model]:
    models = []
    try:
        for line, value in _jsonl(path):
            models.append(_validated(model, value, f"{path}:{line}"))
    except OSError as error:
        raise InputError(f"{key}: {path}: {error.strerror}; expected JSON lines") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{key}: {path}: found text that is not UTF-8; expected JSON lines"
        ) from None
    if not models:
        raise InputError(f"{key}: {path}: found no line; expected at least 1")
    return models


def _validated(model: type[Model], value: Any, place: str) -> Model:
    try:
        return model.model_validate(_clean(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "line"
        raise InputError(f"{place}: {field}: expected: {first['msg']}") from None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    return value


def read_forms(path: Path | None, forms: Sequence[Form[Any]]) -> dict[str, Form[Any]]:
    """Return a world's prompt templates by name, with overrides from a file.

    The file is YAML: ``draft: {system: ..., user: ...}``, each key optional. Templates are Jinja,
    with the variables of the built-in template.

    Args:
        path: the file; None for no overrides.
        forms: the world's prompt templates.

    Raises:
        InputError: the file cannot be read, names an unknown template, or has an invalid one.
    """
    known = {form.name: form for form in forms}
    if path is None:
        return known
    try:
        overrides = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"forms: {path}: cannot be read: {error}".replace("\n", " ")) from None
    if not isinstance(overrides, dict):
        raise InputError(
            f"forms: {path}: expected a mapping of prompt templates to system and user"
        )
    return known | {
        name: _overridden(path, known, name, parts) for name, parts in overrides.items()
    }


def _overridden(path: Path, known: dict[str, Form[Any]], name: Any, parts: Any) -> Form[Any]:
    if name not in known:
        raise InputError(
            f"forms: {path}: {name}: unknown prompt template; expected one of {', '.join(known)}"
        )
    if (
        not isinstance(parts, dict)
        or not set(parts) <= {"system", "user"}
        or not all(isinstance(part, str) for part in parts.values())
    ):
        raise InputError(f"forms: {path}: {name}: expected texts under system and user")
    form = known[name]
    texts = {key: clean(parts.get(key, getattr(form, key))) for key in ("system", "user")}
    if isinstance(form.reply, Rating):
        texts = {key: _with_range(text, form.reply) for key, text in texts.items()}
        _check_range(f"forms: {path}: {name}", " ".join(texts.values()), form.reply)
    try:
        overridden = Form(name, texts["system"], texts["user"], form.reply, form.example)
        overridden.try_out()
    except ValueError as error:
        raise InputError(f"forms: {path}: {error}") from None
    return overridden


def _with_range(text: str, shape: Rating) -> str:
    """Replace ``{{ low }}`` and ``{{ high }}`` in a template by the range of its scale."""
    for name, value in (("low", shape.low), ("high", shape.high)):
        text = re.sub(rf"\{{\{{\s*{name}\s*\}}\}}", plain_number(value), text)
    return text


_RANGE = re.compile(
    r"(?P<before>.{0,60}?)(?<![\d.])(?P<low>-?\d+)\s*(?:\([^)]*\)\s*)?(?:-|\u2013|\u2014|\u2026|\.{2,3}|~|to|and)\s*"
    r"(?P<high>-?\d+)(?P<after>\s*\w*)",
    re.IGNORECASE | re.DOTALL,
)
_OUT_OF = re.compile(r"\bout of (?P<high>\d+)\b", re.IGNORECASE)
_ABOUT_RATING = re.compile(r"rat(?:e|ing)|scale|scor|number|point|between", re.IGNORECASE)
_ABOUT_LENGTH = re.compile(
    r"\s*(?:words?|sentences?|lines?|characters?|paragraphs?|tokens?|items?)"
)


def _check_range(place: str, text: str, shape: Rating) -> None:
    """Refuse a rating prompt that mentions another range than that of its scale.

    Otherwise a rating of 9 on a scale from 1 to 7 would be unparseable every time.
    """
    ranges = [
        f"from {match['low']} to {match['high']}"
        for match in _RANGE.finditer(text)
        if _ABOUT_RATING.search(match["before"])
        and not _ABOUT_LENGTH.match(match["after"])
        and float(match["low"]) < float(match["high"])
        and (float(match["low"]), float(match["high"])) != (shape.low, shape.high)
    ]
    ranges += [match[0] for match in _OUT_OF.finditer(text) if float(match["high"]) != shape.high]
    if ranges:
        low, high = plain_number(shape.low), plain_number(shape.high)
        raise InputError(
            f"{place}: found a rating {ranges[0]}; expected the scale's {low} to {high}, or "
            "another range of this scale under `scales:` in the config"
        )
