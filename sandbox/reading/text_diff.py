"""What a revision changed, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Kind = Literal["same", "gone", "new"]

_MOST = 1_500  # tokens a side; longer texts are compared by sentence, then as a whole
_LONGEST = 20_000  # characters of a token that is compared


class Piece(NamedTuple):
    """A piece of text: in both (same), in the draft only (gone), in the revision only (new)."""

    kind: Kind
    text: str


def changed_words(before: str, after: str) -> list[Piece]:
    """How one text becomes the other.

    The pieces that are not new, joined, are `before`; those that are not gone are `after`. Words
    are compared, of long texts sentences; a lone word that stayed between changes counts as
    changed, so that a change can be read.
    """
    for unit in (r"\s*\S+", r".+?(?:[.!?\n]+\s*|$)"):
        one, two = _tokens(unit, before), _tokens(unit, after)
        if max(len(one), len(two)) <= _MOST:
            return _joined(_readable(list(_pieces(one, two))))
    return _joined([Piece("gone", before), Piece("new", after)])


def changes(draft: str | None, revision: str | None) -> list[Piece] | None:
    """How a draft became its revision; None where either is missing."""
    return None if draft is None or revision is None else changed_words(draft, revision)


def _tokens(unit: str, text: str) -> list[str]:
    found = re.findall(unit, text, re.DOTALL)
    rest = text[sum(map(len, found)) :]
    return [*found, rest] if rest else found


def _pieces(one: Sequence[str], two: Sequence[str]) -> Iterator[Piece]:
    sides = [[token[:_LONGEST].strip() for token in side] for side in (one, two)]
    matcher = SequenceMatcher(None, sides[0], sides[1])
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal" and one[a:b] == two[c:d]:
            yield Piece("same", "".join(one[a:b]))
            continue
        yield Piece("gone", "".join(one[a:b]))
        yield Piece("new", "".join(two[c:d]))


def _readable(pieces: list[Piece]) -> Iterator[Piece]:
    last = len(pieces) - 1
    for place, piece in enumerate(pieces):
        if piece.kind == "same" and 0 < place < last and len(piece.text.split()) < 2:
            yield Piece("gone", piece.text)
            yield Piece("new", piece.text)
        elif piece.text:
            yield piece


def _joined(pieces: Iterator[Piece] | list[Piece]) -> list[Piece]:
    """Changes side by side become one: what is gone, then what is new."""
    found: list[Piece] = []
    waiting: dict[Kind, str] = {"gone": "", "new": ""}

    def settle() -> None:
        found.extend(Piece(kind, text) for kind, text in waiting.items() if text)
        waiting.update(dict.fromkeys(waiting, ""))

    for kind, text in pieces:
        if kind == "same":
            settle()
            found.append(Piece(kind, text))
        else:
            waiting[kind] += text
    settle()
    return found
