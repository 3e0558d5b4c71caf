"""Calibrate the distance below which an embedder recalls a question (`recall: threshold`).

    python benchmarks/recall_threshold.py --questions PATH

Two rates are measured, for the embedders without a model and, for comparison, for the cosine of
bags of words:

* found: the share of the rephrasings in `data/rephrasings.jsonl` that are nearer to their question
  than the threshold. They were written by hand: a third changes little (light), a third more
  (middling), and a third shares hardly a word with the original (heavy). Features and weights of
  the hashed embedder were tuned on the odd rows. The even rows show whether the choice
  generalises, but the same author wrote both and saw the results of both: they are not an
  independent test.
* false recall: the probability that a question finds anything within the threshold in a memory of
  100 other questions drawn at random. It is the exact mean over all questions and all such memories
  (hypergeometric), so it needs no sampling and no seed. The questions contain real near-duplicates,
  which count as unrelated, so the rate is an upper bound.

The recommended threshold is the largest, in hundredths, with a false recall of at most 5 %.

The questions are a text file, one per line. Rephrasings refer to line numbers, so the file must be
the one that they were written for. Its lines are never printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.embedding import HashedEmbedder, WordLlama

REPHRASINGS = Path(__file__).parent / "data" / "rephrasings.jsonl"
STRENGTHS = ("light", "middling", "heavy")
MEMORY = 100  # unrelated questions in a memory
TOLERATED = 0.05  # maximum rate of false recall
SHOWN = range(20, 71, 5)  # thresholds in the table, in hundredths
_BLOCK = 512

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Rephrasing(NamedTuple):
    """A rephrasing of a question: its line (from 1), strength and text."""

    line: int
    strength: str
    rephrasing: str


class Measured(NamedTuple):
    """The measured rates of an embedder.

    Attributes:
        false: false recall at the thresholds 0, 0.01, ..., 1, shape (101,).
        distance: from each rephrasing to its original, shape (rephrasings,).
        nearest: whether the original is the nearest of all questions, shape (rephrasings,).
        auc: how likely a rephrasing is nearer to its original than to another question.
    """

    false: Floats
    distance: Vectors
    nearest: Flags
    auc: float

    @property
    def recommended(self) -> float:
        """The largest threshold, in hundredths, with tolerable false recall."""
        return (int(np.searchsorted(self.false, TOLERATED, side="right")) - 1) / 100

    def found(self, threshold: float, rows: Flags | None = None) -> float:
        """The share of the rephrasings (of some rows) within the threshold."""
        near = self.distance < threshold
        return float(near.mean() if rows is None else near[rows].mean())

    def recalled(self, threshold: float) -> float:
        """The share that is found and has no other question nearer."""
        return float((self.nearest & (self.distance < threshold)).mean())


def read_questions(path: Path) -> list[str]:
    """Read the lines of a file. Raises OSError if it cannot be read."""
    return path.read_text(encoding="utf-8").splitlines()


def read_rephrasings(path: Path = REPHRASINGS) -> list[Rephrasing]:
    """Read the rephrasings, in the order of the file."""
    with path.open(encoding="utf-8") as lines:
        return [Rephrasing(**json.loads(line)) for line in lines]


def bag_of_words(texts: Sequence[str]) -> Vectors:
    """The baseline: counts of lower-case words, as unit vectors."""
    bags = [re.findall(r"\w+", text.lower()) for text in texts]
    column = {word: i for i, word in enumerate(dict.fromkeys(word for bag in bags for word in bag))}
    counts = np.zeros((len(texts), len(column)), np.float32)
    for row, bag in enumerate(bags):
        np.add.at(counts[row], [column[word] for word in bag], 1)
    lengths = np.linalg.norm(counts, axis=1, keepdims=True)
    vectors: Vectors = (counts / np.maximum(lengths, 1)).astype(np.float32)
    return vectors


def false_recall(vectors: Vectors) -> Floats:
    """False recall at the thresholds 0, 0.01, ..., 1, averaged over all questions."""
    nearer = np.concatenate([_nearer(vectors, start) for start in range(0, len(vectors), _BLOCK)])
    missed: Floats = _missed(len(vectors) - 1)[nearer].mean(axis=0)
    return 1 - missed


def _nearer(vectors: Vectors, start: int) -> NDArray[np.int64]:
    """Count the other questions within k/100 of each question of a block, shape (block, 101)."""
    distance = 1 - vectors[start : start + _BLOCK] @ vectors.T
    rows = np.arange(len(distance))
    distance[rows, start + rows] = 2  # leave out the question itself
    bins = np.clip(distance * 100, 0, 100).astype(np.int64) + 101 * rows[:, None]
    counts = np.bincount(bins.ravel(), minlength=101 * len(rows)).reshape(-1, 101)
    return np.cumsum(counts, axis=1) - counts


def _missed(others: int) -> Floats:
    """Probability that a random memory contains none of k given questions; entry k, from 0."""
    k = np.arange(others + 1)
    left = np.maximum(others - MEMORY - k[:-1], 0) / (others - k[:-1])
    return np.concatenate([[1.0], np.cumprod(left)])


def measure(
    embed: Callable[[Sequence[str]], Vectors], questions: Sequence[str], rows: Sequence[Rephrasing]
) -> Measured:
    """Embed questions and rephrasings and measure all rates.

    Raises:
        ValueError: fewer than 200 questions, or a rephrasing of a line that is not there.
    """
    own = np.array([row.line - 1 for row in rows])
    if len(questions) < max(2 * MEMORY, own.max() + 1):
        raise ValueError(f"{len(questions)} questions are too few for these rephrasings")
    vectors = embed([*questions, *(row.rephrasing for row in rows)])
    known, reworded = vectors[: len(questions)], vectors[len(questions) :]
    distance = 1 - reworded @ known.T
    found = distance[np.arange(len(rows)), own]
    auc = _auc(found, distance[np.arange(len(questions)) != own[:, None]])
    return Measured(false_recall(known), found, distance.argmin(axis=1) == own, auc)


def _auc(near: Vectors, far: Vectors) -> float:
    """Probability that a value of `near` is below one of `far`; ties count half."""
    ordered = np.sort(far)
    below = np.searchsorted(ordered, near, "left") + np.searchsorted(ordered, near, "right")
    return 1 - float(below.mean()) / (2 * len(far))


def thresholds_table(measured: Sequence[tuple[str, Measured]], rows: Sequence[Rephrasing]) -> str:
    """A Markdown table: found and false recall of each embedder at each threshold."""
    head = ["found", *STRENGTHS, "found and nearest", "false recall"]
    lines = [["embedder", "threshold", *head]]
    for name, result in measured:
        for hundredths in SHOWN:
            at = hundredths / 100
            kinds = [result.found(at, _of_strength(rows, strength)) for strength in STRENGTHS]
            figures = [result.found(at), *kinds, result.recalled(at), result.false[hundredths]]
            lines.append([name, f"{at:.2f}", *map(_percent, figures)])
    return _markdown(lines)


def summary_table(measured: Sequence[tuple[str, Measured]]) -> str:
    """A Markdown table: each embedder at its own recommended threshold."""
    head = ["embedder", "recommended threshold", "found", "odd rows", "even rows"]
    lines = [[*head, "nearest is the original", "false recall", "a hundredth more", "AUC"]]
    for name, result in measured:
        at, odd = result.recommended, np.arange(len(result.distance)) % 2 == 0
        found = [result.found(at), result.found(at, odd), result.found(at, ~odd)]
        false = result.false[round(at * 100) :][:2]
        figures = map(_percent, [*found, float(result.nearest.mean()), *false])
        lines.append([name, f"{at:.2f}", *figures, f"{result.auc:.4f}"])
    return _markdown(lines)


def _of_strength(rows: Sequence[Rephrasing], strength: str) -> Flags:
    return np.array([row.strength == strength for row in rows])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    ruled = [lines[0], ["---:"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def report(questions: Sequence[str], rows: Sequence[Rephrasing]) -> str:
    """The output of the benchmark."""
    embedders = (WordLlama(), HashedEmbedder())
    measured = [(one.name, measure(one.embed, questions, rows)) for one in embedders]
    bags = ("bag of words", measure(bag_of_words, questions, rows))
    chosen = (
        f"{type(one).__name__}.threshold: found {one.threshold:.2f}, recommended "
        f"{result.recommended:.2f}"
        for one, (_, result) in zip(embedders, measured, strict=True)
    )
    return "\n".join(
        [
            f"{len(rows)} rephrasings, {len(questions)} questions, memory of {MEMORY} strangers\n",
            thresholds_table(measured, rows) + "\n",
            summary_table([*measured, bags]) + "\n",
            *chosen,
        ]
    )


def main() -> int:
    """Run from the command line; exit status 2 if the questions are invalid."""
    parser = argparse.ArgumentParser(description="Calibrate the recall threshold of the embedder.")
    parser.add_argument("--questions", type=Path, required=True, help="one question per line")
    path = parser.parse_args().questions
    try:
        print(report(read_questions(path), read_rephrasings()))
    except (OSError, ValueError) as error:
        print(f"cannot calibrate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
