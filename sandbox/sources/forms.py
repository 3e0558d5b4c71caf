"""Prompt templates: a world's own, with overrides from a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.forms import Form, Rating, clean
from agents.scale import plain_number
from sandbox.wording import other_range
from sandbox.yaml_values import NotYaml, parse_yaml
from storage.errors import InputError


def read_forms(
    path: Path | None, forms: Sequence[Form[Any]], notes: list[str] | None = None
) -> dict[str, Form[Any]]:
    """Return a world's prompt templates by name, with overrides from a file.

    The file is YAML: ``draft: {system: ..., user: ...}``, each key optional. Templates are Jinja,
    with the variables of the built-in template.

    Args:
        path: the file; None for no overrides.
        forms: the world's prompt templates.
        notes: a line about what was read is appended to it.

    Raises:
        InputError: the file cannot be read, names an unknown template, or has an invalid one.
    """
    known = {form.name: form for form in forms}
    if path is None:
        return known
    try:
        overrides = parse_yaml(path.read_text(encoding="utf-8"))
    except NotYaml as error:
        line = f":{error.line}" if error.line else ""
        raise InputError(f"forms: {path}{line}: not YAML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"forms: {path}: cannot be read: {reason}".replace("\n", " ")) from None
    if not isinstance(overrides, dict):
        raise InputError(
            f"forms: {path}: expected a mapping of prompt templates to system and user"
        )
    replaced = {name: _overridden(path, known, name, parts) for name, parts in overrides.items()}
    if notes is not None:
        count = len(replaced)
        templates = "prompt template" if count == 1 else "prompt templates"
        notes.append(f"{count} {templates} from {path.name} ({', '.join(replaced)})")
    return known | replaced


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
        _check_range(f"forms: {path}: {name}", "\n".join(texts.values()), form.reply)
    try:
        overridden = replace(form, system=texts["system"], user=texts["user"])
        overridden.try_out()
    except ValueError as error:
        raise InputError(f"forms: {path}: {error}") from None
    return overridden


def _with_range(text: str, shape: Rating) -> str:
    """Replace ``{{ low }}`` and ``{{ high }}`` in a template by the range of its scale."""
    for name, value in (("low", shape.low), ("high", shape.high)):
        text = re.sub(rf"\{{\{{\s*{name}\s*\}}\}}", plain_number(value), text)
    return text


def _check_range(place: str, text: str, shape: Rating) -> None:
    """Refuse a rating prompt that mentions another range than that of its scale.

    Otherwise a rating of 9 on a scale from 1 to 7 would be missing every time.
    """
    found = other_range(text, shape.low, shape.high)
    if found is not None:
        low, high = plain_number(shape.low), plain_number(shape.high)
        raise InputError(
            f"{place}: found a rating {found}; expected the scale's {low} to {high}, or another "
            "range of this scale (low, high) under `scales:` in the config"
        )
