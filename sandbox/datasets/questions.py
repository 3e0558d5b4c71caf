"""The questions of an export: near-duplicate groups, splits, and excluded questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from networkx.utils import UnionFind

from sandbox.datasets.near_duplicates import NearDuplicates, normalized


class Questions:
    """The distinct questions of all runs, by number.

    Attributes:
        texts: the questions.
        groups: the lowest question number in the group of each question. Groups are the connected
            components of near-duplicates.

    Args:
        texts: the questions.
        threshold: the threshold of `NearDuplicates`.
        keep_out: questions to exclude.
        drawn: for each instruction drawn from a scene (by number) the number of the scene's
            question; both are put into one group.
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
        self._excluded = self._excluded_groups(threshold, keep_out)

    def _excluded_groups(self, threshold: float, keep_out: Iterable[str]) -> frozenset[int]:
        """Return the groups with a near-duplicate of a question in `keep_out`."""
        index, texts = NearDuplicates(threshold), list(keep_out)
        for text in texts:
            index.add(text)
        if not texts:
            return frozenset()
        near = (number for number, text in enumerate(self.texts) if index.find(text).any)
        return frozenset(self.groups[number] for number in near)

    def is_excluded(self, number: int) -> bool:
        """Whether rows about a question are excluded."""
        return self.groups[number] in self._excluded

    def splits(self, shares: Mapping[str, float], seed: int) -> list[str]:
        """Return the split of each question.

        Groups are assigned as a whole, in random order by the seed, so that no split leaks into
        another. The largest split gets the remaining groups. Every other split gets at least one
        group while there are enough, and no group larger than its share if a smaller one fits.
        """
        sizes: dict[int, int] = {}
        for group in self.groups:
            sizes[group] = sizes.get(group, 0) + 1
        unassigned = sorted(sizes, key=lambda group: _draw(seed, self.texts[group]))
        largest = max(shares, key=lambda name: shares[name])
        assigned = dict.fromkeys(sizes, largest)
        for name in shares:
            if name != largest:
                wanted = max(1, round(shares[name] * len(self.texts)))
                for group in _fill_split(unassigned, sizes, wanted):
                    assigned[group] = name
                    unassigned.remove(group)
        return [assigned[group] for group in self.groups]


def _draw(seed: int, text: str) -> bytes:
    return blake2b(f"{seed}/{normalized(text)}".encode("utf-8", "replace"), digest_size=16).digest()


def _fill_split(unassigned: Sequence[int], sizes: Mapping[int, int], wanted: int) -> list[int]:
    """Return groups that fill a split, in order: at least one, but never all."""
    taken: list[int] = []
    for group in unassigned:
        if len(unassigned) - len(taken) > 1 and sizes[group] <= wanted:
            taken.append(group)
            wanted -= sizes[group]
    if not taken and len(unassigned) > 1:
        taken.append(min(unassigned, key=lambda group: sizes[group]))
    return taken


def _groups(texts: Sequence[str], threshold: float, drawn: Mapping[int, int]) -> list[int]:
    """Return the lowest text number in the group of each text."""
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
