"""Records of the read model, and their JSON form.

The terminal, the viewer, reports and scripts share these frozen dataclasses. `--json` prints the
result of `Record.as_dict`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

_MERGED = frozenset({"means", "persona", "scores", "texts", "traits"})
"""Names of mappings whose entries become keys of the record itself, such as `texts` by stage."""


class Record:
    """A frozen dataclass of the read model."""

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON.

        Mappings by the name of a stage, scale or measure are merged into the record, so that a
        draft is `draft` and not `texts.draft`. Fields marked as `PAGES_ONLY` are left out.
        """
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return _merged(
            (field.name, getattr(self, field.name))
            for field in fields
            if field.metadata.get("json", True)
        )


PAGES_ONLY = {"json": False}
"""Metadata of a field that pages show and JSON leaves out."""


def _merged(items: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, value in items:
        plain = _plain(value)
        if name in _MERGED and isinstance(plain, dict):
            merged.update(plain)
        else:
            merged[name] = plain
    return merged


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _merged(value._asdict().items())
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value


def flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested mappings, such as a config, into dotted keys."""
    return dict(_flat((), data))


def _flat(key: tuple[str, ...], value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat((*key, name), part)
    else:
        yield ".".join(key), value


class Page(NamedTuple):
    """A page of a list.

    Attributes:
        rows: the records on it.
        total: the number of rows in the whole list.
        first: the position of the first row in the list, from 1.
        page: its number, from 1.
        pages: the number of pages.
    """

    rows: Sequence[Any]
    total: int
    first: int
    page: int
    pages: int

    @classmethod
    def of(cls, rows: Sequence[Any], page: int, size: int) -> Page:
        """The page with this number, or the last page if the list is shorter."""
        page, pages = page_number(page, len(rows), size)
        start = (page - 1) * size
        return cls(rows[start : start + size], len(rows), start + 1, page, pages)


def page_number(page: int, total: int, size: int) -> tuple[int, int]:
    """The page number, limited to the last page, and the number of pages."""
    pages = max(1, -(-total // size))
    return min(page, pages), pages
