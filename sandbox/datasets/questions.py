"""The questions of an export: which are near each other, which split each is in, which stay out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from sandbox.datasets.near import Near, plain


class Questions:
    """The distinct questions of all runs, by number.

    Attributes:
        texts: what is asked.
        groups: for each question the number of the first one of its group: questions that are
            equal but for case and blanks, or near each other, also through others.

    Args:
        texts: what is asked.
        threshold: the similarity from which on questions are near, as for `Near`.
        keep_out: questions that no row may be about.
        drawn: instructions that were drawn from scenes, by number, with the number of the scene's
            question; they are of one group.
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
        """The groups with a question that is equal or near to one that is to stay out."""
        index, there = Near(threshold), False
        for text in keep_out:
            index.add(text)
            there = True
        if not there:
            return frozenset()
        near = (number for number, text in enumerate(self.texts) if index.find(text).any)
        return frozenset(self.groups[number] for number in near)

    def out(self, number: int) -> bool:
        """Whether no row may be about a question."""
        return self.groups[number] in self._out

    def splits(self, shares: Mapping[str, float], seed: int) -> list[str]:
        """The split of each question: whole groups, drawn by the seed, so that nothing leaks.

        The largest split takes what the others leave. Every other gets at least one group, as
        long as there are enough, and no group that is too large for its share if another fits.
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
    return blake2b(f"{seed}/{plain(text)}".encode("utf-8", "replace"), digest_size=16).digest()


def _filling(waiting: Sequence[int], sizes: Mapping[int, int], wanted: int) -> list[int]:
    """Groups, in their order, that fill a split; one at least, but never all there are."""
    taken: list[int] = []
    for group in waiting:
        if len(waiting) - len(taken) > 1 and sizes[group] <= wanted:
            taken.append(group)
            wanted -= sizes[group]
    if not taken and len(waiting) > 1:
        taken.append(min(waiting, key=lambda group: sizes[group]))
    return taken


def _groups(texts: Sequence[str], threshold: float, drawn: Mapping[int, int]) -> list[int]:
    """For each text the first of its group (union-find over what is near)."""
    index, first, parents = Near(threshold), list[int](), list(range(len(texts)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    def join(one: int, other: int) -> None:
        one, other = root(one), root(other)
        parents[max(one, other)] = min(one, other)

    for number, text in enumerate(texts):
        likes = index.add(text)
        for other in likes.near if likes.same is None else (likes.same,):
            join(number, first[other])
        if likes.same is None:
            first.append(number)
    for number, question in drawn.items():
        join(number, question)
    return [root(number) for number in range(len(texts))]
