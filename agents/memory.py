"""Memory: the answers that agents remember, and recall by similarity of questions.

Every distinct question is embedded once. An agent recalls its latest answers to the questions
nearest to the one it is asked now, always (`nearest`) or only below a cosine distance
(`threshold`). Look-up by embedding distance with a threshold of 0.3 follows Liu et al. (arXiv
2305.16960), section 3. With the embedder that they used nearly every question is nearer than
that, as users of it report, so that their agents practically always recall something.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR = -1
"""The round of prior memories, which an agent has before round 0."""

_SLACK = 1e-4  # tolerance of the float32 products; candidates are then compared exactly


class RecallRule(NamedTuple):
    """Which memories an agent recalls.

    Attributes:
        top_k: how many at most.
        threshold: the cosine distance (0 to 2) below which they are recalled; None: whatever their
            distance.
    """

    top_k: int = 1
    threshold: float | None = None

    @classmethod
    def of(cls, recall: str, top_k: int, threshold: float) -> RecallRule:
        """The rule of a config's `recall` and `top_k`, with the threshold of the run."""
        return cls(top_k, threshold if recall == "threshold" else None)


NEAREST = RecallRule()
"""The nearest memory, whatever its distance."""


class Near(NamedTuple):
    """A question near another one.

    Attributes:
        distance: cosine distance (0 to 2).
        question: its number in the index.
        place: where it is in the list that was searched; of several places the last one.
    """

    distance: float
    question: int
    place: int


class Recalled(NamedTuple):
    """A recalled memory, as prompts show it.

    Attributes:
        question, answer: what the agent was asked, and what it answered.
        distance: cosine distance (0 to 2) of the question from the one that is asked now.
        memory_id, text_id: rows of the memory and of the answer's text.
        further: the memories that are recalled with it, the nearest first.
    """

    question: str
    answer: str
    distance: float
    memory_id: int
    text_id: int
    further: tuple[Recalled, ...] = ()

    @property
    def all(self) -> tuple[Recalled, ...]:
        """This memory and the further ones, the nearest first."""
        return (self, *self.further)


class QuestionIndex:
    """The distinct questions of a society with their vectors.

    Attributes:
        texts: the questions, by number.
        numbers: the number of each question.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}
        self._vectors: NDArray[np.float32] = np.zeros((0, 0), np.float32)

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

    def nearest(self, question: int, others: NDArray[np.int64], rule: RecallRule) -> list[Near]:
        """The distinct questions among others that a rule selects, the nearest first.

        Args:
            question: the number of the question that is asked.
            others: numbers of questions, shape (n,) with n > 0; repeated ones count once.
            rule: how many, and how near.
        """
        vector = self._vectors[question]
        products = self._vectors.take(others, axis=0).dot(vector)
        first = int(products.argmax())
        rivals = np.count_nonzero(products > products[first] - 2 * _SLACK)
        if rule.top_k == rivals == 1:
            other = int(others[first])
            found = [Near(self._distance(vector, other), other, first)]
        else:
            found = self._sorted(vector, others, products, rule.top_k)
        if rule.threshold is None:
            return found
        return [item for item in found if item.distance < rule.threshold]

    def _sorted(
        self,
        vector: NDArray[np.float32],
        others: NDArray[np.int64],
        products: NDArray[np.float32],
        top_k: int,
    ) -> list[Near]:
        """The nearest questions by their exact distances; of equal ones the lower number first."""
        near: dict[int, float] = {}
        last: dict[int, int] = {}  # the last place of each question
        least = -np.inf  # the product below which no further question can be among the nearest
        for place in np.argsort(-products, kind="stable").tolist():
            if products[place] < least:
                break
            other = int(others[place])
            last[other] = max(place, last.get(other, place))
            if other not in near:
                near[other] = self._distance(vector, other)
                if len(near) >= top_k:
                    least = 1 - sorted(near.values())[top_k - 1] - _SLACK
        found = sorted((distance, other) for other, distance in near.items())[:top_k]
        return [Near(distance, other, last[other]) for distance, other in found]

    def _distance(self, vector: NDArray[np.float32], other: int) -> float:
        """A distance in double precision, rounded, so that it is the same in any comparison."""
        product = np.dot(vector.astype(np.float64), self._vectors[other].astype(np.float64))
        return max(0.0, round(1.0 - float(product), 6))


class _Entry(NamedTuple):
    answer: str
    memory_id: int
    text_id: int


class Memory:
    """The answers that one agent remembers, in the order of learning.

    Args:
        keep: number of most recent memories that can be recalled; None for all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._rounds: list[int] = []  # ascending; the lists have an item for each memory
        self._questions: list[int] = []
        self._entries: list[_Entry] = []
        self._numbers: NDArray[np.int64] | None = None  # the questions, as an array

    def __len__(self) -> int:
        return len(self._rounds)

    def remember(
        self, round: int, question: int, answer: str, memory_id: int, text_id: int
    ) -> None:
        """Add an answer. Rounds must not decrease."""
        self._rounds.append(round)
        self._questions.append(question)
        self._entries.append(_Entry(answer, memory_id, text_id))
        self._numbers = None

    def recall(
        self, index: QuestionIndex, question: int, round: int, rule: RecallRule = NEAREST
    ) -> Recalled | None:
        """The latest answer to the nearest question, as of the end of the round before `round`.

        Args:
            index: the questions of the society.
            question: the number of the question that is asked.
            round: memories of this round and later ones do not count.
            rule: how many memories are recalled, and how near they must be.
        """
        end = bisect_left(self._rounds, round)
        start = self._oldest(end)
        if start >= end:
            return None
        if self._numbers is None:
            self._numbers = np.array(self._questions, np.int64)
        near = index.nearest(question, self._numbers[start:end], rule)
        found = [self._recalled(index, start + item.place, item) for item in near]
        if len(found) > 1:
            return found[0]._replace(further=tuple(found[1:]))
        return found[0] if found else None

    def latest(self, index: QuestionIndex, round: int) -> Recalled | None:
        """The last answer learned before `round`, with distance 0."""
        end = bisect_left(self._rounds, round)
        if end == 0:
            return None
        return self._recalled(index, end - 1, Near(0.0, self._questions[end - 1], end - 1))

    def _recalled(self, index: QuestionIndex, position: int, near: Near) -> Recalled:
        answer, memory_id, text_id = self._entries[position]
        return Recalled(index.texts[near.question], answer, near.distance, memory_id, text_id)

    def _oldest(self, end: int) -> int:
        return 0 if self._keep is None else max(0, end - self._keep)

    def prune(self, round: int) -> None:
        """Drop entries that can no longer be recalled, since all rounds before `round` are over."""
        oldest = self._oldest(bisect_left(self._rounds, round))
        if oldest:
            del self._rounds[:oldest], self._questions[:oldest], self._entries[:oldest]
            self._numbers = None
