"""Seeded sampling of rows: limits per question and agent, ratios, balance, and size."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sandbox.datasets.choices import Choices, ratio
from sandbox.datasets.format import Row
from storage.errors import InputError

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

PER_QUESTION = "more than max_per_question"
PER_AGENT = "more than max_per_agent"
MIX = "left out by the mix"
RUNS = "left out by the mix of runs"
ROWS = "more than rows"
BALANCE = "left out by the balance of groups"

_NO_AGENT = -1
_MISSING = float("nan")


class Table:
    """Per-row numeric columns that sampling needs (51 bytes a row).

    Attributes:
        columns: arrays with one number per row: `kind` and `run` (index), `question`, `agent`
            (unique across runs; -1: none), `draw` (random), `rating`, `margin`, `length` of the
            answer in characters (mean of several), `other` (length of the second of two answers),
            `tokens` of the longest answer with its prompt, `size` in candidates. Missing values
            are -1 or NaN. `group` is the place of the rater's group in `groups`.
        groups: the groups that the choice `balance` tells apart.
    """

    def __init__(self) -> None:
        self._columns: dict[str, array[Any]] = {n: array(code) for n, code in _CODES.items()}
        self.groups: list[str] = []

    def __len__(self) -> int:
        return len(self._columns["kind"])

    def add(self, kind: int, row: Row, tokens: int, seed: int, group: str = "") -> None:
        """Add a row."""
        if group not in self.groups:
            self.groups.append(group)
        run, author = row.sourced.origin.place, row.sourced.exchange.author
        lengths = [len(text) for text in row.answers] or [-1]
        mean = sum(lengths) // len(lengths)
        values = {
            "kind": kind,
            "run": run,
            "question": row.question,
            "agent": _NO_AGENT if author is None else (run << 32) + author,
            "draw": _draw(seed, row),
            "rating": _MISSING if row.rating is None else row.rating,
            "margin": _MISSING if row.margin is None else row.margin,
            "length": lengths[0] if row.size == 1 else mean,
            "other": lengths[1] if len(lengths) == 2 else -1,
            "tokens": tokens,
            "size": row.size,
            "group": self.groups.index(group),
        }
        for name, column in self._columns.items():
            column.append(values[name])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The columns as numpy arrays."""
        return {
            name: np.frombuffer(column, dtype=column.typecode)
            for name, column in self._columns.items()
        }


_CODES = {
    "kind": "B",
    "run": "H",
    "question": "q",
    "agent": "q",
    "draw": "Q",
    "rating": "f",
    "margin": "f",
    "length": "i",
    "other": "i",
    "tokens": "i",
    "size": "i",
    "group": "H",
}


def _draw(seed: int, row: Row) -> int:
    name = f"{seed}/{row.kind}/{row.id}".encode("utf-8", "replace")
    return int.from_bytes(blake2b(name, digest_size=8).digest())


class Sample(NamedTuple):
    """The result of sampling.

    Attributes:
        taken: a mask of the selected rows.
        removed: masks of the other rows, by rule.
        notes: warnings about the mix.
    """

    taken: Mask
    removed: Mapping[str, Mask]
    notes: tuple[str, ...]


def sample(
    columns: Mapping[str, npt.NDArray[Any]],
    choices: Choices,
    kinds: Sequence[str],
    runs: Sequence[str],
    per_question: bool,
    groups: Sequence[str] = (),
) -> Sample:
    """Sample rows: limits per question and agent, then the mix, then the limit of all rows.

    Every step samples without replacement, by random numbers derived from the seed and the row id,
    so that the order of rows does not depend on which other rows exist.

    Args:
        columns: the columns of a `Table`.
        choices: the limits and weights.
        kinds: the names of the kinds.
        runs: the names of the runs.
        per_question: whether `max_per_question` counts rows.
        groups: the groups of raters that get equally many rows; () takes all rows.
    """
    sampler = _Sampler(columns["draw"])
    if per_question and choices.max_per_question is not None:
        sampler.limit_per_key(columns["question"], choices.max_per_question, PER_QUESTION)
    if choices.max_per_agent is not None:
        has_agent = columns["agent"] != _NO_AGENT
        sampler.limit_per_key(columns["agent"], choices.max_per_agent, PER_AGENT, has_agent)
    mixes = [
        _Mix(choices.mix or (), columns["kind"], kinds, MIX),
        _Mix(choices.mix_runs or (), columns["run"], runs, RUNS),
    ]
    if groups:
        mixes.append(_Mix([1] * len(groups), columns["group"], groups, BALANCE))
    notes = (
        [note for mix in mixes for note in mix.notes(sampler.taken)] if len(sampler.taken) else []
    )
    cells, weights = _cells([mix for mix in mixes if mix.weights], len(sampler.taken))
    rule = next((mix.rule for mix in mixes if mix.weights), None)
    if rule is not None:
        sampler.mix(cells, weights, None, rule)
    if choices.rows is not None:
        sampler.mix(cells, weights, choices.rows, ROWS)
    return Sample(sampler.taken, sampler.removed, tuple(notes))


