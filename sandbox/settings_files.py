"""Settings of training, evaluation and studies: typed, read from YAML and ``--set``.

Errors are found before anything starts, in one line, as in a run's config.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeGuard, TypeVar

from pydantic import ValidationError

from agents.section import Section
from sandbox.config import GIVEN, PATH_BEGINNINGS, absolute, explain, read_yaml, redacted, set_key
from storage.errors import InputError


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
        place, data = str(source), read_yaml(source)
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

    return explain(error, place, origin or {}, data, expected)


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
