"""Builds the rows of a format: applies rules, samples, and writes the files.

Rows that no rule removes are spooled to a temporary file until sampling; only the numeric columns
that sampling needs are kept in memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sandbox.datasets.choices import Choices
from sandbox.datasets.files import array, lines, parquet
from sandbox.datasets.format import (
    TOO_LONG,
    Columns,
    Format,
    Removed,
    Row,
    Settings,
    arrow_schema,
    json_line,
)
from sandbox.datasets.near_duplicates import NEAR, NearDuplicates
from sandbox.datasets.questions import Questions
from sandbox.datasets.rater_choices import NOT_CHOSEN, matches, parse_raters
from sandbox.datasets.sampling import Table, sample
from sandbox.datasets.source import Source, SourcedExchange
from sandbox.datasets.targets import Shape

KEPT_OUT = "about a question to keep out"

_EXAMPLES = 3


class Rule(NamedTuple):
    """The number of candidates that a rule removed, and the ids of a few of them."""

    removed: int
    examples: tuple[str, ...]


class FormatResult(NamedTuple):
    """The outcome of writing a format.

    Attributes:
        format: the format.
        settings: the choices with the defaults of the format, and the scale of the selected rating.
        columns: the columns of the written rows.
        candidates: the number of candidates.
        removed: by kind and rule, in the order in which the rules were applied.
        kept: the number of rows of each kind that no rule removed, before sampling.
        written: the number of rows of each kind that were written.
        files: the number of rows in each file.
        figures: the numeric columns of the rows that were written; see `sampling.Table`.
        notes: warnings, and the reason if no row remains.
    """

    format: Format
    settings: Settings
    columns: Columns
    candidates: int
    removed: Mapping[str, Rule]
    kept: Mapping[str, int]
    written: Mapping[str, int]
    files: Mapping[str, int]
    figures: Mapping[str, npt.NDArray[Any]]
    notes: tuple[str, ...]

    @property
    def choices(self) -> Choices:
        """The choices, with the format's defaults."""
        return self.settings.choices

    def as_dict(self) -> dict[str, Any]:
        """As a JSON-serializable dict."""
        return {
            "format": self.format.name,
            "candidates": self.candidates,
            "counts": self.format.counts,
            "held": int(self.figures["size"].sum()),
            "found": dict(self.kept),
            "written": dict(self.written),
            "removed": {rule: one.removed for rule, one in self.removed.items()},
            "examples": {rule: list(one.examples) for rule, one in self.removed.items()},
            "files": dict(self.files),
            "notes": list(self.notes),
            "rating": self.rating_values(),
        }

    def rating_values(self) -> dict[str, Any] | None:
        """The scale of the selected rating and the effective thresholds; None without a scale."""
        scale, choices = self.settings.scale, self.settings.choices
        if scale is None:
            return None
        used = ("min_rating", "max_rating", "min_margin")
        return {
            "scale": scale.name,
            "low": scale.low,
            "high": scale.high,
            "better": scale.better,
            **{name: getattr(choices, name) for name in used if name in self.format.uses},
        }


