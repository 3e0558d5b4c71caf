"""Settings of runs, training, evaluation and studies: read from YAML and ``--set``.

Errors are found before anything starts, each in one line with the place, the key, what was found
and what was expected.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeGuard, TypeVar

from pydantic import ValidationError

from agents.forms import clean
from agents.section import Section
from sandbox.text import short
from sandbox.yaml_values import LONGEST_CONFIG, NotYaml, parse_yaml
from storage.errors import InputError
from storage.secrets import HIDDEN, hide_secrets, hide_values, is_secret

PATH_BEGINNINGS = ("./", "../", "/", "~")
"""How the paths among names and paths begin."""

GIVEN = "config"
"""The place in error messages of a config that is no file."""


class _Relative:
    """Marks a field whose text is a path; with `names`, only if it looks like one."""

    def __init__(self, names: bool) -> None:
        self.names = names

    def is_path(self, value: object) -> TypeGuard[str]:
        return isinstance(value, str) and (not self.names or value.startswith(PATH_BEGINNINGS))


FilePath = Annotated[Path, _Relative(names=False)]
"""A path: in a file relative to the file's folder, in a ``--set`` to the working folder."""

NameOrPath: Final = Annotated[str, _Relative(names=True)]
"""A name, or a path if it begins with ``./``, ``../``, ``/`` or ``~``."""

S = TypeVar("S", bound=Section)


def read_settings(
    kind: type[S],
    page: str,
    source: Path | Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    **options: Any,
) -> S:
    """Read settings.

    Args:
        kind: their class.
        page: the page of the documentation that lists the keys, for error messages.
        source: a YAML file, with paths that are relative to its folder; or the keys, with paths
            that are relative to the working folder.
        settings: overrides ``a.b=value``, as for ``--set``.
        options: values of single keys, as for ``--KEY``, that override both; None is ignored.

    Raises:
        InputError: they cannot be read, or are invalid.
    """
    if isinstance(source, Path):
        place, data = str(source), read_yaml(source, f"keys that {page} lists")
        _resolve(kind, data, source.resolve().parent)
    else:
        place, data = GIVEN, dict(source or {})
    origin = {set_key(data, setting): redacted(setting) for setting in settings}
    given = {key: value for key, value in options.items() if value is not None}
    origin |= {(key,): f"--{key.replace('_', '-')}" for key in given}
    data |= given
    _resolve(kind, data, Path.cwd())  # those of the file are absolute already

    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(explained(kind, page, error, place, data, origin)) from None


def explained(
    kind: type[Section],
    page: str,
    error: ValidationError,
    place: str,
    data: Mapping[str, Any],
    origin: Mapping[tuple[str, ...], str] | None = None,
) -> str:
    """Return an error message for the first error in settings.

    Args:
        kind: their class.
        page: the page of the documentation that lists the keys.
        error: the error of pydantic.
        place: the source of the data.
        data: the data.
        origin: the source of single keys that come from elsewhere.
    """

    def expected(key: Sequence[str], _: Any) -> str:
        near = difflib.get_close_matches(key[-1], _keys(kind), 1, 0.75)
        hint = f"; did you mean {near[0]}?" if near and near[0] != key[-1] else ""
        return f"expected a key that {page} lists{hint}"

    return first_error(error, place, origin or {}, data, expected)


def _sections(kind: type[Section]) -> dict[str, type[Section]]:
    """The fields of a section that are sections themselves."""
    fields = kind.model_fields.items()
    found = {name: field.annotation for name, field in fields}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }


def _keys(kind: type[Section]) -> list[str]:
    inner = (key for section in _sections(kind).values() for key in _keys(section))
    return [*kind.model_fields, *inner]


def _resolve(kind: type[Section], data: Any, folder: Path) -> None:
    """Make the paths in settings absolute, in place."""
    if not isinstance(data, dict):
        return
    for name, field in kind.model_fields.items():
        value = data.get(name)
        for mark in field.metadata:
            if isinstance(mark, _Relative) and mark.is_path(value):
                data[name] = absolute(value, folder)
    for name, section in _sections(kind).items():
        _resolve(section, data.get(name), folder)


