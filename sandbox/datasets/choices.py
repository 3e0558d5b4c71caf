"""The choices of an export, and their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isclose, isfinite
from typing import Any, Literal, get_args

from agents.preferences import GROUPS
from sandbox.datasets.rater_choices import parse_raters
from storage.errors import InputError

Ratings = Literal["observer", "observer-expected", "peers", "peers-expected"]
Pick = Literal["all", "exchange", "question"]
Target = Literal["trl", "llama-factory", "axolotl", "verl"]
Files = Literal["jsonl", "parquet"]


@dataclass(frozen=True)
class Choices:
    """The choices of an export; None selects the default of the format.

    Attributes:
        ratings: the ratings to use: the observer's, the mean of the peers', or the expected values
            of either from the probabilities of the labels. Peers rate only one stage.
        scale: the observer's scale to use; by default the main scale of the runs.
        pick: select the best answer (and for pairs the worst) of each `exchange`, or of each
            `question`; `all` selects every answer.
        min_rating: the minimum rating of positive examples: SFT answers, desirable KTO answers,
            chosen answers (the maximum on a scale where lower is better). Default: two thirds of
            the range from the worse end (5 on 1 to 7); for pairs the worse end.
        max_rating: the maximum rating of undesirable KTO answers. Default: one third of the range
            from the worse end (3 on 1 to 7).
        min_margin: the minimum difference between the ratings of the chosen and the rejected
            answer. Default: a sixth of the range (1 on 1 to 7).
        tokenizer: the tokenizer that counts tokens: a folder, a file, or the name of a model.
        max_tokens: the maximum number of tokens of prompt and answer together.
        near_duplicates: the Jaccard similarity (of 5-character shingles) at or above which one of
            two answers is removed; 1 removes only equal texts.
        near_questions: the similarity at or above which two questions are assigned to the same
            split, and excluded together.
        splits: the share of the questions in each split; they sum to 1.
        keep_out: questions to exclude (decontamination), together with their near-duplicates.
        max_per_question: the maximum number of rows about a question (`rated`: answers in a row;
            `stable-alignment`: responses in a row).
        max_per_agent: the maximum number of rows by an author.
        rows: the maximum number of rows.
        mix: a weight for each kind of rows of the format; () takes all rows.
        mix_runs: a weight for each run.
        seed: the seed of sampling; by default the seed of the first run.
        target: the training framework that reads the files.
        files: the file format.
        strict_ratings: leave out ratings that were read leniently, and the rows that rest on them.
        shortened: include texts that were truncated and kept to their last whole sentence.
        raters: conditions on the raters whose ratings are used, such as ``age<30``; all must hold.
        balance: a group of the survey, such as ``gender``: equally many rows by the raters of each.
        license: a license identifier such as apache-2.0, for the dataset card.
    """

    ratings: Ratings | None = None
    scale: str | None = None
    pick: Pick | None = None
    min_rating: float | None = None
    max_rating: float | None = None
    min_margin: float | None = None
    tokenizer: str | None = None
    max_tokens: int | None = None
    near_duplicates: float | None = None
    near_questions: float | None = None
    splits: Mapping[str, float] | None = None
    keep_out: Sequence[str] | None = None
    max_per_question: int | None = None
    max_per_agent: int | None = None
    rows: int | None = None
    mix: Sequence[int] | None = None
    mix_runs: Sequence[int] | None = None
    seed: int | None = None
    target: Target | None = None
    files: Files | None = None
    strict_ratings: bool | None = None
    shortened: bool | None = None
    raters: Sequence[str] | None = None
    balance: str | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in _NAMED.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                expected = f"expected one of {', '.join(allowed)}"
                raise InputError(f"{name}: found {value!r}; {expected}")
        for name, (low, high, whole) in _NUMBERS.items():
            check_number(name, getattr(self, name), low, high, whole)
        for name in ("strict_ratings", "shortened"):
            _check_switch(name, getattr(self, name))
        parse_raters(self.raters or ())
        _check_splits(self.splits)
        if self.license is not None and not re.fullmatch(r"[\w.+-]{1,80}", self.license, re.ASCII):
            expected = "expected an identifier such as apache-2.0"
            raise InputError(f"license: found {self.license!r}; {expected}")
        for name in ("mix", "mix_runs"):
            _check_weights(name, getattr(self, name))
        if self.tokenizer is not None and not self.tokenizer.strip():
            expected = "expected a tokenizer's folder, or a model's name"
            raise InputError(f"tokenizer: found ''; {expected}")
        if (self.tokenizer is None) != (self.max_tokens is None):
            given, other = ("tokenizer", "max_tokens")[:: 1 if self.tokenizer else -1]
            raise InputError(f"{given}: found without {other}; expected both or neither")

    @property
    def given(self) -> dict[str, Any]:
        """The choices that are not None, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in pairs if value is not None}

    @property
    def near(self) -> float:
        """The threshold of near-duplicates; 1 if it is None."""
        return 1.0 if self.near_duplicates is None else self.near_duplicates

    def with_defaults(self, defaults: Mapping[str, Any]) -> Choices:
        """These choices, with None replaced by the format's defaults, then by the common ones."""
        return Choices(**{**COMMON, **defaults, **self.given})


