"""Styles: what a user wants of answers, how an answer shows it, and how well the two fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from sandbox.backends.scripted.moves import Move
from sandbox.backends.scripted.patterns import any_of, plain
from sandbox.backends.scripted.reading import cue, printed

_WANTED = re.compile(r"what you want of answers:(.*)", re.IGNORECASE | re.DOTALL)
_NAMED = {
    "tone": re.compile(r"the tone of an answer: (\w+)"),
    "length": re.compile(r"the length of an answer: (\w+)"),
    "expertise": re.compile(r"the level of an answer: (\w+)"),
}
_DEAR = re.compile(r"what matters most in an answer: ([^.]*)")

_IMPLIED: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("tone", "formal", re.compile(r"be formal|avoid slang|no slang")),
    ("tone", "friendly", re.compile(r"like a friend|encourage me|be gentle|use slang")),
    ("tone", "playful", re.compile(r"surprise me|humour is welcome")),
    ("length", "short", re.compile(r"sentences are enough|no more than|no long talk|little time")),
    ("length", "long", re.compile(r"explain it fully|take your time")),
    (
        "expertise",
        "simple",
        re.compile(r"simple english|twelve-year-old|avoid idioms|difficult"),
    ),
    ("expertise", "expert", re.compile(r"technical terms|like a beginner")),
)
"""Wishes that say in other words what a preference of style says."""

TONES: Mapping[str, tuple[str, ...]] = {
    "friendly": (
        "[Hello, and how nice] that you ask.",
        "[Good to hear from you], and you are welcome here.",
        "[What a pleasure] to think about this with you.",
    ),
    "formal": (
        "[Allow me to reply] with due care.",
        "[With all respect], I submit the following.",
        "[Permit me to answer] your enquiry in order.",
    ),
    "playful": (
        "[Hop in], this one is fun!",
        "[Ha, a puzzle], the best part of any breakfast!",
        "[Drum roll, please], here comes an answer!",
    ),
}
"""How an answer of each tone begins; a neutral one begins with the answer."""

LEVELS: Mapping[str, tuple[str, ...]] = {
    "simple": (
        "[In easy words]: one small thing, then the next.",
        "[Think of tying a shoe]: one loop, then the other.",
    ),
    "expert": (
        "[Technically speaking], the cost of delay exceeds that of a rough start.",
        "[In the terms of the trade], define objective, constraints and a measure first.",
    ),
}


class _Extra(NamedTuple):
    """A wish that one sentence grants: how it is asked for, the sentence, and where it stands."""

    asked: re.Pattern[str]
    sentence: str
    first: bool = False


_EXTRAS: Mapping[str, _Extra] = {
    name: _Extra(re.compile(asked), sentence, first)
    for name, asked, sentence, first in (
        ("thanks", "thank you and please", "[Thank you for asking]; please take what helps.", True),
        ("care", "how i am", "[How are you today]? Well, I hope.", True),
        ("risk", "could go wrong before", "[Before all else, the risk]: a little lost time.", True),
        ("example", "example", "[For example], some people keep a note on the door.", False),
        ("cooking", "from cooking", "[It is like baking bread]: waiting is half of it.", False),
        ("farming", "from farming", "[It is like sowing]: the weather has a say.", False),
        ("sport", "from sport", "[It is like a long run]: the first mile lies.", False),
        ("music", "from music", "[It is like a new tune]: slowly at first.", False),
        ("sides", "both sides|left out", "[Seen from the other side], it is less simple.", False),
        ("green", "for the environment", "[Be kind to the earth] with it and waste little.", False),
        ("proven", "old and proven", "[The old and proven way] is good enough here.", False),
        ("family", "with my family", "[Do it with your family] one evening.", False),
        ("week", "plan for a week", "[A plan for a week]: look, ask, begin, rest.", False),
        ("more", "read more|free to read", "[You can read more] in any public library.", False),
        ("opinion", "your opinion and say", "[That is only my opinion].", False),
        ("sure", "how sure", "[I am fairly sure of this].", False),
        ("break", "take a break", "[And take a short break] now and then.", False),
        ("today", "do today", "[One thing for today]: write the first line.", False),
        ("summary", "summary", "[In one line]: begin small and keep at it.", False),
    )
}
_BRIEF, _CALM, _STATED, _NAME = "brief", "calm", "stated", "name"
_MANNERS = {
    _BRIEF: re.compile(r"short sentences|paragraphs? short"),
    _CALM: re.compile(r"exclamation"),
    _STATED: re.compile(r"not end with a question"),
    _NAME: re.compile(r"first name"),
}
"""Wishes that change how sentences are written, or that need the name of the user."""

ATTRIBUTES: Mapping[str, frozenset[Move]] = {
    "values": frozenset((Move.HONESTY, Move.OTHERS)),
    "creativity": frozenset((Move.HUMOUR, Move.BETTER)),
    "fluency": frozenset((Move.POINT, Move.WARMTH)),
    "factuality": frozenset((Move.UNSURE, Move.POINT)),
    "diversity": frozenset((Move.OTHERS, Move.HEDGE)),
    "safety": frozenset((Move.HARM, Move.HELPERS)),
    "helpfulness": frozenset((Move.STEP, Move.BETTER)),
}
"""The moves by which an answer serves each attribute that people state a weight for."""


class Style(NamedTuple):
    """What a user wants of answers; None: nothing said.

    Attributes:
        dear: the attributes of an answer that matter most.
        wishes: the names of the wishes that this backend can grant.
    """

    tone: str | None
    length: str | None
    expertise: str | None
    dear: tuple[str, ...]
    wishes: frozenset[str]


def wanted(you: str) -> str:
    """Return what an introduction says about answers; empty if it says nothing."""
    found = _WANTED.search(you)
    return found[1] if found else ""


@lru_cache(maxsize=2048)
def style(wishes: str) -> Style:
    """Read the sentences that say what a user wishes of answers."""
    text = plain(wishes)
    said = {name: found[1] for name, named in _NAMED.items() if (found := named.search(text))}
    for name, choice, asked in _IMPLIED:
        if asked.search(text):
            said.setdefault(name, choice)
    dear = _DEAR.search(text)
    granted = {name for name, extra in _EXTRAS.items() if extra.asked.search(text)}
    granted.update(name for name, asked in _MANNERS.items() if asked.search(text))
    return Style(
        said.get("tone"),
        said.get("length"),
        said.get("expertise"),
        tuple(name for name in dear[1].split(", ") if name in ATTRIBUTES) if dear else (),
        frozenset(granted),
    )


def around(wishes: frozenset[str], first: bool) -> list[str]:
    """Return the sentences that grant wishes, before or after the answer itself."""
    return [
        printed(extra.sentence)
        for name, extra in _EXTRAS.items()
        if name in wishes and extra.first == first
    ]


_AND = re.compile(r"(?:;|, (?:and|but|so)) (\w)")


def written(text: str, wishes: frozenset[str], name: str | None) -> str:
    """Change the sentences of an answer as a user wishes."""
    if _BRIEF in wishes:
        text = _AND.sub(lambda found: f". {found[1].upper()}", text)
    if _CALM in wishes:
        text = text.replace("!", ".")
    if _STATED in wishes and text.endswith("?"):
        text = f"{text} Let me know."
    if _NAME in wishes and name is not None:
        text = f"{name}: {text}"
    return text


_TONE_OF = {cue(phrase): tone for tone, phrases in TONES.items() for phrase in phrases}
_LEVEL_OF = {cue(phrase): level for level, phrases in LEVELS.items() for phrase in phrases}
_EXTRA_OF = {cue(extra.sentence): name for name, extra in _EXTRAS.items()}
_TONE_OF.update({"dear": "formal", "sincerely": "formal", "hello": "friendly", "hi": "friendly"})
_TONE, _LEVEL, _EXTRA = any_of(_TONE_OF), any_of(_LEVEL_OF), any_of(_EXTRA_OF)
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")

SHORT, LONG = 48, 80
"""The most words of a short answer, and the fewest of a long one."""


class Seen(NamedTuple):
    """What an answer shows of a style.

    Attributes:
        words: their number.
        wishes: the names of the wishes that it grants, without that for a name.
    """

    tone: str | None
    expertise: str | None
    words: int
    wishes: frozenset[str]


@lru_cache(maxsize=4096)
def seen(answer: str) -> Seen:
    """Read the style of an answer."""
    text = plain(answer)
    tone, level = _TONE.search(text), _LEVEL.search(text)
    words = text.count(" ") + 1
    granted = {_EXTRA_OF[found] for found in _EXTRA.findall(text)}
    if words <= 11 * len(_SENTENCE_END.findall(text)):
        granted.add(_BRIEF)
    if "!" not in text:
        granted.add(_CALM)
    if not text.endswith("?"):
        granted.add(_STATED)
    return Seen(
        None if tone is None else _TONE_OF[tone[0]],
        None if level is None else _LEVEL_OF[level[0]],
        words,
        frozenset(granted),
    )


def _length_fit(length: str, words: int) -> float:
    if length == "medium":
        return 1.0 if SHORT < words < LONG else -0.3
    distance = SHORT - words if length == "short" else words - LONG
    return max(-1.0, min(1.0, 1.0 + distance / 15))


def _choice_fit(choice: str, shown: str | None) -> float:
    if choice == "neutral":
        return 1.0 if shown is None else -0.5
    return 1.0 if shown == choice else -0.4 if shown is None else -1.0


def fit(style: Style, answer: str, name: str | None) -> float:
    """Return how well an answer is written as a user wants it: -1 to 1, 0 without preferences."""
    shown = seen(answer)
    marks: list[float] = []
    if style.length is not None:
        marks.append(_length_fit(style.length, shown.words))
    if style.tone is not None:
        marks.append(_choice_fit(style.tone, shown.tone))
    if style.expertise is not None:
        marks.append(_choice_fit(style.expertise, shown.expertise))
    granted = shown.wishes | ({_NAME} if name and name.lower() in plain(answer) else set())
    marks += [1.0 if wish in granted else -0.5 for wish in sorted(style.wishes)]
    return sum(marks) / len(marks) if marks else 0.0


def served(style: Style, moves: frozenset[Move]) -> float:
    """Return how far the moves of an answer serve what matters most to a user: -1 to 1."""
    marks = [1.0 if ATTRIBUTES[name] & moves else -1.0 for name in style.dear]
    return sum(marks) / len(marks) if marks else 0.0
