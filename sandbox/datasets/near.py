"""Near-duplicates, by MinHash (Broder, "On the resemblance and containment of documents", 1997)."""

from __future__ import annotations

import re
from typing import NamedTuple

from rensa import RMinHash, RMinHashLSH

NEAR = "equal or near to one before"
"""The rule by which a near-duplicate is left out."""

_HASHES = 128
_BANDS = 32  # of 4 hashes: pairs of similarity 0.5 are candidates in 87 % of cases, 0.7 in 99.98 %
_RUN = 5
_SEED = 1


def plain(text: str) -> str:
    """A text without what does not make it another one: case, blanks, punctuation at its end."""
    return re.sub(r"\s+", " ", text).strip().casefold().rstrip(" .?!")


class Likes(NamedTuple):
    """The texts that one is like.

    Attributes:
        same: the number of the one that is equal but for case, blanks and its end; None: there is
            none.
        near: the numbers of those that are near, where none is equal.
    """

    same: int | None
    near: tuple[int, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.same is not None or bool(self.near)


class Near:
    """Distinct texts, numbered from 0, and which of them a new one is equal or near to.

    Args:
        threshold: the Jaccard similarity of the sets of runs of 5 characters, as estimated from
            128 hashes (standard error 0.035 at 0.8), from which on texts are near; at 1 only
            texts that are equal but for case, blanks and punctuation at their end are.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._numbers: dict[str, int] = {}
        self._hashes: list[RMinHash] = []
        self._index = RMinHashLSH(threshold, _HASHES, _BANDS) if threshold < 1 else None

    def find(self, text: str) -> Likes:
        """Those that a text is equal or near to."""
        words = plain(text)
        same = self._numbers.get(words)
        if same is not None or self._index is None or not self._numbers:
            return Likes(same)
        return Likes(None, self._like(_hashed(words)))

    def add(self, text: str) -> Likes:
        """As `find`; a text that is not equal to one that is there is added."""
        words = plain(text)
        same = self._numbers.get(words)
        if same is not None:
            return Likes(same)
        number = self._numbers[words] = len(self._numbers)
        if self._index is None:
            return Likes(None)
        made = _hashed(words)
        found = self._like(made)
        self._hashes.append(made)
        self._index.insert(number, made)
        return Likes(None, found)

    def _like(self, made: RMinHash) -> tuple[int, ...]:
        candidates = sorted(set(self._index.query(made))) if self._index else ()
        return tuple(
            one for one in candidates if made.jaccard(self._hashes[one]) >= self._threshold
        )


def _hashed(words: str) -> RMinHash:
    runs = {words[start : start + _RUN] for start in range(max(1, len(words) - _RUN + 1))}
    made = RMinHash(num_perm=_HASHES, seed=_SEED)
    made.update(sorted(runs))
    return made
