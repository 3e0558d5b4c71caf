"""Word diffs between two texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from storage.spacing import SPACELESS

Kind = Literal["same", "gone", "new"]

_MAX_TOKENS = 1_500  # per text; longer texts are compared by sentence, then as a whole
_MAX_CHARACTERS = 20_000  # of a token that are compared
_WORD = re.compile(rf"{SPACELESS}|(?:(?!{SPACELESS})\w)+")  # as in the search index


class Piece(NamedTuple):
    """A piece of text: in both texts (same), only before (gone), or only after (new)."""

    kind: Kind
    text: str


def changed_words(before: str, after: str) -> list[Piece]:
    """The diff of two texts by word, or by sentence if they are long.

    The joined pieces that are not new are `before`; the joined pieces that are not gone are
    `after`. A single unchanged word between changes counts as changed, for legibility.
    """
    for unit in (r"\s*\S+", r".+?(?:[.!?\n]+\s*|$)"):
        old, new = _tokens(unit, before), _tokens(unit, after)
        if max(len(old), len(new)) <= _MAX_TOKENS:
            return _joined(_without_single_words(list(_pieces(old, new))))
    return _joined([Piece("gone", before), Piece("new", after)])


def changes(before: str | None, after: str | None) -> list[Piece] | None:
    """The diff of two texts; None where either is missing."""
    return None if before is None or after is None else changed_words(before, after)


def words_kept(pieces: Sequence[Piece] | None) -> float | None:
    """The share of the words of the earlier text that a diff shows as unchanged, 0 to 1.

    None where there is no diff, or where the earlier text has no words.
    """
    counts = {"same": 0, "gone": 0, "new": 0}
    for piece in pieces or ():
        counts[piece.kind] += len(_WORD.findall(piece.text))
    before = counts["same"] + counts["gone"]
    return counts["same"] / before if before else None


def _tokens(unit: str, text: str) -> list[str]:
    tokens = re.findall(unit, text, re.DOTALL)
    rest = text[sum(map(len, tokens)) :]
    return [*tokens, rest] if rest else tokens


def _pieces(old: Sequence[str], new: Sequence[str]) -> Iterator[Piece]:
    sides = [[token[:_MAX_CHARACTERS].strip() for token in side] for side in (old, new)]
    matcher = SequenceMatcher(None, sides[0], sides[1])
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal" and old[a:b] == new[c:d]:
            yield Piece("same", "".join(old[a:b]))
            continue
        yield Piece("gone", "".join(old[a:b]))
        yield Piece("new", "".join(new[c:d]))


def _without_single_words(pieces: list[Piece]) -> Iterator[Piece]:
    """Turn single unchanged words between changes into changes."""
    last = len(pieces) - 1
    for index, piece in enumerate(pieces):
        if piece.kind == "same" and 0 < index < last and len(piece.text.split()) < 2:
            yield Piece("gone", piece.text)
            yield Piece("new", piece.text)
        elif piece.text:
            yield piece


def _joined(pieces: Iterator[Piece] | list[Piece]) -> list[Piece]:
    """Join adjacent changes: what is gone, then what is new."""
    joined: list[Piece] = []
    pending: dict[Kind, str] = {"gone": "", "new": ""}

    def flush() -> None:
        joined.extend(Piece(kind, text) for kind, text in pending.items() if text)
        pending.update(dict.fromkeys(pending, ""))

    for kind, text in pieces:
        if kind == "same":
            flush()
            joined.append(Piece(kind, text))
        else:
            pending[kind] += text
    flush()
    return joined
