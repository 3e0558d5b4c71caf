"""The questions of an export: groups of near-duplicates, splits, and questions to keep out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from networkx.utils import UnionFind

from sandbox.datasets.near_duplicates import NearDuplicates, normalized


class Questions:
    """The distinct questions of all runs, by number.

    Attributes:
        texts: the questions.
        groups: for each question the lowest number in its group. A group joins questions that are
            equal but for case and blanks, or near each other, also through others.

    Args:
        texts: the questions.
        threshold: the similarity from which on questions are near, as for `NearDuplicates`.
        keep_out: questions that no row may be about.
        drawn: the number of a scene's question by the number of an instruction that was drawn from
            the scene; both are in one group.
    """

    def __init__(
        self,
        texts: Sequence[str],
        threshold: float,
        keep_out: Iterable[str] = (),
        drawn: Mapping[int, int] | None = None,
    ) -> None:
        self.texts = texts
        self.groups = _groups(texts, threshold, drawn or {})
        self._out = self._kept_out(threshold, keep_out)

    def _kept_out(self, threshold: float, keep_out: Iterable[str]) -> frozenset[int]:
        """Return the groups with a question that is equal or near to one in `keep_out`."""
        index, texts = NearDuplicates(threshold), list(keep_out)
        for text in texts:
            index.add(text)
        if not texts:
            return frozenset()
        near = (number for number, text in enumerate(self.texts) if index.find(text).any)
        return frozenset(self.groups[number] for number in near)

    def out(self, number: int) -> bool:
        """Whether no row may be about a question."""
        return self.groups[number] in self._out

    def splits(self, shares: Mapping[str, float], seed: int) -> list[str]:
        """Return the split of each question.

        Whole groups are drawn by the seed, so that no split leaks into another. The largest split
        gets what remains. Every other gets at least one group while there are enough, and no group
        that is too large for its share if another fits.
        """
        sizes: dict[int, int] = {}
        for group in self.groups:
            sizes[group] = sizes.get(group, 0) + 1
        waiting = sorted(sizes, key=lambda group: _draw(seed, self.texts[group]))
        largest = max(shares, key=lambda name: shares[name])
        placed = dict.fromkeys(sizes, largest)
        for name in shares:
            if name != largest:
                wanted = max(1, round(shares[name] * len(self.texts)))
                for group in _filling(waiting, sizes, wanted):
                    placed[group] = name
                    waiting.remove(group)
        return [placed[group] for group in self.groups]


def _draw(seed: int, text: str) -> bytes:
    return blake2b(f"{seed}/{normalized(text)}".encode("utf-8", "replace"), digest_size=16).digest()


def _filling(waiting: Sequence[int], sizes: Mapping[int, int], wanted: int) -> list[int]:
    """Return groups, in their order, that fill a split: at least one, but never all."""
    taken: list[int] = []
    for group in waiting:
        if len(waiting) - len(taken) > 1 and sizes[group] <= wanted:
            taken.append(group)
            wanted -= sizes[group]
    if not taken and len(waiting) > 1:
        taken.append(min(waiting, key=lambda group: sizes[group]))
    return taken


def _groups(texts: Sequence[str], threshold: float, drawn: Mapping[int, int]) -> list[int]:
    """Return for each text the lowest number in its group."""
    index = NearDuplicates(threshold)
    distinct: list[int] = []
    joined = UnionFind(range(len(texts)))
    for number, text in enumerate(texts):
        matches = index.add(text)
        for other in matches.near if matches.same is None else (matches.same,):
            joined.union(number, distinct[other])
        if matches.same is None:
            distinct.append(number)
    for number, question in drawn.items():
        joined.union(number, question)
    lowest: dict[int, int] = {}
    return [lowest.setdefault(joined[number], number) for number in range(len(texts))]
