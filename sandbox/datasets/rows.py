"""What formats are made of: columns with types, rows, and what a rule removes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from sandbox.datasets.choices import Choices
from sandbox.datasets.source import Told

ROLES = ("user", "assistant")

Type = str | list[Any] | dict[str, Any]
"""A type of values: its name, [the type of each], or the types of parts by their names."""

Columns = Mapping[str, Type]

MESSAGE: Columns = {"role": "string", "content": "string"}
MESSAGES: Type = [dict(MESSAGE)]
"""A conversation, as chat templates take it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row that a format has made.

    Attributes:
        kind: one of the format's kinds.
        id: what `inspect` takes back to the exchange.
        told: the exchange that it is from; of several the first.
        question: the number of what is asked.
        data: the values by column.
        prompt: what a model is shown.
        answers: what it is trained on, each with the prompt.
        like: the text by which near-duplicates are found; None where they are no fault.
        rating: of the row (of a pair the chosen answer's, of many the best one's), 1 to 7.
        margin: by how much the best is rated above the worst; None where there is one alone.
        size: how many candidates it holds.
        lineage: what goes into a file beside, where the format's own has no room for it.
    """

    kind: str
    id: str
    told: Told
    question: int
    data: dict[str, Any]
    prompt: str
    answers: tuple[str, ...]
    like: str | None = None
    rating: float | None = None
    margin: float | None = None
    size: int = 1
    lineage: dict[str, Any] | None = None


class Removed(NamedTuple):
    """A candidate for a row of a kind that a rule removes, and its id."""

    kind: str
    rule: str
    id: str


Made = Callable[[Sequence[Told], Choices], Iterator[Row | Removed]]
"""Makes a format's rows of all exchanges about one question."""


@dataclass(frozen=True)
class Format:
    """A format of exports.

    Attributes:
        name: as it is typed.
        about: what it holds, for the card: a sentence or a few.
        kinds: the kinds of its rows.
        columns: their columns and types.
        rows: makes them.
        uses: the choices that concern it, beside those that concern all.
        own: choices that concern all, which it applies by itself.
        defaults: its own defaults of choices.
        by_round: rows come in the order of rounds and authors; else by question.
        array: the file is one JSON array, with a file of lineage beside it.
        counts: what its candidates are called.
    """

    name: str
    about: str
    kinds: tuple[str, ...]
    columns: Columns
    rows: Made
    uses: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    by_round: bool = False
    array: bool = False
    counts: str = "rows"

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return self.name.replace("-", "_")


def arrow_schema(columns: Columns) -> pa.Schema:
    """The columns for Parquet."""
    return pa.schema([(name, _arrow(one)) for name, one in columns.items()])


def _arrow(one: Type) -> pa.DataType:
    if isinstance(one, list):
        return pa.list_(_arrow(one[0]))
    if isinstance(one, dict):
        return pa.struct([(name, _arrow(part)) for name, part in one.items()])
    return pa.bool_() if one == "bool" else pa.type_for_alias(one)


def features(columns: Columns) -> list[dict[str, Any]]:
    """The columns as the front matter of a dataset card tells them to `datasets`."""
    return [{"name": name, **_feature(one)} for name, one in columns.items()]


def _feature(one: Type) -> dict[str, Any]:
    if isinstance(one, list):
        inner = _feature(one[0])
        return {"list": inner.get("struct") or inner.get("dtype") or inner}
    if isinstance(one, dict):
        return {"struct": features(one)}
    return {"dtype": one}


def json_line(value: Any) -> str:
    """A value as JSON on one line, also for readers that take other characters for line ends.

    Half of a surrogate pair stands for no character and cannot be written in UTF-8; it becomes
    U+FFFD, as loaders refuse it even where it is escaped.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for separator in "\u2028\u2029\x85":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