def read_yaml(path: Path, keys: str = "config keys") -> dict[str, Any]:
    """Read the keys of a YAML file, without those that begin with x-, which are for anchors.

    Args:
        path: of the file.
        keys: what its keys are, for error messages.

    Raises:
        InputError: it cannot be read, or is no YAML mapping.
    """
    try:
        with path.open("rb") as file:  # a pipe or a device may have no end
            content = file.read(LONGEST_CONFIG + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            expected = "found a file that is not UTF-8 text; expected a YAML config"
            raise InputError(f"{path}: {expected}") from None
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if len(content) > LONGEST_CONFIG:
        raise InputError(f"{path}: found more than {LONGEST_CONFIG:,} bytes; expected a config")
    try:
        data = parse_yaml(clean(text))
    except NotYaml as error:
        line = f":{error.line}" if error.line else ""
        raise InputError(f"{path}{line}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {shown(data)}, expected a YAML mapping of {keys}")
    strange = next((key for key in data if not isinstance(key, str)), None)
    if strange is not None:
        raise InputError(f"{path}: found the key {shown(strange)}; expected keys that are texts")
    return {key: value for key, value in data.items() if not key.startswith("x-")}


def set_key(data: dict[str, Any], setting: str) -> tuple[str, ...]:
    """Apply one override ``a.b=value`` to plain data, in place, without resolving paths.

    Returns:
        Its key: ``("a", "b")``.

    Raises:
        InputError: it is not of that form.
    """
    name, equals, text = setting.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise InputError(f"{redacted(setting)}: expected a.b=value")
    try:
        value = parse_yaml(text)
    except NotYaml as error:
        reason = f"expected a YAML value after =; {error}"
        raise InputError(f"{redacted(setting)}: {reason}") from None
    section = data
    for parent in key[:-1]:
        if not isinstance(section.setdefault(parent, {}), dict):
            section[parent] = {}
        section = section[parent]
    section[key[-1]] = value
    return key


def absolute(path: str, folder: Path) -> str:
    """Make a path absolute that is relative to a folder; ~ is the home folder."""
    return str((folder / os.path.expanduser(path)).resolve())


def first_error(
    error: ValidationError,
    path: str,
    origin: Mapping[tuple[str, ...], str],
    data: Mapping[str, Any],
    expected: Callable[[Sequence[str], Any], str],
) -> str:
    """Return an error message for the first error in settings.

    Args:
        error: the error of pydantic.
        path: the source of the data.
        origin: the source of single keys that come from elsewhere.
        data: the data.
        expected: says for an unknown key which one was expected.
    """
    first = error.errors(include_url=False)[0]
    key = _key(first["loc"], data, first["type"] == "missing") or tuple(map(str, first["loc"][:1]))
    place = origin_of(key, origin) or path
    name = ".".join(key)
    message = _EXPECTED.get(first["type"], error_text(first))
    if first["type"] == "extra_forbidden":
        return f"{place}: {name}: unknown key; {expected(key, data)}"
    if first["type"] == "missing":
        return f"{place}: {name}: missing; expected a value"
    message = message[:1].lower() + message[1:]
    found = shown(first["input"])
    if _may_be_secret(key) or HIDDEN in found:
        found = "a value that is not shown, since it may be secret"
    return f"{place}: {name}: found {found}; expected: {message}"


_EXPECTED = {
    "path_type": "the path of a file",
    "model_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "is_instance_of": "a list",  # in a file nothing but a list can be of the class Sequence
}


_RANGES = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
}


def error_text(error: Any) -> str:
    """Return the message of one of pydantic's errors, with ranges in short."""
    for name, words in _RANGES.items():
        if error["type"] == name:
            return words.format(**error["ctx"])
    return str(error["msg"]).removeprefix("Value error, ")


_MISSPELT = re.compile("key|token(?!s)|passw|secret|cred|auth|headers", re.IGNORECASE)


def _may_be_secret(key: Sequence[str]) -> bool:
    """Whether the value of a key, possibly misspelt, may be a secret."""
    return any(is_secret(part) or _MISSPELT.search(part) for part in key)


def redacted(setting: str) -> str:
    """Return a ``--set`` for an error message, without its value if that may be a secret."""
    name, _, value = setting.partition("=")
    secret = _may_be_secret(name.split(".")) or "://" in value or hide_secrets(setting) != setting
    return f"--set {short(hide_secrets(name) if secret else setting, 100)}"


def origin_of(key: tuple[str, ...], origin: Mapping[tuple[str, ...], str]) -> str | None:
    """Return where a key was set: itself, else a section that contains it, else a key within it."""
    around = [other for other in origin if other == key[: len(other)]]
    within = [other for other in origin if key == other[: len(key)]]
    nearest = max(around, key=len) if around else within[-1] if within else None
    return None if nearest is None else origin[nearest]


def _key(loc: Sequence[int | str], data: Any, missing: bool) -> tuple[str, ...]:
    """Return the config keys in pydantic's `loc`, which also names alternatives of a union."""
    key = []
    for number, part in enumerate(loc):
        if isinstance(data, Mapping) and part in data:
            key.append(str(part))
            data = data[part]
        elif missing and isinstance(data, Mapping) and number == len(loc) - 1:
            key.append(str(part))
    return tuple(key)


def shown(value: Any) -> str:
    """Return a value for an error message, as JSON of at most 60 characters without secrets."""
    try:
        text = json.dumps(hide_values(value), default=str, ensure_ascii=False)
    except (ValueError, RecursionError, TypeError):
        text = "a value that JSON does not have"
    return text if len(text) <= 60 else text[:57] + "..."
