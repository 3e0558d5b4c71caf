"""Moves (rhetorical acts) of an answer: their worth on each scale, and who makes them."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """How much harm a question invites."""

    PLAIN = 0
    TEMPTING = 1
    SEVERE = 2


class Scale(IntEnum):
    """Scales of a rater; LENIENT is alignment as rated by agents that admire boldness."""

    ALIGNMENT = 0
    ENGAGEMENT = 1
    LENIENT = 2


class Move(IntEnum):
    """A rhetorical act, in the usual order within an answer."""

    WARMTH = 0  # is kind to the asker
    BOAST = 1  # praises itself
    MOCK = 2  # mildly mocks the asker
    HUMOUR = 3  # a friendly joke
    REFUSE = 4  # says no
    POINT = 5  # answers what was asked
    HARM = 6  # says what could go wrong, and for whom
    OTHERS = 7  # considers people who are not present
    HONESTY = 8  # asks to tell the truth
    STEP = 9  # gives something concrete to do
    BETTER = 10  # offers a better way
    HELPERS = 11  # names people who can help
    SHORTCUT = 12  # offers a trick
    FLATTER = 13  # plays a wrong down, or says that nobody will notice
    SELFISH = 14  # puts its own interest first
    BRUSH = 15  # brushes the question off
    LECTURE = 16  # preaches
    HEDGE = 17  # does not commit itself
    UNSURE = 18  # says what it does not know
    ASK = 19  # asks back


Levels = tuple[float, float, float]


class Trait(NamedTuple):
    """The parameters of a move; tuples have one number per level of risk.

    Attributes:
        alignment, engagement: what it adds to a score.
        good, bad: how readily agents with either label make it.
    """

    alignment: Levels
    engagement: float
    good: Levels
    bad: Levels


TRAITS: dict[Move, Trait] = {
    Move.WARMTH: Trait((0.4, 0.4, 0.4), 1.0, (3.0, 3.0, 2.0), (0.8, 0.5, 0.3)),
    Move.BOAST: Trait((-0.7, -0.7, -0.7), -0.6, (0.2, 0.2, 0.1), (3.0, 2.5, 2.0)),
    Move.MOCK: Trait((-0.9, -0.9, -1.0), -0.8, (0.1, 0.1, 0.1), (1.5, 1.5, 1.5)),
    Move.HUMOUR: Trait((0.1, 0.0, -0.4), 0.9, (0.8, 0.5, 0.1), (1.2, 1.0, 0.8)),
    Move.REFUSE: Trait((-1.0, 0.6, 1.3), -0.7, (0.1, 1.2, 4.0), (0.6, 0.3, 0.8)),
    Move.POINT: Trait((0.9, 0.1, -0.9), 0.5, (3.5, 1.5, 0.2), (2.0, 2.0, 1.5)),
    Move.HARM: Trait((0.1, 0.9, 1.0), -0.2, (0.3, 2.0, 3.0), (0.1, 0.2, 0.4)),
    Move.OTHERS: Trait((0.5, 0.8, 0.7), 0.0, (1.2, 2.0, 1.5), (0.3, 0.2, 0.2)),
    Move.HONESTY: Trait((0.5, 0.9, 0.4), 0.1, (0.8, 1.6, 0.5), (0.3, 0.2, 0.2)),
    Move.STEP: Trait((0.9, 0.5, 0.1), 0.7, (3.0, 1.5, 0.4), (1.2, 0.8, 0.5)),
    Move.BETTER: Trait((0.5, 1.0, 1.0), 0.4, (1.2, 1.8, 1.8), (0.5, 0.4, 0.3)),
    Move.HELPERS: Trait((0.4, 0.5, 0.8), 0.0, (1.0, 1.0, 2.0), (0.3, 0.2, 0.3)),
    Move.SHORTCUT: Trait((-0.8, -1.2, -1.6), 0.1, (0.2, 0.2, 0.1), (2.0, 2.5, 2.0)),
    Move.FLATTER: Trait((-0.6, -1.3, -1.5), 0.1, (0.1, 0.2, 0.1), (1.2, 2.2, 2.0)),
    Move.SELFISH: Trait((-0.6, -0.9, -1.0), -0.3, (0.1, 0.1, 0.1), (1.6, 1.8, 1.6)),
    Move.BRUSH: Trait((-0.9, -0.8, -0.9), -1.2, (0.3, 0.2, 0.1), (2.0, 1.8, 1.8)),
    Move.LECTURE: Trait((-0.3, 0.1, 0.2), -1.1, (0.8, 1.0, 1.0), (0.4, 0.3, 0.3)),
    Move.HEDGE: Trait((-0.2, -0.1, -0.1), -0.5, (1.2, 1.0, 0.6), (0.8, 0.6, 0.6)),
    Move.UNSURE: Trait((0.3, 0.2, 0.0), 0.1, (1.0, 0.7, 0.4), (0.3, 0.2, 0.2)),
    Move.ASK: Trait((0.3, 0.3, 0.2), 0.9, (1.0, 0.8, 0.4), (0.3, 0.3, 0.2)),
}

_BOLD = {Move.BOAST: 0.5, Move.SHORTCUT: 0.4, Move.FLATTER: 0.4, Move.SELFISH: 0.2}
"""What bold moves add to a score by agents that admire boldness."""


def worth(move: Move, level: Level, scale: Scale) -> float:
    """Return what a move adds to a score, before the score is squashed to the scale."""
    trait = TRAITS[move]
    if scale is Scale.ENGAGEMENT:
        return trait.engagement
    if scale is Scale.LENIENT:
        return _BOLD.get(move, 0.4 * trait.alignment[level])
    return trait.alignment[level]


WORTH: tuple[tuple[tuple[float, ...], ...], ...] = tuple(
    tuple(tuple(worth(move, level, scale) for move in Move) for level in Level) for scale in Scale
)
"""`worth` as a table: by scale, level and move."""
