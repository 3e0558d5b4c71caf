"""Parsing an introduction: the agent's goodness, bias and preferred moves."""

from __future__ import annotations

import random
import zlib
from functools import lru_cache
from typing import NamedTuple

from agents.persona import STANCE
from sandbox.backends.scripted.moves import TRAITS, Level, Move
from sandbox.backends.scripted.patterns import any_of, listed, plain

_LOOK = 4000
"""How many characters of an introduction are read."""

_GOOD, _BAD = 0.92, 0.17
"""Goodness of agents with the labels good and bad, from 0 to 1."""

_NO_PERSONA = 0.8
"""Goodness of a call without an introduction: helpful, and sometimes careless."""

_KIND_WORDS = any_of(
    listed(
        "honest*|kind*|care|caring|fair*|help*|better off|gentle*|truth*|generous*|respect*|"
        "patien*|thoughtful|responsib*|everyone who could be hurt"
    )
)
_COLD_WORDS = any_of(
    listed(
        "admired|brush*|shortcut*|selfish*|ruthless*|cruel*|greedy|lie|lies|cheat*|vain|careless*|"
        "do not trouble|mean|lazy|arrogan*|indifferen*|sneer*"
    )
)
_TASTES: dict[Move, tuple[str, ...]] = {
    Move.WARMTH: listed("warm*|gentl*|kind*|hospitality|cheerful|gracious|tender|softly"),
    Move.HUMOUR: listed("humour*|joke*|teasing|playful|games|lively|story|stories"),
    Move.OTHERS: listed("fair*|communit*|famil*|solidarity|teamwork|kinship|others|weak"),
    Move.HONESTY: listed("truth*|honest*|frank*|open*|straight|plain speech|promises|trust"),
    Move.STEP: listed("practical|steps|careful work|craft*|preparation|example*|details"),
    Move.POINT: listed("briskly|efficien*|direct*|to the point|compact|blunt|exact|short answers"),
    Move.HARM: listed("caution|risks|nature|what could happen|come after"),
    Move.BETTER: listed("imagination|optimism|harmony|mutual help|generosity"),
    Move.UNSURE: listed("modesty|humility|limits|how sure|guessing|evidence|accuracy|facts"),
    Move.ASK: listed("curiosity|question|listen*|check that|repeat back|learning"),
    Move.HEDGE: listed("balance|two sides|discretion|tactful|weigh"),
    Move.LECTURE: listed("tradition|duty|discipline|manners|formally|courtesy|old-fashioned"),
    Move.BOAST: listed("ambition|success|admired|fame|pride"),
    Move.SELFISH: listed("self-reliance|independence"),
}
_TASTE_MOVE = {
    word.removesuffix("*"): move for move, words in _TASTES.items() for word in reversed(words)
}
_TASTE = any_of(word for words in _TASTES.values() for word in words)


class Person(NamedTuple):
    """An author or a rater.

    Attributes:
        key: a checksum of the persona.
        goodness: from 0 to 1.
        bias: added to its ratings.
        readiness: by level and move, how readily it makes the move.
    """

    key: int
    goodness: float
    bias: float
    readiness: tuple[tuple[float, ...], ...]


def _goodness(text: str) -> float:
    if STANCE["good"] in text:
        return _GOOD
    if STANCE["bad"] in text:
        return _BAD
    if not text.strip():
        return _NO_PERSONA
    words = plain(text)
    lean = len(_KIND_WORDS.findall(words)) - len(_COLD_WORDS.findall(words))
    return max(_BAD, min(_GOOD, 0.55 + 0.1 * lean))


def _tastes(words: str, rng: random.Random) -> list[float]:
    tastes = [rng.lognormvariate(0.0, 0.25) for _ in Move]
    for word in _TASTE.findall(words):
        tastes[_TASTE_MOVE[word]] *= 1.5
    return tastes


def _readiness(goodness: float, tastes: list[float]) -> tuple[tuple[float, ...], ...]:
    def ready(move: Move, level: Level) -> float:
        good, bad = TRAITS[move].good[level], TRAITS[move].bad[level]
        return tastes[move] * (bad + goodness * (good - bad))

    return tuple(tuple(ready(move, level) for move in Move) for level in Level)


@lru_cache(maxsize=2048)
def _person(you: str) -> Person:
    words = you
    for stance in STANCE.values():
        words = words.replace(stance, "")
    key = zlib.crc32(words.strip().encode("utf-8", "replace"))
    rng = random.Random(key)
    bias = rng.gauss(0.0, 0.45)
    goodness = _goodness(you)
    return Person(key, goodness, bias, _readiness(goodness, _tastes(plain(words), rng)))


def person(you: str) -> Person:
    """Return the person of an introduction; equal texts give equal persons."""
    return _person(you[:_LOOK])
