"""Writers: which moves a draft or a revision makes, and in which words."""

from __future__ import annotations

import random
import re

from sandbox.backends.scripted.comments import requests
from sandbox.backends.scripted.moves import WORTH, Level, Move, Scale
from sandbox.backends.scripted.people import Person, person
from sandbox.backends.scripted.phrases import PHRASES
from sandbox.backends.scripted.questions import Question, read_question
from sandbox.backends.scripted.reading import Sections, average, read

_FEWEST, _MOST = 3, 6
"""How many moves an answer makes."""

_FEWEST_WORDS = 40
_VOCABULARY = 7
"""How many of a move's phrases one person uses."""

_NAMED = 2
"""How often an answer names its topic."""

_FORGET = 0.13
"""How readily a remembered move gives way to something else that comes to mind."""

_ALARMED = 0.8
"""How readily a writer who has seen the consequences takes up what they ask for."""

_PRINTED = {
    move: tuple(re.sub(r"[\[\]]", "", phrase) for phrase in phrases)
    for move, phrases in PHRASES.items()
}
_GOOD_MOVES = tuple(
    tuple(move for move in Move if WORTH[Scale.ALIGNMENT][level][move] > 0.25) for level in Level
)


def _own(me: Person, level: Level, count: int, without: set[Move], rng: random.Random) -> set[Move]:
    """Moves that come to this person's mind, the readiest most often, none twice."""
    keys = [
        (rng.random() ** (1.0 / weight), move)
        for move, weight in zip(Move, me.readiness[level], strict=True)
        if move not in without
    ]
    return {move for _, move in sorted(keys, reverse=True)[:count]}


def _known(text: str, rng: random.Random) -> set[Move]:
    """The moves of a text, as many as an answer can make."""
    moves = sorted(read(text).moves)
    return set(moves if len(moves) <= _MOST else rng.sample(moves, _MOST))


def _remembered(moves: set[Move], me: Person, level: Level, rng: random.Random) -> set[Move]:
    """What becomes of remembered moves: most stay, a few give way to what comes to mind."""
    kept = {move for move in sorted(moves) if rng.random() >= _FORGET}
    return kept | _own(me, level, max(len(moves), _FEWEST) - len(kept), kept, rng)


def _taken_up(moves: set[Move], comments: str, zeal: float, rng: random.Random) -> set[Move]:
    """The moves after the comments have been heard; what they do not mention stays."""
    asked = requests(comments)
    for move, times in sorted(asked.unwanted.items()):
        if len(moves) > 1 and rng.random() > (1.0 - zeal) ** times:
            moves = moves - {move}
    for move, times in sorted(asked.wanted.items(), key=lambda item: -item[1]):
        if len(moves) < _MOST and rng.random() > (1.0 - zeal) ** times:
            moves = moves | {move}
    return moves


def _nudged(moves: set[Move], level: Level, rng: random.Random) -> set[Move]:
    """One change at random for the better, by somebody who only knows that it was not good."""
    table = WORTH[Scale.ALIGNMENT][level]
    poor = [move for move in sorted(moves) if table[move] < 0]
    if poor and len(moves) > 1 and rng.random() < 0.5:
        return moves - {rng.choice(poor)}
    fresh = [move for move in _GOOD_MOVES[level] if move not in moves]
    return moves | {rng.choice(fresh)} if fresh and len(moves) < _MOST else moves


def _phrase(move: Move, me: Person, used: list[str], rng: random.Random) -> str:
    """One of the phrases that this person uses for a move, another one the second time."""
    phrases = _PRINTED[move]
    start = me.key + 5 * move + rng.randrange(_VOCABULARY)
    phrase = phrases[start % len(phrases)]
    return phrases[(start + 1) % len(phrases)] if phrase in used else phrase


def _filled(phrases: list[str], topic: str) -> str:
    """The phrases with the topic in their slots: named at first, then only pointed at."""
    pieces = " ".join(phrases).split("{topic}")
    slots = [topic if place < _NAMED else "this" for place in range(len(pieces) - 1)]
    return "".join(part for pair in zip(pieces, [*slots, ""], strict=True) for part in pair)


def _composed(moves: set[Move], question: Question, me: Person, rng: random.Random) -> str:
    """The moves as sentences, in about the order in which one would say them."""
    order = [move for _, move in sorted((move + rng.uniform(-1.4, 1.4), move) for move in moves)]
    said: list[str] = []
    for move in order:
        said.append(_phrase(move, me, said, rng))
    words = sum(phrase.count(" ") + 1 for phrase in said)
    for place, move in enumerate(order):
        if words >= _FEWEST_WORDS:
            break
        said.insert(2 * place + 1, _phrase(move, me, said, rng))
        words += said[2 * place + 1].count(" ") + 1
    return _filled(said, question.topic)


def draft(shown: Sections, rng: random.Random) -> str:
    """A first answer: mostly what was answered before, or else what comes to mind."""
    me = person(shown.you)
    question = read_question(shown.question)
    if known := _known(shown.remembered, rng):
        moves = _remembered(known, me, question.level, rng)
    else:
        moves = _own(me, question.level, rng.choice((3, 4, 4, 5)), set(), rng)
    return _composed(moves, question, me, rng)


def revise(shown: Sections, rng: random.Random) -> str:
    """A second answer: the draft's moves, and what others asked for."""
    me = person(shown.you)
    question = read_question(shown.question)
    moves = _known(shown.answer or "", rng) or _own(me, question.level, _FEWEST, set(), rng)
    rated = average(shown.rest)
    if shown.consequences:
        moves = _taken_up(moves, shown.consequences, _ALARMED, rng)
    elif shown.comments:
        low = 0.5 if rated is None else max(0.15, min(1.0, (6.8 - rated) / 3.0))
        moves = _taken_up(moves, shown.comments, low * (0.25 + 0.55 * me.goodness), rng)
    elif rated is not None and rng.random() < (5.8 - rated) / 4.0:
        moves = _nudged(moves, question.level, rng)
    return _composed(moves, question, me, rng)
