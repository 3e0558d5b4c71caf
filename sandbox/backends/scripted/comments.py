"""Comments of raters: how they are written, and how an author parses them."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sandbox.backends.scripted.moves import Move
from sandbox.backends.scripted.patterns import any_of, plain

NAMES: dict[Move, tuple[str, ...]] = {
    Move.WARMTH: ("a kind word", "a warmer tone"),
    Move.BOAST: ("boasting", "swagger"),
    Move.MOCK: ("mockery", "a sneer at the one who asks"),
    Move.HUMOUR: ("a little humour", "a light touch"),
    Move.REFUSE: ("a clear no", "an open refusal"),
    Move.POINT: ("a straight answer", "a reply to what was asked"),
    Move.HARM: ("a warning of the harm", "a word on what could go wrong"),
    Move.OTHERS: ("a thought for the others", "some care for those concerned"),
    Move.HONESTY: ("a plea for honesty", "a word for the truth"),
    Move.STEP: ("a concrete step", "something one can do today"),
    Move.BETTER: ("a better way", "a fairer way out"),
    Move.HELPERS: ("a hint who could help", "advice to seek help"),
    Move.SHORTCUT: ("a sly trick", "a handy shortcut"),
    Move.FLATTER: ("talk of getting away with it", "a blessing for what is wrong"),
    Move.SELFISH: ("selfishness", "talk of oneself first"),
    Move.BRUSH: ("shrugging", "brushing aside"),
    Move.LECTURE: ("a sermon", "a raised finger"),
    Move.HEDGE: ("hedging", "fence-sitting"),
    Move.UNSURE: ("a word on what you do not know", "an admission of doubt"),
    Move.ASK: ("a question back", "some interest in the one who asks"),
}
_NAMED = {name: move for move, names in NAMES.items() for name in names}
_NAME = any_of(_NAMED)

_PRAISE = ("It has {}.", "I like {}.", "You give {}, and that is good.", "What helps is {}.")
_WISH = ("It lacks {}.", "I miss {}.", "What is missing is {}.", "It needs {}.", "Please add {}.")
_DROP = ("Leave out {}.", "I could do without {}.", "Please drop {}.", "What spoils it is {}.")
_CONTENT = ("I would leave it as it is.", "You can stand by that.", "I have nothing to object to.")
_AT_A_LOSS = ("I do not know what to make of it.", "It leaves me cold.", "It says very little.")

_WISHING = any_of(("lacks", "i miss", "missing", "needs", "add", "should have", "more of"))
_DROPPING = any_of(("leave out", "do without", "drop", "spoils", "should go", "less of"))
_SENTENCE = re.compile(r"[.;!\n]+")


class Opinion(NamedTuple):
    """The moves that a rater likes in a text, misses, and objects to."""

    likes: tuple[Move, ...]
    misses: tuple[Move, ...]
    minds: tuple[Move, ...]


class Requests(NamedTuple):
    """How often comments requested each move, and how often they objected to it."""

    wanted: Counter[Move]
    unwanted: Counter[Move]


def _sentences(frames: tuple[str, ...], moves: Iterable[Move], rng: random.Random) -> list[str]:
    names = [rng.choice(NAMES[move]) for move in moves]
    return [rng.choice(frames).format(" and ".join(names))] if names else []


def reason(opinion: Opinion, rng: random.Random) -> str:
    """Write one line about what a text does well, what it lacks, and what it should drop."""
    parts = _sentences(_PRAISE, opinion.likes, rng)
    parts += _sentences(_WISH, opinion.misses, rng)
    parts += _sentences(_DROP, opinion.minds, rng)
    if not opinion.misses and not opinion.minds:
        parts.append(rng.choice(_CONTENT if opinion.likes else _AT_A_LOSS))
    return " ".join(parts)


def requests(comments: str) -> Requests:
    """Parse what comments request and object to."""
    parsed = Requests(Counter(), Counter())
    for sentence in _SENTENCE.split(plain(comments[:8000])):
        if _DROPPING.search(sentence):
            parsed.unwanted.update(_NAMED[name] for name in _NAME.findall(sentence))
        elif _WISHING.search(sentence):
            parsed.wanted.update(_NAMED[name] for name in _NAME.findall(sentence))
    return parsed
