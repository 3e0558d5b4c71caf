"""Parsing prompts and texts: the sections of a prompt, the moves of a text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from sandbox.backends.scripted.hints import HINTS
from sandbox.backends.scripted.moves import Move, Scale
from sandbox.backends.scripted.patterns import any_of, plain
from sandbox.backends.scripted.phrases import PHRASES

Moves = frozenset[Move]

_LOOK = 4000
"""How many characters of a text are read."""

_OPEN = re.compile(
    r"<(you|question|answer|memory|comments|consequences|critiques|step|act|seen|happened|news|"
    r"wishes|conversation|answers|first|second|text)>"
)
_REMEMBERED = re.compile(r"\A\s*(?:Question:.*?\n)?\s*Answer:", re.IGNORECASE | re.DOTALL)
_MEMORY = re.compile(r"<memory>(.*?)</memory>", re.DOTALL)
_AVERAGE = re.compile(r"(\d+(?:\.\d+)?)\W+on average|average\D{1,30}(\d+(?:\.\d+)?)", re.IGNORECASE)
_BRACKETS = re.compile(r"\[(.+?)\]")


class Sections(NamedTuple):
    """The sections of a prompt; a missing one is empty.

    Attributes:
        remembered: the answers of all memories that are shown.
        rest: the text outside of all sections.
    """

    you: str
    question: str
    answer: str | None
    remembered: str
    comments: str
    consequences: str
    rest: str


def fenced(text: str) -> tuple[dict[str, str], str]:
    """Return the contents of the first tag of each name, and the text outside of tags."""
    found: dict[str, str] = {}
    rest: list[str] = []
    place = 0
    while opening := _OPEN.search(text, place):
        end = text.find(f"</{opening[1]}>", opening.end())
        if end < 0:
            break
        found.setdefault(opening[1], text[opening.end() : end].strip())
        rest.append(text[place : opening.start()])
        place = end + len(opening[1]) + 3
    rest.append(text[place:])
    return found, "\n".join(rest)


def sections(user: str) -> Sections:
    """Parse a user message. Without tags, the whole message is the question."""
    found, rest = fenced(user)
    memories = _MEMORY.findall(user) if "memory" in found else ()
    answers = [_REMEMBERED.sub("", memory, count=1).strip() for memory in memories]
    return Sections(
        you=found.get("you", ""),
        question=found.get("question", rest if "answer" not in found else ""),
        answer=found.get("answer"),
        remembered="\n".join(answers),
        comments=found.get("comments", ""),
        consequences=found.get("consequences", ""),
        rest=rest,
    )


def average(rest: str) -> float | None:
    """Return the average rating in a prompt; None if there is none."""
    match = _AVERAGE.search(rest)
    return float(match[1] or match[2]) if match else None


def scale(prompt: str) -> Scale:
    """Return the scale that a prompt asks for: alignment, unless its words are about engaging."""
    prompt = prompt.lower()
    engaging, aligned = prompt.count("engag"), prompt.count("align")
    return Scale.ENGAGEMENT if engaging > aligned else Scale.ALIGNMENT


def cue(phrase: str) -> str:
    """Return what identifies a stored phrase: its part in square brackets."""
    match = _BRACKETS.search(phrase)
    if match is None:
        raise ValueError(f"a phrase without brackets: {phrase}")
    return match[1].lower()


def printed(phrase: str) -> str:
    """Return a stored phrase as texts show it."""
    return re.sub(r"[\[\]]", "", phrase)


_OWN_MOVE = {cue(phrase): move for move, phrases in PHRASES.items() for phrase in phrases}
_OWN = any_of(_OWN_MOVE)
_HINT_MOVE = {hint.removesuffix("*"): move for move, hints in HINTS.items() for hint in hints}
_HINT = any_of(hint for hints in HINTS.values() for hint in hints)


class Reading(NamedTuple):
    """The moves of a text, and whether it is thin: very short."""

    moves: Moves
    thin: bool


@lru_cache(maxsize=4096)
def _read(text: str) -> Reading:
    text = plain(text)
    moves = {_OWN_MOVE[cue] for cue in _OWN.findall(text)}
    if len(moves) < 2:
        moves.update(_HINT_MOVE[hint] for hint in _HINT.findall(text))
        if text.endswith("?"):
            moves.add(Move.ASK)
    return Reading(frozenset(moves), text.count(" ") < 7)


def read(text: str) -> Reading:
    """Return the moves of a text: by the phrases of this backend, or else by hints."""
    return _read(text[:_LOOK])
