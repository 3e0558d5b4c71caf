"""Memory: the answers that agents remember, and recall by similarity of questions.

Every distinct question is embedded once, and the list of similar questions is computed once for
the whole society. An agent recalls by walking that short list to the first question that it has
answered. Look-up by embedding distance with a threshold follows Liu et al. (arXiv 2305.16960),
section 3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR = -1
"""The round of prior memories, which an agent has before round 0."""

_BLOCK = 256  # questions compared at a time, so that the matrix takes a few megabytes
_SLACK = 1e-4  # tolerance of the float32 products; candidates are then compared exactly


class Near(NamedTuple):
    """A question near another one: cosine distance (0 to 2) and number in the index."""

    distance: float
    question: int


class Recalled(NamedTuple):
    """A recalled memory, as prompts show it: question, answer, distance and ids."""

    question: str
    answer: str
    distance: float
    memory_id: int
    text_id: int


class QuestionIndex:
    """The distinct questions of a society with their vectors and nearest neighbours.

    Args:
        threshold: cosine distance below which two questions are near each other.

    Attributes:
        texts: the questions, by number.
        numbers: the number of each question.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}
        self._vectors: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._near: dict[int, tuple[Near, ...]] = {}

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts that are not in the index yet, without duplicates, in order."""
        return [text for text in dict.fromkeys(texts) if text not in self.numbers]

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add new questions with their unit vectors, shape (len(texts), dimensions).

        Raises:
            ValueError: the number or the dimensions of the vectors do not match.
        """
        if len(texts) != len(vectors) or (
            self.texts and vectors.shape[1:] != self._vectors.shape[1:]
        ):
            raise ValueError(
                f"vectors: found shape {vectors.shape}; expected one for each of {len(texts)} texts"
            )
        if not texts:
            return
        for text in texts:
            self.numbers[text] = len(self.texts)
            self.texts.append(text)
        rows = vectors.astype(np.float32, copy=False)
        self._vectors = np.vstack([self._vectors, rows]) if self._vectors.size else rows
        self._near.clear()

    def near(self, question: int) -> tuple[Near, ...]:
        """The questions within the threshold, nearest first, including the question itself."""
        found = self._near.get(question)
        if found is None:
            self._compare(question - question % _BLOCK)
            found = self._near[question]
        return found

    def _compare(self, start: int) -> None:
        block = self._vectors[start : start + _BLOCK]
        rows, columns = np.nonzero(block @ self._vectors.T > 1 - self.threshold - _SLACK)
        bounds = np.searchsorted(rows, np.arange(len(block) + 1))
        for row in range(len(block)):
            others = columns[bounds[row] : bounds[row + 1]]
            self._near[start + row] = self._exact(start + row, others)

    def _exact(self, question: int, others: NDArray[np.intp]) -> tuple[Near, ...]:
        """Rounded distances in double precision, so that they do not depend on the block."""
        vector = self._vectors[question].astype(np.float64)
        near = []
        for other in others.tolist():
            distance = 1.0 - float(np.dot(vector, self._vectors[other].astype(np.float64)))
            near.append(Near(max(0.0, round(distance, 6)), other))
        return tuple(sorted(item for item in near if item.distance < self.threshold))


class _Entry(NamedTuple):
    position: int
    answer: str
    memory_id: int
    text_id: int


class Memory:
    """The answers that one agent remembers, by question, in the order of learning.

    Args:
        keep: number of most recent memories that can be recalled; None for all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._rounds: list[int] = []  # by position, ascending
        self._questions: list[int] = []  # by position
        self._entries: dict[int, list[_Entry]] = {}
        self._dropped = 0  # entries below this position are dropped

    def __len__(self) -> int:
        return len(self._rounds) - self._dropped

    def remember(
        self, round: int, question: int, answer: str, memory_id: int, text_id: int
    ) -> None:
        """Add an answer. Rounds must not decrease."""
        entry = _Entry(len(self._rounds), answer, memory_id, text_id)
        self._rounds.append(round)
        self._questions.append(question)
        self._entries.setdefault(question, []).append(entry)

    def recall(self, near: Sequence[Near], index: QuestionIndex, round: int) -> Recalled | None:
        """The latest answer to the nearest question, as of the end of the round before `round`."""
        end = bisect_left(self._rounds, round)
        start = self._oldest(end)
        for distance, question in near:
            for entry in reversed(self._entries.get(question, ())):
                if start <= entry.position < end:
                    _, answer, memory_id, text_id = entry
                    return Recalled(index.texts[question], answer, distance, memory_id, text_id)
        return None

    def latest(self, index: QuestionIndex, round: int) -> Recalled | None:
        """The last answer learned before `round`, with distance 0."""
        end = bisect_left(self._rounds, round)
        if end <= self._dropped:
            return None
        question = self._questions[end - 1]
        entry = next(entry for entry in self._entries[question] if entry.position == end - 1)
        _, answer, memory_id, text_id = entry
        return Recalled(index.texts[question], answer, 0.0, memory_id, text_id)

    def _oldest(self, end: int) -> int:
        return 0 if self._keep is None else max(0, end - self._keep)

    def prune(self, round: int) -> None:
        """Drop entries that can no longer be recalled, since all rounds before `round` are over."""
        oldest = self._oldest(bisect_left(self._rounds, round))
        if oldest <= self._dropped:
            return
        self._dropped = oldest
        for question, entries in list(self._entries.items()):
            if entries[0].position < oldest:
                kept = [entry for entry in entries if entry.position >= oldest]
                self._entries[question] = kept
                if not kept:
                    del self._entries[question]
