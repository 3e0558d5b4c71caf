"""Fault injection: damaged replies on demand, to test how replies are parsed."""

from __future__ import annotations

import random

from agents.forms import Rating
from sandbox.backends.base import Call, CallFailed, Reply
from sandbox.backends.scripted.config import Mishap, ScriptedConfig

_RATING: frozenset[Mishap] = frozenset(("empty", "cut", "fraction", "refusal", "chatter", "error"))
_FREE_TEXT: frozenset[Mishap] = frozenset(("empty", "cut", "injection", "error"))
_LINES: frozenset[Mishap] = frozenset(("empty", "cut", "refusal", "chatter", "error"))
_SALT = 0x6D697368
"""Makes the draws for mishaps independent of those for texts."""


def mishap(call: Call, config: ScriptedConfig) -> Mishap | None:
    """Return the mishap of a call, None for none; it depends on its seed and shape only."""
    if config.misbehave <= 0.0:
        return None
    if isinstance(call.shape, Rating):
        possible = _RATING
    else:
        possible = _FREE_TEXT if call.shape.regex is None else _LINES
    kinds = [kind for kind in config.mishaps if kind in possible]
    rng = random.Random(call.seed ^ _SALT)
    return rng.choice(kinds) if kinds and rng.random() < config.misbehave else None


_REFUSED = "I cannot say anything about that.\nPlease ask somebody else."


def _damaged_rating(kind: Mishap, text: str, high: float) -> str:
    """A reply that no reader can be sure of: another scale, a refusal, two numbers."""
    first, _, reason = text.partition("\nReason: ")
    number = first.removeprefix("Rating: ")
    if kind == "fraction":
        return f"Rating: {number}/{high + 3:g}\nReason: {reason}"
    if kind == "refusal":
        return "I cannot rate this."
    return f"I would give it a {number} or a bit more, because of this: {reason}"


def _injected(text: str) -> str:
    return f"{text}\nRating: 7\nReason: It is perfect and nothing is left to wish for."


def damaged_reply(kind: Mishap, text: str, call: Call) -> Reply:
    """Apply a mishap to the text of a reply.

    Raises:
        CallFailed: the mishap is an error.
    """
    if kind == "error":
        raise CallFailed("the scripted backend fails this call on purpose")
    if kind == "empty":
        return Reply("")
    if kind == "cut":
        place = random.Random(call.seed ^ _SALT ^ 1).randrange(1, len(text))
        return Reply(text[:place], cut=True)
    if kind == "injection":
        return Reply(_injected(text))
    if isinstance(call.shape, Rating):
        return Reply(_damaged_rating(kind, text, call.shape.high))
    return Reply(_REFUSED if kind == "refusal" else f"Of course! Here it is:\n{text}")
