"""The interface of dataset formats: columns, rows, requirements, and choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt
import pyarrow as pa

from agents.scale import Declaration, Scale
from sandbox.datasets.choices import Choices
from sandbox.datasets.schema import RunSchema, Schema
from sandbox.datasets.source import SourcedExchange

ROLES = ("user", "assistant")

Type = str | list[Any] | dict[str, Any]
"""A column type: its name, [the type of each element], or the types of a struct by field name."""

Columns = Mapping[str, Type]

MESSAGE: Columns = {"role": "string", "content": "string"}
MESSAGES: Type = [dict(MESSAGE)]
"""A conversation, as chat templates take it."""


@dataclass(frozen=True)
class Settings:
    """The settings of a format in an export.

    Attributes:
        choices: the choices, with the defaults of the format.
        schema: the stages and scales of the runs.
        scale: the scale of the selected rating; None if the format does not use ratings, or the
            runs have none.
        tokens: counts the tokens of a text; None: tokens are not counted.
    """

    choices: Choices
    schema: Schema
    scale: Scale | None = None
    tokens: Callable[[str], int] | None = None

    @property
    def rated_on(self) -> Scale:
        """The scale of the selected rating, which must exist."""
        assert self.scale is not None
        return self.scale

    @property
    def min_rating(self) -> float:
        """The minimum rating of positive examples."""
        assert self.choices.min_rating is not None
        return self.choices.min_rating

    @property
    def max_rating(self) -> float:
        """The maximum rating of negative examples."""
        assert self.choices.max_rating is not None
        return self.choices.max_rating

    @property
    def min_margin(self) -> float:
        """The minimum difference between the ratings of a chosen and a rejected answer."""
        assert self.choices.min_margin is not None
        return self.choices.min_margin

    def too_long(self, prompt: str, answers: Sequence[str]) -> list[bool]:
        """Whether each answer has, with its prompt, more than `max_tokens` tokens."""
        limit = self.choices.max_tokens
        if self.tokens is None or limit is None:
            return [False] * len(answers)
        asked = self.tokens(prompt)
        return [asked + self.tokens(answer) > limit for answer in answers]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a format.

    Attributes:
        kind: one of the kinds of the format.
        id: the id that `inspect` accepts.
        sourced: the exchange of the row; the first of several.
        question: the number of the question.
        data: the values by column.
        prompt: the prompt text.
        answers: the completions that a model is trained on.
        dedup_text: text used for near-duplicate detection; None turns it off.
        rating: the rating of the answer, of the chosen one of a pair, of the best of several.
        margin: the difference between the best and the worst rating; None for a single answer.
        size: the number of candidates in the row.
        lineage: the row of the lineage file, if the format has one.
    """

    kind: str
    id: str
    sourced: SourcedExchange
    question: int
    data: dict[str, Any]
    prompt: str
    answers: tuple[str, ...]
    dedup_text: str | None = None
    rating: float | None = None
    margin: float | None = None
    size: int = 1
    lineage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """A candidate for a row of a kind, removed by a rule; `id` names the candidate."""

    kind: str
    rule: str
    id: str


TOO_LONG = "longer than max_tokens"
"""The rule that removes a row, or an answer of a row with several, that is too long."""

Rows = Callable[[Sequence[SourcedExchange], Settings], Iterator[Row | Removed]]
"""Yields a format's rows from all exchanges about one question."""


def no_requirements(declaration: Declaration, choices: Choices) -> str | None:
    """The `needs` of a format that fits every run."""
    return None


def no_advice(figures: Mapping[str, npt.NDArray[Any]]) -> Iterator[str]:
    """The `advice` of a format that warns about nothing."""
    yield from ()


@dataclass(frozen=True)
class Format:
    """A format of datasets.

    Attributes:
        name: its name on the command line.
        about: its description for the card, a sentence or a few.
        kinds: the kinds of its rows.
        columns: the columns and their types, for the stages and scales of the runs.
        rows: yields its rows.
        needs: what a run lacks for this format, as the end of "it needs ..."; None if it fits.
        uses: the choices that apply to it, besides those that apply to every format.
        own: common choices that the format implements itself.
        refuses: common choices that do not apply to it.
        defaults: its defaults of choices.
        least: the default of `min_rating`, as a share of the scale's range from the worse end.
        compares: whether it compares ratings, so that a scale must have one range in all runs.
        by_round: whether exchanges are read by round and author; otherwise by question.
        array: the file is one JSON array, with a lineage file beside it.
        complete: it has all texts, also those that others leave out: shortened ones, and those
            that broke a rule of the policy.
        conversations: whether it fits worlds in which users score the answers of conversations:
            `no`, `also`, or `only`.
        parts: the formats that it consists of, each with a file of its own; usually none.
        counts: the noun for its candidates.
        advice: warnings about the rows that are written, from their numeric columns.
    """

    name: str
    about: str
    kinds: tuple[str, ...]
    columns: Callable[[Schema], Columns]
    rows: Rows
    needs: Callable[[Declaration, Choices], str | None] = no_requirements
    uses: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    least: float = 2 / 3
    compares: bool = True
    by_round: bool = False
    array: bool = False
    complete: bool = False
    conversations: Literal["no", "also", "only"] = "no"
    parts: tuple[Format, ...] = ()
    counts: str = "rows"
    advice: Callable[[Mapping[str, npt.NDArray[Any]]], Iterator[str]] = no_advice

    @property
    def stem(self) -> str:
        """The prefix of its file names."""
        return self.name.replace("-", "_")

    def missing(self, run: RunSchema, choices: Choices) -> str | None:
        """What a run lacks for this format, as the end of "it needs ..."; None if it fits."""
        if run.conversations and self.conversations == "no":
            return "questions that are answered as they stand; here users write their own messages"
        if self.conversations == "only" and not run.conversations:
            return "conversations of users who score answers, as in the world personal"
        return self.needs(run.declaration, choices)


def arrow_schema(columns: Columns) -> pa.Schema:
    """Return the Arrow schema of columns, for Parquet."""
    return pa.schema([(name, _arrow(kind)) for name, kind in columns.items()])


def _arrow(kind: Type) -> pa.DataType:
    if isinstance(kind, list):
        return pa.list_(_arrow(kind[0]))
    if isinstance(kind, dict):
        return pa.struct([(name, _arrow(part)) for name, part in kind.items()])
    return pa.bool_() if kind == "bool" else pa.type_for_alias(kind)


def features(columns: Columns) -> list[dict[str, Any]]:
    """Return the columns as `datasets` reads them from the front matter of a dataset card."""
    return [{"name": name, **_feature(kind)} for name, kind in columns.items()]


def _feature(kind: Type) -> dict[str, Any]:
    if isinstance(kind, list):
        inner = _feature(kind[0])
        return {"list": inner.get("struct") or inner.get("dtype") or inner}
    if isinstance(kind, dict):
        return {"struct": features(kind)}
    return {"dtype": kind}


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, with U+2028, U+2029 and U+0085 escaped.

    A lone surrogate cannot be encoded in UTF-8 and becomes U+FFFD: loaders refuse it even escaped.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for separator in "\u2028\u2029\x85":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
