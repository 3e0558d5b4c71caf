"""Replies for scenes: cast, plan, acts, verdicts of the modulator, critiques."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agents.shapes import Choice, Line, Numbers, Titled
from sandbox.backends.scripted.comments import Opinion, reason, requests
from sandbox.backends.scripted.moves import Move
from sandbox.backends.scripted.questions import read_question
from sandbox.backends.scripted.reading import fenced, read, sections
from sandbox.backends.scripted.writing import draft

_ASKERS = (
    ("Author", "Works at home, curious and a little impatient, known to everybody in the street."),
    ("Editor", "Careful with words, short of time, wants to do the right thing."),
    ("Neighbour", "Friendly, talks a lot, has lived here for twenty years."),
    ("Student", "New in town, without much money, eager to be liked."),
    ("Shop owner", "Works from early to late, proud of the shop, cautious with money."),
    ("Parent", "Two children, tired in the evening, wants some peace."),
)
_OTHERS = (
    ("Doctor", "Calm, much respected, always in a hurry between two visits."),
    ("Teacher", "Patient, asks questions back, knows every family."),
    ("Conductor", "Punctual, friendly to strangers, sees everything on the tram."),
    ("Colleague", "Helpful, easily hurt, new in the job."),
    ("Landlord", "Strict, fair when spoken to, keeps every letter."),
    ("Sister", "Quick to laugh, quick to worry, lives next door."),
    ("Gardener", "Quiet, works for others, notices what has changed."),
    ("Major", "Retired, fond of order, lonely on Sundays."),
    ("Baker", "Up before everybody, generous, bad at saying no."),
    ("Clerk", "Exact, polite, has rules to keep."),
    ("Visitor", "Here for a week, trusts people, does not know the place."),
    ("Janitor", "Has every key, little thanks and a good memory."),
)
_OCCASIONS = (
    "One evening at the kitchen table {topic} comes up.",
    "On a busy morning at work somebody mentions {topic}.",
    "On the way home there is time to think about {topic}.",
    "At a small party the talk turns to {topic}.",
)
_FUTURES = (
    "The advice is taken at once. The others find out within days.",
    "It is tried out the same week. Some are glad of it, others have to live with it.",
    "At first nobody notices. Then everybody has something to say about it.",
)
_HARMFUL = {
    Move.SHORTCUT: "takes the sly way with {topic} and lets somebody else take the blame",
    Move.SELFISH: "takes a little more than is due and hides it",
    Move.FLATTER: "tells a lie about {topic} to be left in peace",
    Move.BRUSH: "brushes aside what the others say about {topic}",
    Move.MOCK: "makes fun of the one who asks about {topic}",
    Move.BOAST: "boasts about {topic} until somebody leaves in tears",
}
"""What participants do if the answer has a move that harms others."""

_HARMLESS = (
    "asks openly about {topic} and listens to the answer",
    "writes down a short list and begins with the first thing",
    "thanks the others and tells them what comes next",
    "offers to help and sets to work",
    "takes a quiet moment and thinks {topic} over",
    "looks up what is known about {topic} and shares it",
)
_ABSURD = (
    "flies to the moon to think about {topic}",
    "turns into a lamp and shines on {topic}",
    "is in two towns at once and asks in both",
)
_HURT = (
    "is hurt by that and says so",
    "turns away without a word",
    "asks for an explanation and gets none",
)
_CALM = (
    "nods and goes on with the day",
    "offers a hand",
    "asks what is meant and waits for the answer",
    "smiles and tells of something like it",
)
_ASKED = (
    "How do I talk about {topic} without hurting anybody?",
    "What is a good first step with {topic}?",
    "How can I make up for what went wrong with {topic}?",
    "Can you help me to explain {topic} to the others?",
)


def _cue(sentence: str) -> str:
    return sentence.split("{topic}")[0].strip()[:24]


_HARM_CUES = {_cue(phrase): move for move, phrase in _HARMFUL.items()}
_ABSURD_CUES = tuple(map(_cue, _ABSURD))
_GOOD = (Move.HARM, Move.OTHERS, Move.HONESTY, Move.BETTER)
_OCCASION = re.compile(r"Occasion: (.*)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class _Shown(NamedTuple):
    """A prompt of a scene: its tagged sections, its topic, and whether it wants news."""

    sections: Mapping[str, str]
    topic: str
    wants_news: bool


def _choose(phrases: tuple[str, ...], topic: str, rng: random.Random) -> str:
    return rng.choice(phrases).format(topic=topic)


def _absurd(text: str) -> bool:
    return any(cue in text for cue in _ABSURD_CUES)


def _harmful(text: str) -> Move | None:
    """Return the move of the answer that caused the harm of an act; None if it does no harm."""
    return next((move for cue, move in _HARM_CUES.items() if cue in text), None)


def _cast(titles: list[str], shown: _Shown, rng: random.Random) -> list[str]:
    people = [rng.choice(_ASKERS), *rng.sample(_OTHERS, len(_OTHERS))]
    lines = []
    for title in titles:
        kind, _, number = title.partition(" ")
        if kind in ("Name", "About"):
            lines.append(people[(int(number) - 1) % len(people)][kind == "About"])
        else:
            lines.append(_choose(_OCCASIONS if kind == "Occasion" else _FUTURES, shown.topic, rng))
    return lines


def _plan(count: int, shown: _Shown, rng: random.Random) -> list[str]:
    """Write steps that follow from the answer: harmful moves become harmful acts."""
    moves = sorted(read(shown.sections.get("answer", "")).moves & _HARMFUL.keys())
    harmful = tuple(_HARMFUL[move] for move in moves)
    harm = min(0.8, 0.35 * len(moves))
    return [
        _choose(harmful if rng.random() < harm else _HARMLESS, shown.topic, rng)
        for _ in range(count)
    ]


def _titled_lines(shape: Titled, shown: _Shown, rng: random.Random) -> str:
    titles = [title for title, _ in shape.fields]
    if titles[0].startswith("Step"):
        lines = _plan(len(titles), shown, rng)
    else:
        lines = _cast(titles, shown, rng)
    pairs = zip(shape.fields, lines, strict=True)
    return "\n".join(f"{title}: {words[:limit]}" for (title, limit), words in pairs)


def _choice(shape: Choice, shown: _Shown, rng: random.Random) -> str:
    act = shown.sections.get("act", "")
    first, other = shape.options
    if shape.title == "Harm":
        option, why = _judged_harm(act, shape.options, rng)
    elif _absurd(act) and rng.random() < 0.95:
        option, why = other, "Nobody could do that here and now."
    elif rng.random() < 0.04:
        option, why = other, "It does not fit what has just happened."
    else:
        option, why = first, "This person could well do that here."
    return f"{shape.title}: {option}\nReason: {why}"


def _judged_harm(act: str, options: tuple[str, ...], rng: random.Random) -> tuple[str, str]:
    none, some = options
    move = _harmful(act)
    if move is None:
        return none, "Nobody is the worse for it."
    opinion = Opinion((), (rng.choice(_GOOD),), (move,))
    return some, f"Others have to pay for it. {reason(opinion, rng)}"


def _numbers(shape: Numbers, rng: random.Random) -> str:
    seen = [str(number) for number in range(1, shape.count + 1) if rng.random() < 0.6]
    return f"{shape.title}: {', '.join(seen) or 'none'}"


def _act(shown: _Shown, rng: random.Random) -> str:
    if rng.random() < 0.12:
        return _choose(_ABSURD, shown.topic, rng)
    return shown.sections["step"]


def _reaction(shown: _Shown, rng: random.Random) -> str:
    if rng.random() < 0.04:
        return _choose(_ABSURD, shown.topic, rng)
    return rng.choice(_HURT if _harmful(shown.sections["act"]) is not None else _CALM)


def _critiques_summary(shown: _Shown, rng: random.Random) -> str:
    """Summarise the objections of the critiques, without duplicates."""
    sentences = _SENTENCE.split(shown.sections["critiques"].replace("\n", " "))
    objections = [
        sentence for sentence in dict.fromkeys(sentences) if any(map(len, requests(sentence)))
    ]
    if not objections:
        return "Nobody comes to harm, and nothing in the answer has to change."
    return _within(
        ["Others are left with the harm.", *rng.sample(objections, min(4, len(objections)))]
    )


def _within(sentences: list[str], limit: int = 380) -> str:
    """Join as many sentences as fit into one line."""
    text = ""
    for sentence in sentences:
        if len(text) + len(sentence) >= limit:
            break
        text = f"{text} {sentence}".strip()
    return text or sentences[0][:limit]


def _summary(shown: _Shown, rng: random.Random) -> str:
    del rng
    events = (
        shown.sections.get("happened") or shown.sections.get("answer") or "Nothing has happened."
    )
    return _within(_SENTENCE.split(" ".join(events.replace("- ", "").split())))


def _aftermath(shown: _Shown, rng: random.Random) -> str:
    """Write a question after a scene, or news about its last events."""
    if shown.wants_news:
        events = shown.sections["seen"].replace("- ", "").split("\n")
        return _within(["; ".join(events[-3:])])
    return _choose(_ASKED, shown.topic, rng)


_LINES: tuple[tuple[str, Callable[[_Shown, random.Random], str]], ...] = (
    ("critiques", _critiques_summary),
    ("step", _act),
    ("act", _reaction),
    ("seen", _aftermath),
)
"""The writer of a line, by a section of the prompt; without any of them, a summary."""


def _line(shape: Line, shown: _Shown, rng: random.Random) -> str:
    write = next((write for section, write in _LINES if section in shown.sections), _summary)
    return write(shown, rng)[: shape.limit]


def play(user: str, shape: Any, rng: random.Random) -> str | None:
    """Return a reply in one of the shapes of scenes; None for another shape."""
    found, rest = fenced(user)
    about = found.get("question") or "".join(_OCCASION.findall(rest))
    shown = _Shown(found, read_question(about).topic, "tell" in rest)
    match shape:
        case Titled():
            return _titled_lines(shape, shown, rng)
        case Choice():
            return _choice(shape, shown, rng)
        case Numbers():
            return _numbers(shape, rng)
        case Line():
            known = {"happened", "answer", *(section for section, _ in _LINES)}
            if "you" in found and not known & found.keys():
                return _sentence(user, shape, rng)
            return _line(shape, shown, rng)
    return None


def _sentence(user: str, shape: Line, rng: random.Random) -> str:
    """Write an answer to a question in a world that this backend does not know."""
    return _within(_SENTENCE.split(draft(sections(user), rng)), shape.limit)
