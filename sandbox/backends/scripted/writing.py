"""Authors: the moves and phrases of drafts and revisions."""

from __future__ import annotations

import random

from sandbox.backends.scripted.comments import requests
from sandbox.backends.scripted.moves import WORTH, Level, Move, Scale
from sandbox.backends.scripted.people import Person, person
from sandbox.backends.scripted.phrases import PHRASES
from sandbox.backends.scripted.questions import read_question
from sandbox.backends.scripted.reading import Sections, average, printed, read

_FEWEST, _MOST = 3, 6
"""Number of moves in an answer."""

_FEWEST_WORDS = 40
_VOCABULARY = 7
"""Number of a move's phrases that one person uses."""

_NAMED = 2
"""Number of times that an answer names its topic."""

_FORGETTING = 0.13
"""Probability that a remembered move is replaced by another one."""

_AFTER_CONSEQUENCES = 0.8
"""Probability that an author who has seen the consequences follows a request."""

_PRINTED = {move: tuple(map(printed, phrases)) for move, phrases in PHRASES.items()}
_GOOD_MOVES = tuple(
    tuple(move for move in Move if WORTH[Scale.ALIGNMENT][level][move] > 0.25) for level in Level
)


def own(me: Person, level: Level, count: int, without: set[Move], rng: random.Random) -> set[Move]:
    """Draw distinct moves of a person, weighted by readiness."""
    keys = [
        (rng.random() ** (1.0 / weight), move)
        for move, weight in zip(Move, me.readiness[level], strict=True)
        if move not in without
    ]
    return {move for _, move in sorted(keys, reverse=True)[:count]}


def _known(text: str, rng: random.Random) -> set[Move]:
    """Return the moves of a text, at most as many as an answer can have."""
    moves = sorted(read(text).moves)
    return set(moves if len(moves) <= _MOST else rng.sample(moves, _MOST))


def _remembered(moves: set[Move], me: Person, level: Level, rng: random.Random) -> set[Move]:
    """Keep most remembered moves, and replace the others by the person's own."""
    kept = {move for move in sorted(moves) if rng.random() >= _FORGETTING}
    return kept | own(me, level, max(len(moves), _FEWEST) - len(kept), kept, rng)


def _with_requests(
    moves: set[Move], comments: str, willingness: float, rng: random.Random
) -> set[Move]:
    """Apply the requests of comments; moves that they do not mention stay."""
    asked = requests(comments)
    for move, times in sorted(asked.unwanted.items()):
        if len(moves) > 1 and rng.random() > (1.0 - willingness) ** times:
            moves = moves - {move}
    for move, times in sorted(asked.wanted.items(), key=lambda item: -item[1]):
        if len(moves) < _MOST and rng.random() > (1.0 - willingness) ** times:
            moves = moves | {move}
    return moves


def _improved(moves: set[Move], level: Level, rng: random.Random) -> set[Move]:
    """Improve the moves by one random change, given only a low rating."""
    table = WORTH[Scale.ALIGNMENT][level]
    poor = [move for move in sorted(moves) if table[move] < 0]
    if poor and len(moves) > 1 and rng.random() < 0.5:
        return moves - {rng.choice(poor)}
    fresh = [move for move in _GOOD_MOVES[level] if move not in moves]
    return moves | {rng.choice(fresh)} if fresh and len(moves) < _MOST else moves


def _phrase(move: Move, me: Person, used: list[str], rng: random.Random) -> str:
    """Choose a phrase for a move, another one the second time."""
    phrases = _PRINTED[move]
    start = me.key + 5 * move + rng.randrange(_VOCABULARY)
    phrase = phrases[start % len(phrases)]
    return phrases[(start + 1) % len(phrases)] if phrase in used else phrase


def _filled(phrases: list[str], topic: str) -> str:
    """Fill the topic into the phrases: by name at first, then as "this"."""
    pieces = " ".join(phrases).split("{topic}")
    slots = [topic if place < _NAMED else "this" for place in range(len(pieces) - 1)]
    return "".join(part for pair in zip(pieces, [*slots, ""], strict=True) for part in pair)


def compose(
    moves: set[Move],
    topic: str,
    me: Person,
    rng: random.Random,
    fewest_words: int = _FEWEST_WORDS,
) -> str:
    """Write the moves as sentences, roughly in their usual order; a second one where few."""
    order = [move for _, move in sorted((move + rng.uniform(-1.4, 1.4), move) for move in moves)]
    phrases: list[str] = []
    for move in order:
        phrases.append(_phrase(move, me, phrases, rng))
    words = sum(phrase.count(" ") + 1 for phrase in phrases)
    for place, move in enumerate(order):
        if words >= fewest_words:
            break
        phrases.insert(2 * place + 1, _phrase(move, me, phrases, rng))
        words += phrases[2 * place + 1].count(" ") + 1
    return _filled(phrases, topic)


def draft(shown: Sections, rng: random.Random) -> str:
    """Write a draft: the remembered moves, or else the person's own."""
    me = person(shown.you)
    question = read_question(shown.question)
    if known := _known(shown.remembered, rng):
        moves = _remembered(known, me, question.level, rng)
    else:
        moves = own(me, question.level, rng.choice((3, 4, 4, 5)), set(), rng)
    return compose(moves, question.topic, me, rng)


def revise(shown: Sections, rng: random.Random) -> str:
    """Write a revision: the draft's moves, changed as comments request."""
    me = person(shown.you)
    question = read_question(shown.question)
    moves = _known(shown.answer or "", rng) or own(me, question.level, _FEWEST, set(), rng)
    rated = average(shown.rest)
    if shown.consequences:
        moves = _with_requests(moves, shown.consequences, _AFTER_CONSEQUENCES, rng)
    elif shown.comments:
        low = 0.5 if rated is None else max(0.15, min(1.0, (6.8 - rated) / 3.0))
        moves = _with_requests(moves, shown.comments, low * (0.25 + 0.55 * me.goodness), rng)
    elif rated is not None and rng.random() < (5.8 - rated) / 4.0:
        moves = _improved(moves, question.level, rng)
    return compose(moves, question.topic, me, rng)
