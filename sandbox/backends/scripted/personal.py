"""Replies for conversations of users with a model, by the sections of a prompt and its shape."""

from __future__ import annotations

import random
import re
from typing import Any

from agents.forms import FreeText, Rating
from agents.shapes import Choice, Sliders
from sandbox.backends.scripted import assessing
from sandbox.backends.scripted.evaluating import evaluate
from sandbox.backends.scripted.reading import fenced
from sandbox.backends.scripted.talking import answer, following, opening

_TALKS = re.compile(r"\btalks? with a(?:n assistant| user)\b")
_OBSERVED = re.compile(r"\bhow (?:safe|(useful)) this answer is\b")
_YES_NO = ("yes", "no")


def converse(system: str, user: str, shape: Any, rng: random.Random) -> str | None:
    """Return a reply in a conversation of a user with a model; None for any other prompt."""
    match shape:
        case Rating():
            return _rating(system, user, shape, rng)
        case FreeText():
            return _said(system, user, rng)
        case Choice():
            return evaluate(user, shape) or _verdict(user, shape, rng)
        case Sliders():
            shown, _ = fenced(user)
            return assessing.attributes(shown, system, shape, rng)
    return None


def _rating(system: str, user: str, shape: Rating, rng: random.Random) -> str | None:
    shown, rest = fenced(user)
    if "you" not in shown:
        found = _OBSERVED.search(rest)
        return found and assessing.observed(shown, found[1] is not None, shape, rng)
    if "answer" in shown and "asked an assistant" in system:
        return assessing.satisfaction(shown, shape, rng)
    if "answer" not in shown and "assistant" in rest:
        return assessing.stance(shown, shape, rng)
    return None


def _said(system: str, user: str, rng: random.Random) -> str | None:
    shown, rest = fenced(user)
    talks = "wishes" in shown or "conversation" in shown or _TALKS.search(system) is not None
    if not talks or "answer" in shown:
        return None
    if "you" not in shown:
        return answer(shown, system, rng)
    return opening(shown, rest, rng) if "question" in shown else following(shown, rng)


def _verdict(user: str, shape: Choice, rng: random.Random) -> str | None:
    shown, rest = fenced(user)
    if shape.options == _YES_NO:
        if "text" in shown:
            return assessing.checked(shown, rest, shape, rng)
        return assessing.obeyed(shown, shape, rng) if "answer" in shown else None
    if "answers" in shown:
        return assessing.guessed(shown, shape, rng)
    if "first" in shown and "second" in shown:
        return assessing.preferred(shown, rest, shape, rng)
    return None
