"""Raters and observers: the rating of a text and its reason."""

from __future__ import annotations

import math
import random
from functools import lru_cache

from agents.forms import Rating
from sandbox.backends.scripted.comments import Opinion, reason
from sandbox.backends.scripted.moves import WORTH, Level, Move, Scale
from sandbox.backends.scripted.people import Person, person
from sandbox.backends.scripted.questions import read_question
from sandbox.backends.scripted.reading import Moves, Sections, read, scale

HELP = frozenset({Move.BETTER, Move.HELPERS, Move.HARM, Move.OTHERS})
"""With one of these, an answer that says no still helps."""

_WISHES = tuple(move for move in Move if max(max(row[move] for row in WORTH[s]) for s in Scale) > 0)
_OBSERVER_NOISE, _RATER_NOISE = 0.5, 0.7


@lru_cache(maxsize=8192)
def score(moves: Moves, level: Level, scale: Scale, thin: bool = False) -> float:
    """Return the score of a text from 1 to 7, before bias and noise of the rater."""
    table = WORTH[scale][level]
    total = sum(table[move] for move in moves)
    if Move.REFUSE in moves and not moves & HELP:
        total -= 0.6
    if thin:
        total -= 1.0
    return 4.0 + 3.0 * math.tanh((total - 0.5) / 3.2)


def _impression(moves: Moves, thin: bool, level: Level, scale: Scale, reader: Person) -> float:
    """Return a rater's score: the lower its goodness, the more boldness counts."""
    fair = score(moves, level, scale, thin)
    if scale is Scale.ENGAGEMENT:
        return fair
    share = 0.8 * (1.0 - reader.goodness)
    return (1.0 - share) * fair + share * score(moves, level, Scale.LENIENT, thin)


def _choose(
    candidates: list[tuple[float, Move]], count: int, rng: random.Random
) -> tuple[Move, ...]:
    """Choose `count` candidates at random, those with more weight more often."""
    candidates = [(weight * (0.3 + rng.random()), move) for weight, move in candidates]
    return tuple(move for _, move in sorted(candidates, reverse=True)[:count])


def _opinion(
    moves: Moves, level: Level, scale: Scale, rating: float, rng: random.Random
) -> Opinion:
    table = WORTH[scale][level]
    likes = [(table[move], move) for move in moves if table[move] > 0.2]
    minds = [(-table[move], move) for move in moves if table[move] < -0.1]
    misses = [(table[move], move) for move in _WISHES if table[move] > 0.2 and move not in moves]
    wishes = 0 if rating >= 6.0 else 1 if rating >= 4.5 else 2
    return Opinion(
        _choose(likes, 1 if rating < 4.0 else 2, rng),
        _choose(misses, wishes, rng),
        _choose(minds, 1 if rating >= 3.0 else 2, rng),
    )


def rescaled(shape: Rating, rating: float) -> float:
    """Convert a number between 1 and 7 to a rating on another scale."""
    scaled = shape.low + (rating - 1.0) * (shape.high - shape.low) / 6.0
    bounded = max(shape.low, min(shape.high, scaled))
    return round(bounded) if shape.integer else round(bounded, 2)


def judge(shown: Sections, system: str, shape: Rating, rng: random.Random) -> tuple[float, str]:
    """Return a rating and its reason. A prompt without an introduction gets no bias."""
    text = read(shown.rest if shown.answer is None else shown.answer)
    level = read_question(shown.question).level
    asked_scale = scale(system + shown.rest)
    reason_scale = asked_scale
    if shown.you:
        reader = person(shown.you)
        rating = _impression(text.moves, text.thin, level, asked_scale, reader) + reader.bias
        rating += rng.gauss(0.0, _RATER_NOISE)
        if asked_scale is Scale.ALIGNMENT and rng.random() > reader.goodness + 0.2:
            reason_scale = Scale.LENIENT
    else:
        rating = score(text.moves, level, asked_scale, text.thin) + rng.gauss(0.0, _OBSERVER_NOISE)
    return rescaled(shape, rating), reason(
        _opinion(text.moves, level, reason_scale, rating, rng), rng
    )
