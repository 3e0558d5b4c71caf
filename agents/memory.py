"""Memory: what agents believe, and how an old answer is found again.

Similarity is a matter between questions, not between agents: every distinct question is embedded
once, and the list of questions near to it is made once for the whole society. To recall is then to
walk that short list until one turns up that the agent has answered. Look-up by the distance of
embeddings, with a threshold, follows Liu et al. (arXiv 2305.16960), section 3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR = -1
"""The round of memories that an agent was born with."""

_BLOCK = 256  # questions compared at once: the block of distances stays a few megabytes
_SLACK = 1e-4  # fast float32 products first, exact distances for what is left


class Near(NamedTuple):
    """A question near to another: its cosine distance (0 to 2) and its number."""

    distance: float
    question: int


class Recalled(NamedTuple):
    """An old answer that a prompt shows."""

    question: str
    answer: str
    distance: float
    memory_id: int
    text_id: int


class Lexicon:
    """The distinct questions of a society, their vectors, and which are near to which.

    Args:
        threshold: cosine distance below which two questions count as near.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}
        self._vectors: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._near: dict[int, tuple[Near, ...]] = {}

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts that are not in the lexicon yet, each once, in order."""
        return [text for text in dict.fromkeys(texts) if text not in self.numbers]

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add new questions with their unit vectors, shape (len(texts), dimensions).

        Raises:
            ValueError: the vectors do not fit the texts or the vectors that are there.
        """
        if len(texts) != len(vectors) or (
            self.texts and vectors.shape[1:] != self._vectors.shape[1:]
        ):
            raise ValueError(f"{len(texts)} texts do not fit vectors of shape {vectors.shape}")
        if not texts:
            return
        for text in texts:
            self.numbers[text] = len(self.texts)
            self.texts.append(text)
        rows = vectors.astype(np.float32, copy=False)
        self._vectors = np.vstack([self._vectors, rows]) if self._vectors.size else rows
        self._near.clear()

    def near(self, question: int) -> tuple[Near, ...]:
        """The questions nearer than the threshold, nearest first; itself among them."""
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
        """Distances in double precision, rounded, so that they do not depend on the block."""
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
    """What one agent believes: question to answer, in the order in which it was learned.

    Args:
        keep: how many of the most recent memories can be recalled; None for all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._rounds: list[int] = []  # by position, ascending
        self._questions: list[int] = []  # by position
        self._entries: dict[int, list[_Entry]] = {}
        self._forgotten = 0  # positions below this one are gone

    def __len__(self) -> int:
        return len(self._rounds) - self._forgotten

    def remember(
        self, round: int, question: int, answer: str, memory_id: int, text_id: int
    ) -> None:
        """Learn an answer. Rounds must not go down."""
        entry = _Entry(len(self._rounds), answer, memory_id, text_id)
        self._rounds.append(round)
        self._questions.append(question)
        self._entries.setdefault(question, []).append(entry)

    def recall(self, near: Sequence[Near], lexicon: Lexicon, round: int) -> Recalled | None:
        """The latest answer to the nearest question, as of the end of the round before `round`."""
        end = bisect_left(self._rounds, round)
        start = self._oldest(end)
        for distance, question in near:
            for entry in reversed(self._entries.get(question, ())):
                if start <= entry.position < end:
                    _, answer, memory_id, text_id = entry
                    return Recalled(lexicon.texts[question], answer, distance, memory_id, text_id)
        return None

    def latest(self, lexicon: Lexicon, round: int) -> Recalled | None:
        """What was learned last, as of the end of the round before `round`; its distance is 0."""
        end = bisect_left(self._rounds, round)
        if end <= self._forgotten:
            return None
        question = self._questions[end - 1]
        entry = next(one for one in self._entries[question] if one.position == end - 1)
        _, answer, memory_id, text_id = entry
        return Recalled(lexicon.texts[question], answer, 0.0, memory_id, text_id)

    def _oldest(self, end: int) -> int:
        return 0 if self._keep is None else max(0, end - self._keep)

    def forget(self, round: int) -> None:
        """Let go of what nobody can recall, now that all rounds before `round` are over."""
        oldest = self._oldest(bisect_left(self._rounds, round))
        if oldest <= self._forgotten:
            return
        self._forgotten = oldest
        for question, entries in list(self._entries.items()):
            if entries[0].position < oldest:
                kept = [entry for entry in entries if entry.position >= oldest]
                self._entries[question] = kept
                if not kept:
                    del self._entries[question]