class FormatWriter:
    """Writes the rows of one format.

    Args:
        format: the format.
        settings: its choices, with its defaults, and the schema of the runs.
        shape: converts rows for the training framework; None: unchanged.
        source: the runs.
        questions: their questions.
        folder: the folder to write to.
    """

    def __init__(
        self,
        format: Format,
        settings: Settings,
        shape: Shape | None,
        source: Source,
        questions: Questions,
        folder: Path,
    ) -> None:
        columns = format.columns(source.schema)
        self.format = format
        self.settings = settings
        self.choices = settings.choices
        self.columns = shape.applied(columns) if shape else columns
        self.questions = questions
        self._raters = parse_raters(settings.choices.raters or ())
        self._shape, self._source = shape, source
        self._folder, self._tokens = folder, settings.tokens
        self._table = Table()
        self._removed: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._candidates = 0
        self._group: int | None = None
        self._near: dict[str, NearDuplicates] = {}
        self._stack = ExitStack()
        self._spools = [folder / f".{format.stem}.rows"]
        if format.array:
            self._spools.append(folder / f".{format.stem}.lineage")
        self._spool_writers = [self._stack.enter_context(lines(path)) for path in self._spools]

    def add(self, same_question: Sequence[SourcedExchange]) -> None:
        """Add the rows of exchanges: all those about one question, or one exchange by round."""
        if self.choices.strict_ratings:
            same_question = [sourced.strictly_rated() for sourced in same_question]
        if not self.format.complete:
            same_question = [sourced.within_policy() for sourced in same_question]
        if not (self.choices.shortened or self.format.complete):
            same_question = [sourced.whole() for sourced in same_question]
        same_question = [self._with_raters(sourced) for sourced in same_question]
        for row in self.format.rows(same_question, self.settings):
            if isinstance(row, Removed):
                self._candidates += 1
                self._remove(row.kind, row.rule, row.id, 1)
                continue
            self._candidates += row.size
            tokens = self._longest(row)
            rule = self._rule(row, tokens)
            if rule is None:
                self._spool(row, tokens)
            else:
                self._remove(row.kind, rule, row.id, row.size)

    def _with_raters(self, sourced: SourcedExchange) -> SourcedExchange:
        """The same with the ratings of the chosen peers only."""
        if not self._raters:
            return sourced
        people, exchange = sourced.origin.people, sourced.exchange
        given = exchange.ratings
        chosen = tuple(
            one
            for one in given
            if matches(self._raters, {**people.get(one.rater, {}), "model": one.model})
        )
        return sourced._replace(exchange=exchange._replace(ratings=chosen))

    def _remove(self, kind: str, rule: str, candidate: str, size: int) -> None:
        name = f"{kind}: {rule}"
        self._removed[name] += size
        examples = self._examples.setdefault(name, [])
        if len(examples) < _EXAMPLES:
            examples.append(candidate)

    def _longest(self, row: Row) -> int:
        """Tokens of the prompt and the longest answer together; -1 if they are not counted."""
        if self._tokens is None:
            return -1
        return self._tokens(row.prompt) + max(map(self._tokens, row.answers), default=0)

    def _rule(self, row: Row, tokens: int) -> str | None:
        """The rule that removes a row; None if none does."""
        rater = row.sourced.rater
        if rater is not None and not matches(self._raters, rater):
            return NOT_CHOSEN
        if self.choices.balance is not None and self._group_of(row) is None:
            return f"its rater told no {self.choices.balance}"
        if self.questions.is_excluded(row.question):
            return KEPT_OUT
        if tokens > (self.choices.max_tokens or tokens):
            return TOO_LONG
        if row.dedup_text is not None and self._is_near_duplicate(
            row.kind, row.question, row.dedup_text
        ):
            return NEAR
        return None

    def _group_of(self, row: Row) -> str | None:
        """The group of the row's rater that the choice `balance` names; None if it is not told."""
        rater = row.sourced.rater or {}
        told = (rater.get("survey") or {}).get(self.choices.balance)
        return None if told is None else str(told)

    def _is_near_duplicate(self, kind: str, question: int, text: str) -> bool:
        """Whether a row is a near-duplicate of an earlier one about the same group of questions."""
        group = self.questions.groups[question]
        if group != self._group:
            self._group, self._near = group, {}
        if kind not in self._near:
            self._near[kind] = NearDuplicates(self.choices.near)
        return self._near[kind].add(text).any

    def _spool(self, row: Row, tokens: int) -> None:
        data = self._shape.apply(row.data) if self._shape else row.data
        for write, value in zip(self._spool_writers, (data, row.lineage), strict=False):
            write(json_line(value) + "\n")
        seed = self.choices.seed or 0
        group = self._group_of(row) or ""
        self._table.add(self.format.kinds.index(row.kind), row, tokens, seed, group)

    def close(self) -> None:
        """Close the spool files."""
        self._stack.close()

    def finish(self) -> FormatResult:
        """Sample rows and write those that are selected."""
        self.close()
        kinds, runs = self.format.kinds, [one.reader.run.name for one in self._source.origins]
        columns = self._table.arrays()
        by_rows = "max_per_question" not in self.format.own
        groups = () if self.choices.balance is None else self._table.groups
        selection = sample(columns, self.choices, kinds, runs, by_rows, groups)
        for rule, dropped in selection.removed.items():
            self._count(rule, dropped, columns)
        files = self._write(selection.taken, columns["question"])
        for spool in self._spools:
            spool.unlink()
        figures = {name: values[selection.taken] for name, values in columns.items()}
        kept, written = (
            dict(zip(kinds, np.bincount(numbers, minlength=len(kinds)).tolist(), strict=True))
            for numbers in (columns["kind"], columns["kind"][selection.taken])
        )
        removed = {
            name: Rule(count, tuple(self._examples.get(name, ())))
            for name, count in self._removed.items()
        }
        return FormatResult(
            format=self.format,
            settings=self.settings,
            columns=self.columns,
            candidates=self._candidates,
            removed=removed,
            kept=kept,
            written=written,
            files=files,
            figures=figures,
            notes=(
                *selection.notes,
                *self._why_empty(written, removed, selection.notes),
                *self.format.advice(figures),
                *(f"{name} is empty" for name, n in files.items() if not n and any(files.values())),
            ),
        )

    def _count(self, rule: str, dropped: npt.NDArray[np.bool_], columns: Mapping[str, Any]) -> None:
        """Count the rows that sampling removed."""
        for number, kind in enumerate(self.format.kinds):
            count = int(columns["size"][dropped & (columns["kind"] == number)].sum())
            if count:
                self._removed[f"{kind}: {rule}"] += count

    def _why_empty(
        self, written: Mapping[str, int], removed: Mapping[str, Rule], notes: Sequence[str]
    ) -> Iterator[str]:
        if any(written.values()) or any(note.startswith("nothing is left") for note in notes):
            return
        if not self._candidates:
            yield "nothing is left: no exchange has been played yet"
            return
        rule, one = max(removed.items(), key=lambda item: item[1].removed)
        yield (
            f"nothing is left: rules removed all {self._candidates:,} {self.format.counts}, most "
            f"of them ({one.removed:,}) by {rule!r}"
        )

    def _write(
        self, taken: npt.NDArray[np.bool_], question: npt.NDArray[np.int64]
    ) -> dict[str, int]:
        """Write the selected rows, each to the file of the split of its question."""
        shares = self.choices.splits or {}
        splits = self.questions.splits(shares, self.choices.seed or 0)
        counts = dict.fromkeys(shares, 0)
        with ExitStack() as stack:
            files = {
                split: [stack.enter_context(one) for one in self._open(split)] for split in shares
            }
            spools = [stack.enter_context(path.open(encoding="utf-8")) for path in self._spools]
            rows = zip(question.tolist(), *spools, strict=True)
            for number, *texts in compress(rows, taken.tolist()):
                split = splits[number]
                for write, line in zip(files[split], texts, strict=True):
                    write(line)
                counts[split] += 1
        return {self._name(split): count for split, count in counts.items()}

    def _open(self, split: str) -> Iterator[Any]:
        path = self._folder / self._name(split)
        if self.format.array:
            yield array(path)
            yield lines(self._folder / lineage_file(path.name))
        elif self.choices.files == "parquet":
            yield parquet(path, arrow_schema(self.columns))
        else:
            yield lines(path)

    def _name(self, split: str) -> str:
        """The file name of a split."""
        several = len(self.choices.splits or {}) > 1
        ending = "json" if self.format.array else self.choices.files
        return f"{self.format.stem}{f'-{split}' if several else ''}.{ending}"


def lineage_file(name: str) -> str:
    """The name of the lineage file of a data file without lineage columns."""
    return re.sub(r"^(\w+)(-\w+)?\.json$", r"\1_lineage\2.jsonl", name)