COMMON: dict[str, Any] = {
    "ratings": "observer",
    "pick": "exchange",
    "near_duplicates": 0.8,
    "near_questions": 0.8,
    "splits": {"train": 1.0},
    "keep_out": (),
    "mix": (),
    "target": "trl",
    "files": "jsonl",
    "license": "unknown",
}
"""Defaults that a format can override; those of rating thresholds follow from the scale."""

_NAMED: dict[str, tuple[str, ...]] = {
    "ratings": get_args(Ratings),
    "pick": get_args(Pick),
    "target": get_args(Target),
    "files": get_args(Files),
    "balance": GROUPS,
}

_NUMBERS: dict[str, tuple[float, float, bool]] = {
    "near_duplicates": (0.5, 1, False),
    "near_questions": (0.5, 1, False),
    "max_tokens": (1, 2**31, True),
    "max_per_question": (1, 2**31, True),
    "max_per_agent": (1, 2**31, True),
    "rows": (1, 2**31, True),
}


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool | None):
        raise InputError(f"{name}: found {value!r}; expected true or false")


def check_number(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    """Raise InputError if a choice is not a number in a range; None is allowed."""
    if value is None:
        return
    valid = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not valid or not isfinite(value) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        until = f" to {high:g}" if high < 2**31 else " or more"
        raise InputError(f"{name}: found {value!r}; expected {kind}, {low:g}{until}")


def _check_splits(splits: Mapping[str, float] | None) -> None:
    if splits is None:
        return
    for name in splits:
        if not (name.isidentifier() and name.isascii()):
            raise InputError(f"splits: found {name!r}; expected names of letters, digits and _")
        if name == "all":
            raise InputError(
                "splits: found 'all', which means every split to `datasets`; expected another name"
            )
    if len({name.casefold() for name in splits}) < len(splits):
        raise InputError(
            f"splits: found {', '.join(splits)}; expected names that differ by more than case"
        )
    shares = [share for share in splits.values() if isfinite(share) and 0 < share <= 1]
    if len(shares) != len(splits) or not isclose(sum(shares), 1, abs_tol=1e-6):
        found = ",".join(f"{name}={share:g}" for name, share in splits.items())
        expected = "names with shares that sum to 1, such as train=0.9,test=0.1"
        raise InputError(f"splits: found {found or 'none'}; expected {expected}")


def _check_weights(name: str, weights: Sequence[int] | None) -> None:
    if weights:
        valid = all(isinstance(weight, int) and 0 <= weight < 2**31 for weight in weights)
        if not valid or not any(weights):
            expected = "whole numbers such as 5:1:1, at least one of them positive"
            raise InputError(f"{name}: found {ratio(weights)}; expected {expected}")


def ratio(weights: Sequence[object]) -> str:
    """Format weights as on the command line: 5:1:1."""
    return ":".join(map(str, weights))


def named(choice: str) -> tuple[str, ...]:
    """Return the allowed values of a choice."""
    return _NAMED[choice]


def parse_weights(option: str, text: str | None) -> tuple[int, ...] | None:
    """Parse weights such as 5:1:1, or `all` for no ratio; None stays None.

    Raises:
        InputError: the text is neither.
    """
    if text is None or text == "all":
        return None if text is None else ()
    parts = text.split(":")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise InputError(f"{option}: found {text}; expected whole numbers such as 5:1:1, or all")
    return tuple(map(int, parts))


def parse_shares(option: str, text: str | None) -> dict[str, float] | None:
    """Parse splits such as train=0.9,test=0.1; None stays None.

    Raises:
        InputError: the text is malformed.
    """
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    try:
        shares = {name: float(share) for name, (_, _, share) in zip(names, pairs, strict=True)}
    except ValueError:
        shares = {}
    if len(shares) < len(pairs):
        expected = "names with shares that sum to 1, such as train=0.9,test=0.1"
        raise InputError(f"{option}: found {text}; expected {expected}")
    return shares
