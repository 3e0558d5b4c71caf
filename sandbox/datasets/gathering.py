"""How the rows of a format come about: made, sifted by rules, chosen among, and written.

Rows that the rules leave wait in a file of their own until all of them are known; in memory there
are only the numbers that choosing among them takes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sandbox.datasets.choices import Choices
from sandbox.datasets.files import array, lines, parquet
from sandbox.datasets.near import NEAR, Near
from sandbox.datasets.questions import Questions
from sandbox.datasets.rows import Columns, Format, Removed, Row, arrow_schema, json_line
from sandbox.datasets.sampling import Table, choose
from sandbox.datasets.source import Source, Told
from sandbox.datasets.targets import Shape

KEPT_OUT = "about a question to keep out"
TOO_LONG = "longer than max_tokens"

_EXAMPLES = 3


class Rule(NamedTuple):
    """What a rule removed: how many candidates, and the ids of a few of them."""

    removed: int
    examples: tuple[str, ...]


class Gathered(NamedTuple):
    """What became of a format's candidates.

    Attributes:
        format: the format.
        choices: what was chosen, the format's own defaults among it.
        columns: of the rows as they were written.
        candidates: how many there were.
        removed: by kind and rule, in the order in which they were applied.
        found: the rows of each kind that the rules left.
        written: the rows of each kind that were written.
        files: the rows in each file.
        figures: the numbers of the rows that were written, as `sampling.Table` has them.
        notes: what is out of the ordinary, and why nothing is left where nothing is.
    """

    format: Format
    choices: Choices
    columns: Columns
    candidates: int
    removed: Mapping[str, Rule]
    found: Mapping[str, int]
    written: Mapping[str, int]
    files: Mapping[str, int]
    figures: Mapping[str, npt.NDArray[Any]]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": self.format.name,
            "candidates": self.candidates,
            "counts": self.format.counts,
            "held": int(self.figures["size"].sum()),
            "found": dict(self.found),
            "written": dict(self.written),
            "removed": {rule: one.removed for rule, one in self.removed.items()},
            "examples": {rule: list(one.examples) for rule, one in self.removed.items()},
            "files": dict(self.files),
            "notes": list(self.notes),
        }


class Gathering:
    """The rows of one format, on their way.

    Args:
        format: what is made.
        choices: with the format's own defaults.
        shape: how the program that reads the rows wants them; None: as they are.
        source: the runs.
        questions: theirs.
        folder: where files go.
        tokens: counts the tokens of a text; None: nobody asked.
    """

    def __init__(
        self,
        format: Format,
        choices: Choices,
        shape: Shape | None,
        source: Source,
        questions: Questions,
        folder: Path,
        tokens: Callable[[str], int] | None,
    ) -> None:
        self.format = format
        self.choices = choices
        self.columns = shape.applied(format.columns) if shape else format.columns
        self.questions = questions
        self._shape, self._source = shape, source
        self._folder, self._tokens = folder, tokens
        self._table = Table()
        self._removed: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._candidates = 0
        self._group: int | None = None
        self._near: dict[str, Near] = {}
        self._stack = ExitStack()
        self._spools = [folder / f".{format.stem}.rows"]
        if format.array:
            self._spools.append(folder / f".{format.stem}.lineage")
        self._waiting = [self._stack.enter_context(lines(path)) for path in self._spools]

    def take(self, about: Sequence[Told]) -> None:
        """Make the rows of some exchanges, all those about one question, and sift them."""
        for made in self.format.rows(about, self.choices):
            if isinstance(made, Removed):
                self._candidates += 1
                self._remove(made.kind, made.rule, made.id, 1)
                continue
            self._candidates += made.size
            tokens = self._longest(made)
            rule = self._rule(made, tokens)
            if rule is None:
                self._keep(made, tokens)
            else:
                self._remove(made.kind, rule, made.id, made.size)

    def _remove(self, kind: str, rule: str, made: str, size: int) -> None:
        name = f"{kind}: {rule}"
        self._removed[name] += size
        examples = self._examples.setdefault(name, [])
        if len(examples) < _EXAMPLES:
            examples.append(made)

    def _longest(self, row: Row) -> int:
        """Tokens of prompt and answer together, of the longest answer; -1 where nobody asked."""
        if self._tokens is None:
            return -1
        return self._tokens(row.prompt) + max(map(self._tokens, row.answers), default=0)

    def _rule(self, row: Row, tokens: int) -> str | None:
        """The rule that removes a row."""
        if self.questions.out(row.question):
            return KEPT_OUT
        if tokens > (self.choices.max_tokens or tokens):
            return TOO_LONG
        if row.like is not None and self._repeats(row.kind, row.question, row.like):
            return NEAR
        return None

    def _repeats(self, kind: str, question: int, text: str) -> bool:
        """Whether a row says what another one about this question, or one near to it, says."""
        group = self.questions.groups[question]
        if group != self._group:
            self._group, self._near = group, {}
        if kind not in self._near:
            self._near[kind] = Near(self.choices.near)
        return self._near[kind].add(text).any

    def _keep(self, row: Row, tokens: int) -> None:
        data = self._shape.apply(row.data) if self._shape else row.data
        for write, value in zip(self._waiting, (data, row.lineage), strict=False):
            write(json_line(value) + "\n")
        seed = self.choices.seed or 0
        self._table.add(self.format.kinds.index(row.kind), row, tokens, seed)

    def close(self) -> None:
        """Close what rows wait in."""
        self._stack.close()

    def finish(self) -> Gathered:
        """Choose among the rows, and write those that are taken."""
        self.close()
        kinds, runs = self.format.kinds, [one.reader.run.name for one in self._source.origins]
        columns = self._table.arrays()
        by_rows = "max_per_question" not in self.format.own
        chosen = choose(columns, self.choices, kinds, runs, by_rows)
        for rule, gone in chosen.removed.items():
            self._count(rule, gone, columns)
        files = self._write(chosen.taken, columns["question"])
        for spool in self._spools:
            spool.unlink()
        found, written = (
            dict(zip(kinds, np.bincount(of, minlength=len(kinds)).tolist(), strict=True))
            for of in (columns["kind"], columns["kind"][chosen.taken])
        )
        removed = {
            name: Rule(count, tuple(self._examples.get(name, ())))
            for name, count in self._removed.items()
        }
        return Gathered(
            format=self.format,
            choices=self.choices,
            columns=self.columns,
            candidates=self._candidates,
            removed=removed,
            found=found,
            written=written,
            files=files,
            figures={name: values[chosen.taken] for name, values in columns.items()},
            notes=(
                *chosen.notes,
                *self._why_nothing(written, removed, chosen.notes),
                *(f"{name} is empty" for name, n in files.items() if not n and any(files.values())),
            ),
        )

    def _count(self, rule: str, gone: npt.NDArray[np.bool_], columns: Mapping[str, Any]) -> None:
        """Add to the removals what was not drawn."""
        for number, kind in enumerate(self.format.kinds):
            count = int(columns["size"][gone & (columns["kind"] == number)].sum())
            if count:
                self._removed[f"{kind}: {rule}"] += count

    def _why_nothing(
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
        """Write the rows that are taken, each into the file of its question's split."""
        shares = self.choices.splits or {}
        splits = self.questions.splits(shares, self.choices.seed or 0)
        counts = dict.fromkeys(shares, 0)
        with ExitStack() as stack:
            files = {
                split: [stack.enter_context(one) for one in self._open(split)] for split in shares
            }
            spools = [stack.enter_context(path.open(encoding="utf-8")) for path in self._spools]
            rows = zip(question.tolist(), *spools, strict=True)
            for number, *told in compress(rows, taken.tolist()):
                split = splits[number]
                for write, line in zip(files[split], told, strict=True):
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
        """The file of a split."""
        several = len(self.choices.splits or {}) > 1
        ending = "json" if self.format.array else self.choices.files
        return f"{self.format.stem}{f'-{split}' if several else ''}.{ending}"


def lineage_file(name: str) -> str:
    """The file beside one whose rows have no room for lineage."""
    return re.sub(r"^(\w+)(-\w+)?\.json$", r"\1_lineage\2.jsonl", name)