def check_mix(name: str, format: str, weights: Sequence[int], names: Sequence[str]) -> None:
    """Raise InputError if there is not one weight for each name."""
    if weights and len(weights) != len(names):
        numbers = "1 whole number" if len(names) == 1 else f"{len(names)} whole numbers"
        expected = f"expected {numbers}, for {', '.join(names)}"
        raise InputError(f"{name}: found {ratio(weights)} for {format}; {expected}")


class _Mix:
    """A ratio of rows by kind, by run, or by the rater's group."""

    def __init__(self, weights: Sequence[int], of: Ints, names: Sequence[str], rule: str) -> None:
        self.weights = [weight // gcd(*weights) for weight in weights]
        self.of, self._names, self.rule = of, names, rule

    def notes(self, taken: Mask) -> Iterator[str]:
        """Warn about kinds that the ratio excludes, and about the kind that limits it."""
        counts = np.bincount(self.of[taken], minlength=len(self._names)).tolist()
        available = dict(zip(self._names, counts, strict=True))
        weights = dict(zip(self._names, self.weights, strict=False))
        mix = ratio(self.weights)
        for name, weight in weights.items():
            if available[name] and not weight:
                yield f"{name}: {self.rule} {mix}"
            elif weight and not available[name]:
                yield f"{name}: no such rows; the export contains none"
        scarce = [name for name, weight in weights.items() if weight and available[name]]
        if scarce:
            least = min(scarce, key=lambda name: available[name] // weights[name])
            yield from _limited(mix, least, available, weights)


def _limited(
    mix: str, least: str, available: Mapping[str, int], weights: Mapping[str, int]
) -> Iterator[str]:
    times = available[least] // weights[least]
    wanted = {name: available[name] for name, weight in weights.items() if weight}
    written = sum(times * weights[name] for name, count in wanted.items() if count)
    if not times:
        needed = f"needs at least {weights[least]} rows of {least}"
        yield f"nothing is left: the mix {mix} {needed}, and there are {available[least]}"
    elif written < sum(wanted.values()) / 2:
        limit = f"is limited by {available[least]} rows of {least}"
        yield f"the mix {mix} {limit}; `all` takes every row"


def _cells(mixes: Sequence[_Mix], count: int) -> tuple[Ints, list[int]]:
    """Return the cell of each row, and the weight of each cell."""
    cells, weights = np.zeros(count, dtype=np.int64), [1]
    for mix in mixes:
        cells = cells * len(mix.weights) + mix.of
        weights = [weight * other for weight in weights for other in mix.weights]
    return cells, weights


class _Sampler:
    """A mask of rows, initially all, that limits and mixes reduce."""

    def __init__(self, draws: npt.NDArray[np.uint64]) -> None:
        self._order = np.argsort(draws, kind="stable")
        self.taken = np.ones(len(draws), dtype=bool)
        self.removed: dict[str, Mask] = {}

    def limit_per_key(
        self, keys: Ints, limit: int, rule: str, affected: Mask | None = None
    ) -> None:
        """Keep at most `limit` random rows with the same key."""
        ranks = self._ranks(keys)
        beyond = ranks >= limit
        self._drop(beyond if affected is None else beyond & affected, rule)

    def mix(self, cells: Ints, weights: Sequence[int], limit: int | None, rule: str) -> None:
        """Keep the largest sample in this ratio, of at most `limit` rows."""
        available = np.bincount(cells[self.taken], minlength=len(weights))
        effective = np.where(available > 0, weights, 0)
        wanted = effective > 0
        times = int((available[wanted] // effective[wanted]).min(initial=len(cells)))
        if limit is not None:
            times = min(times, limit // max(1, int(effective.sum())))
        self._drop(self._ranks(cells) >= (times * effective)[cells], rule)

    def _ranks(self, keys: Ints) -> Ints:
        """Return the rank of each remaining row by `draw` among the rows with the same key."""
        remaining = self._order[self.taken[self._order]]
        grouped = remaining[np.argsort(keys[remaining], kind="stable")]
        first = np.flatnonzero(np.diff(keys[grouped], prepend=keys[grouped][:1] - 1))
        starts = np.repeat(first, np.diff(np.append(first, len(grouped))))
        ranks = np.full(len(keys), -1, dtype=np.int64)
        ranks[grouped] = np.arange(len(grouped)) - starts
        return ranks

    def _drop(self, rows: Mask, rule: str) -> None:
        gone = rows & self.taken
        if gone.any():
            self.removed[rule] = gone
            self.taken &= ~gone
