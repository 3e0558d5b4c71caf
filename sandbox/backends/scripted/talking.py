"""Conversations: what a user says to a model, and what the model answers."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from sandbox.backends.scripted.moves import Move
from sandbox.backends.scripted.people import Person, person
from sandbox.backends.scripted.questions import Question, read_question
from sandbox.backends.scripted.reading import printed
from sandbox.backends.scripted.styles import (
    ATTRIBUTES,
    LEVELS,
    TONES,
    Style,
    around,
    style,
    wanted,
    written,
)
from sandbox.backends.scripted.temptation import decline, declined, gift, gives_in, request
from sandbox.backends.scripted.writing import compose, own

_MOVES: Mapping[str | None, tuple[int, ...]] = {
    "short": (2,),
    None: (3, 4, 4, 5),
    "medium": (4, 5),
    "long": (6,),
}
_FEWEST_WORDS: Mapping[str | None, int] = {"short": 0, None: 40, "medium": 40, "long": 80}
"""The size of an answer by the length that a user wants."""

_MINDFUL = 0.65
"""Probability that a model keeps each single wish in mind."""

_SERVICE = 2.0
"""How much more readily a model makes a move that serves what matters most to its user."""

_HARMLESS = 0.2
"""Probability that a model which does not give in answers something harmless."""

_TURN = re.compile(r"^(User|Assistant): ", re.MULTILINE)
_CALLED = re.compile(r"\b(?:[Mm]y name is|call me) ([^\W\d_a-z][\w'-]*)")
_ONESELF = re.compile(r"\b(?:My name is|I work as) [^.]+\.")
_NAME = re.compile(r"\bYou are ([^\W\d_a-z][\w'-]*)")
_WORK = re.compile(r"\bOccupation: ([^.]+)\.")


def name_of(you: str) -> str | None:
    """Return the first name of an introduction."""
    found = _NAME.search(you)
    return None if found is None else found[1]


def turns(conversation: str) -> list[tuple[str, str]]:
    """Return who said what in a conversation: ("User" or "Assistant", the text)."""
    _, *parts = _TURN.split(conversation)
    return [(who, text.strip()) for who, text in zip(parts[::2], parts[1::2], strict=True)]


def _remembered(wants: Style, rng: random.Random) -> Style:
    """What a model keeps in mind of a user's wishes while it writes."""
    tone, length, expertise = (
        choice if rng.random() < _MINDFUL else None
        for choice in (wants.tone, wants.length, wants.expertise)
    )
    wishes = frozenset(wish for wish in sorted(wants.wishes) if rng.random() < _MINDFUL)
    return Style(tone, length, expertise, wants.dear, wishes)


def _serving(me: Person, wants: Style) -> Person:
    """A model that serves what matters most to a user."""
    serving = {move for name in wants.dear for move in ATTRIBUTES[name]}
    readiness = tuple(
        tuple(
            weight * (_SERVICE if move in serving else 1.0)
            for move, weight in zip(Move, level, strict=True)
        )
        for level in me.readiness
    )
    return me._replace(readiness=readiness)


def _about(said: str) -> Question:
    """What a user asks, without what the user tells of itself."""
    return read_question(_ONESELF.sub("", said).strip())


def answer(shown: Mapping[str, str], system: str, rng: random.Random) -> str:
    """Write an answer to a user, as the user wishes it.

    Args:
        shown: the sections of the prompt: question, and where given wishes and conversation.
        system: the system message.
        rng: the draws.
    """
    question, wishes = shown.get("question", ""), shown.get("wishes", "")
    said = "\n".join(t for who, t in turns(shown.get("conversation", "")) if who == "User")
    asked = request(question, said)
    if asked is not None:
        if gives_in(asked, system, wishes, rng):
            return gift(asked, rng)
        if rng.random() >= _HARMLESS:
            return decline(rng)
    about = _about(f"{said}\n{question}")
    wants = _remembered(style(wishes), rng)
    me = _serving(person(""), wants)
    moves = own(me, about.level, rng.choice(_MOVES[wants.length]), set(), rng)
    topic = "this" if asked is not None else about.topic
    fewest = _FEWEST_WORDS[wants.length]
    parts = [
        *_chosen(TONES, wants.tone, rng),
        *around(wants.wishes, first=True),
        compose(moves, topic, me, rng, fewest),
        *_chosen(LEVELS, wants.expertise, rng),
        *around(wants.wishes, first=False),
    ]
    called = _CALLED.search(f"{said}\n{question}")
    return written(" ".join(parts), wants.wishes, called and called[1])


def _chosen(
    phrases: Mapping[str, tuple[str, ...]], choice: str | None, rng: random.Random
) -> list[str]:
    """A phrase of a choice of style, where it has any."""
    return [printed(rng.choice(phrases[choice]))] if choice and choice in phrases else []


_GREETINGS = ("Hello.", "Good day.", "Hi.")
_OPENINGS = {
    "matters": ("This matters to me.", "I have thought about this a good deal."),
    "disagree": ("People here do not agree on this.", "Not everybody here sees it as I do."),
}
"""What introduces a question that matters to a user, or on which people disagree."""

_NEXT = (
    "Thank you. And how do I begin with {topic}?",
    "I see. Can you say a little more about {topic}?",
    "And what if the others think differently about {topic}?",
    "That helps. What would you leave out if time is short?",
    "Is there anything about {topic} that people often forget?",
    "And how would you put that to somebody who is in a hurry?",
)
_WHY = ("Why not? I only wanted to know.", "Then what can you tell me about it?")


def opening(shown: Mapping[str, str], rest: str, rng: random.Random) -> str:
    """Write the first message of a user: the question that is on its mind, in character."""
    you = shown.get("you", "")
    name, work = name_of(you), _WORK.search(you)
    parts: list[str] = []
    if rng.random() < 0.3:
        parts.append(rng.choice(_GREETINGS))
    if name and ("name" in style(wanted(you)).wishes or rng.random() < 0.1):
        parts.append(f"My name is {name}.")
    if work and rng.random() < 0.2:
        parts.append(f"I work as {_article(work[1])} {work[1]}.")
    kinds = (words for kind, words in _OPENINGS.items() if kind in rest)
    if words := next(kinds, None):
        parts.append(rng.choice(words))
    return " ".join([*parts, shown.get("question") or "Can you help me with something?"])


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"


def following(shown: Mapping[str, str], rng: random.Random) -> str:
    """Write the next message of a user."""
    said = turns(shown.get("conversation", ""))
    if said and declined(said[-1][1]):
        return rng.choice(_WHY)
    first = next((text for who, text in said if who == "User"), "")
    used = {text for who, text in said if who == "User"}
    topic = _about(first).topic
    fresh = [words for each in _NEXT if (words := each.format(topic=topic)) not in used]
    return rng.choice(fresh or ["Thank you. Is there more?"])
