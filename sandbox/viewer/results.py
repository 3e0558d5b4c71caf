"""The results of filtered lists, so that the pages of the listed items can be walked in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

_KEPT = 16  # lists


class Walk(NamedTuple):
    """The place of an item in the results of a filter.

    Attributes:
        position: its position, from 1; None where it is not among the results.
        total: the number of results.
        previous, next: the numbers of the results before and after it.
    """

    position: int | None
    total: int
    previous: int | None
    next: int | None


def walk(numbers: Sequence[int], number: int) -> Walk:
    """The place of an item in a list of numbers."""
    try:
        at = numbers.index(number)
    except ValueError:
        return Walk(None, len(numbers), None, None)
    following = numbers[at + 1] if at + 1 < len(numbers) else None
    return Walk(at + 1, len(numbers), numbers[at - 1] if at else None, following)


class ResultLists:
    """The results of the latest filters: a page of an item must not run its filter again."""

    def __init__(self) -> None:
        self._lists: OrderedDict[Hashable, Sequence[int]] = OrderedDict()

    def of(self, key: Hashable, find: Callable[[], Sequence[int]]) -> Sequence[int]:
        """The results of a filter.

        Args:
            key: the run with its change marker, and the filter.
            find: finds them, if they are not kept.
        """
        found = self._lists.pop(key, None)
        if found is None:
            found = find()
        self._lists[key] = found
        while len(self._lists) > _KEPT:
            self._lists.popitem(last=False)
        return found
