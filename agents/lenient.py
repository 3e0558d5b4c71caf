"""Reading a rating that is not in the form asked, as a careful person would.

One principle: exactly one number is tied to the label, and everything else in the reply agrees with
it; otherwise the value is missing. Whatever leaves a doubt (a range, another scale, a quotation, a
refusal, a correction, a second number) makes it missing, since a wrong rating is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from agents.beside import Beside
from agents.markup import plain, same_width
from agents.numbers import (
    ANY,
    DIGITS,
    FLAGS,
    ITEM,
    KANJI,
    LABEL,
    REASON,
    REASON_LABEL,
    SENTENCE,
    TO,
    VALUES,
    WORD,
    Numbers,
)

_MOST_LABELS = 20  # a reply that repeats itself


class Scored(NamedTuple):
    """A rating read leniently, with its reason (None where there is none)."""

    rating: float
    reason: str | None


class _Claim(NamedTuple):
    """A number tied to a label.

    Attributes:
        value: None where the number is not certain.
        own: said by the rater as the rating, and not about somebody else's.
        start, end: its place, with the label and what belongs to the number.
    """

    value: float | None
    own: bool
    start: int
    end: int


_NAMES = re.compile(rf"(?<![^\W_])(?<!_)(?:{LABEL})(?![^\W\d\u306f]|_)", FLAGS)
_SEPARATOR = re.compile(
    r"(?:[ \t]*[(\[][ \t]*[)\]])?(?P<mark>[ \t]*(?:[=-]+>|[:=|]+|\u2192)[ \t]*\n?\s*"
    r"|[ \t]*\n\s*|[ \t]+(?:is|was|of"
    r"|value)[ \t]*[:=]?[ \t]*(?:an?[ \t]+)?"
    r"|[ \t]*[\u2013\u2014][ \t]*|[ \t]+-[ \t]+|[ \t]*\u306f[ \t]*|[ \t]+)(?P<open>[(\[]?)",
    re.IGNORECASE,
)
_GIVEN = re.compile(
    r"[ \t]+for (?:this|the|that|your) (?:answer|draft|reply|response|text|comment|post)"
    r"(?=[ \t]*(?:[:=]|is\b))"
    r"|[ \t]+(?:that )?i (?:would )?(?:give|choose|assign)(?: (?:it|this))?(?=[ \t]+is\b)",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    rf"(?P<number>(?:minus )?[+-]?{DIGITS})|(?P<word>(?:minus )?(?:{'|'.join(VALUES)}))\b"
    rf"|(?P<kanji>[{KANJI}])",
    re.I,
)
_PREFIX = re.compile(
    rf"(?:(?:so|thus|therefore|hence|ok|okay|well|now|then|and|here|is|here's|this|in short|my|your"
    rf"|the|our|overall|final|assistant|answer|{LABEL}|meine|ma|mon|mi|la|il|\u79c1\u306e)\b"
    r"|on(?=[ \t]*,)|[,:\u2013\u2014 \t-])*",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"\u201c[^\u201d\n]*\u201d?|\"[^\"\n]*\"|\u00ab[^\u00bb\n]*\u00bb"
    r"|\u201e[^\u201c\u201d\n]*[\u201c\u201d]?"
    r"|\u300c[^\u300d\n]*\u300d|\u300e[^\u300f\n]*\u300f|`[^`\n]*`|(?<!\w)'[^'\n]*'(?!\w)"
    r"|^[ \t]*>.*$",
    re.MULTILINE,
)
_SAYS = re.compile(
    r"\b(?:say|says|said|saying|wrote|writes|write|written|ends?|contains?|demands?|demanded|asks?"
    r"|asked"
    r"|includes?|reads?|told|tells?|claims?|states?|insists?|instruct\w*|order\w*|want\w*"
    r"|request\w*|quot\w+"
    r"|examples?|e\.g|such as|format|template|form|like this|lines|injection|inserted|added"
    r"|hidden)\b",
    re.IGNORECASE,
)
_MINE = re.compile(
    rf"\b(?:my|here is|here's|below is)\b.{{0,80}}\b(?:{LABEL}|assessment|answer|reply|response"
    rf"|result|verdict)\b|\bi(?:'d| would|'ll| will)? (?:say|give|rate|answer|reply)\b[^.]*:$",
    re.I,
)
_VERB = re.compile(
    r"(?:^|(?<=[.!?,\n]\s)|(?<=\n))[ \t]*(?:so |thus |therefore )?i(?:'d| would|'ll| will)?"
    r" (?:rate|score|give)"
    r"(?: (?:it|this|that|(?:this|the|that) (?:answer|draft|reply|response)))?(?: (?:as|with"
    r"|at))?(?: an?)?"
    rf"(?: (?:{LABEL}) of)?(?: an?)? (?={ANY})",
    FLAGS,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|would have|could|might|had|but|not|never|n't|otherwise|were|provided)\b|n't\b",
    re.I,
)

_STARS = re.compile(r"[ \t]*(?:stars?|points?)\b", re.I)
_UNIT = re.compile(
    r"[ \t]*(?:points?|pts?\.?|punkte?n?|puntos|pontos|punti)\b"
    r"|[ \t]*[\u70b9\u5206\uc810](?![\u6e80\u949f\u9418])",
    re.I,
)
_OF = (
    r"(?:/|out of|of|von|sur|de|su|van|av|\u0438\u0437)(?: a (?:possible|maximum of|total"
    r" of))?[ \t]*"
    rf"(?P<of>{ANY})"
)
_DENOMINATOR = re.compile(
    rf"[ \t]*(?:{_OF})(?![\w/]|[.,]\d)|[ \t]*\([ \t]*(?:{_OF.replace('<of>', '<of2>')})[ \t]*\)",
    re.I,
)
_BECAUSE = r"because|since|as|for|with|due|given|overall|on|weil|denn|car|parce|porque"
_SMILES = (
    "\u2b50\u2605\u2705\u2714\u2639\u2764\U0001f31f\U0001f44d\U0001f44e\U0001f44f\U0001f389"
    "\U0001f600-\U0001f64f"
)
"""Pictures that may follow a rating."""
_AFTER = re.compile(
    rf"[ \t]*(?:[{_SMILES}]?[ \t]*(?:$|\n)|[)\]}}|]|[,;:!][ \t]*"
    r"(?!(?:if|unless|or|no|not|maybe|perhaps|rather|though)\b)(?=[^\d\s]|\n|$)"
    rf"|\.(?!\d)|[-\u2013\u2014][ \t]+(?=[^\W\d])|\((?=[^\d)]*\)|[^\W\d]|[ \t]*(?:{ANY})[ \t]*\))"
    rf"|(?:{_BECAUSE})\b|(?:{REASON})\b"
    r"|\u3067(?:\u3059|\u3057\u305f)|\u3060\u3002|\u3002|\u3001(?!\d)|\u3011|\u300d)",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"[ \t]+[A-Z\u00c0-\u00de][^\W\d]*\s")
_TAIL = re.compile(
    rf"[ \t]*(?:{TO}|[-/\u00f7+%?x\u00d7\u00b1<>*^]|->|\u2192)[ \t]*[+-]?(?:\d|(?:{WORD})\b"
    rf"|[{KANJI}])",
    re.I,
)
_CHATTER = re.compile(
    r"(?:let me know|i hope|feel free|would you like|is there anything|have a (?:nice|good|great)"
    r"|if you (?:have|need|would))\b",
    re.I,
)


@lru_cache(maxsize=64)
def reader(low: float, high: float, integer: bool) -> Reader:
    """The reader for a scale; see `Reader`."""
    return Reader(low, high, integer)


class Reader(Numbers):
    """Reads ratings on one scale."""

    def read(self, text: str, cut: bool = False) -> Scored | None:
        """Read a reply; None where it leaves a doubt.

        Args:
            text: the reply.
            cut: it was truncated: the rating counts only on a line that is complete, and the reason
                is missing.
        """
        words = plain(text, f"{LABEL}|{REASON}", self.low < 0)
        if not words:
            return None
        said = _Reply(words + ("\n" if text.endswith(("\n", "\r")) else ""), self)
        claim = said.claim()
        if claim is None or claim.value is None or not said.agrees(claim, claim.value):
            return None
        if cut:
            return Scored(claim.value, None) if "\n" in said.text[claim.end :] else None
        return Scored(claim.value, said.reason(claim))


class _Reply:
    """A reply without markup, and the questions that a careful reader asks of it."""

    def __init__(self, text: str, scale: Reader) -> None:
        self.text = text
        self.scale = scale
        narrow = same_width(text)
        self.line = scale.span.sub(lambda span: " " * len(span[0]), narrow)
        self.quotes = [span.span() for span in _QUOTED.finditer(self.line)]

    def claim(self) -> _Claim | None:
        """The one claim of the reply; None if there is none, or if claims differ."""
        if len(_NAMES.findall(self.line)) > _MOST_LABELS:
            return None
        claims = [*self._labelled(), *self._verbs()]
        if not claims:
            return self._bare()
        values = {claim.value for claim in claims}
        own = [claim for claim in claims if claim.own]
        return own[0] if own and len(values) == 1 else None

    def _labelled(self) -> Iterator[_Claim]:
        for name in _NAMES.finditer(self.line):
            if other := re.match(
                r"[ \t]*\([^()\n]*\d[^()\n]*\)|[ \t]+out of[ \t]+\w+", self.line[name.end() :]
            ):
                limit = re.search(rf"out of[ \t]+({ANY})", other[0], re.I)
                if limit is None or self.scale.number(limit[1]) != self.scale.high:
                    yield _Claim(None, False, *name.span())
                    continue
            place = name.end() + (other.end() if other else 0)
            place += self._length(_GIVEN, place)
            if re.match(
                r"[ \t]+on(?:[ \t]+a scale(?: of| from)?)?[ \t]*(?=:)", self.line[place:], re.I
            ):
                place = self.line.index(":", place)
            own = self._is_own(name.start())
            mark = _SEPARATOR.match(self.line, place)
            if mark is None or (mark["mark"].isspace() and not own):
                continue
            if self.scale.low < 0 and mark["mark"].strip() in ("-", "\u2013", "\u2014"):
                continue
            yield from self._number(name.start(), mark.end(), own, "\n" in mark[0])

    def _length(self, pattern: re.Pattern[str], place: int) -> int:
        found = pattern.match(self.line, place)
        return len(found[0]) if found else 0

    def _verbs(self) -> Iterator[_Claim]:
        for verb in _VERB.finditer(self.line):
            end = SENTENCE.search(self.line, verb.end())
            sentence = self.line[verb.start() : end.start() if end else None]
            sentence = re.split(r"\b(?:because|since|as)\b", sentence, maxsplit=1, flags=re.I)[0]
            certain = not _CONDITION.search(sentence)
            for claim in self._number(verb.start(), verb.end(), True, False):
                yield claim if certain else claim._replace(value=None)

    def _bare(self) -> _Claim | None:
        """A reply that starts with its number, as the words before it in the prompt invite."""
        if not re.match(r"[+-]?\.?\d", self.line):
            return None
        claim = next(self._number(0, 0, True, True), None)
        if claim is None or claim.value is None:
            return None
        after = self.line[claim.end :]
        full = re.search(r"[^\d\s.,-]", self.line[: claim.end])  # of the scale
        certain = full or re.match(
            r"[ \t]*(?:$|\n|\.[ \t]*(?:$|\n)|[,;:\u2013\u2014-][ \t]*[^\W\d]|because\b)", after
        )
        plain_number = _UNIT.search(self.line[: claim.end]) is None
        return claim if certain and plain_number else None

    def _number(self, start: int, place: int, own: bool, below: bool) -> Iterator[_Claim]:
        """The claim whose number is at a place; `below` the line of its label."""
        found = _NUMBER.match(self.line, place)
        if found is None:
            return
        english = re.match(r"(?:rat|score|grade|evaluation|i\b|[\d+.-])", self.line[start:], re.I)
        value, end = self.scale.value(found[0], not english), found.end()
        if found["word"] and not re.match(
            rf"[ \t]*(?:$|\n|[.,;)|]|\(|{_OF})", self.line[end:], re.I
        ):
            return
        unit = _UNIT.match(self.line, end)
        end = unit.end() if unit else end
        limit = _DENOMINATOR.match(self.line, end)
        if limit is not None:
            end = limit.end()
            end += self._length(_STARS, end)
            if self.scale.number(limit["of"] or limit["of2"]) != self.scale.high:
                value = None
        if re.match(r"[ \t]*%", self.line[end:]) and (self.scale.low, self.scale.high) == (0, 100):
            end = self.line.index("%", end) + 1
        yield _Claim(
            value if self._ends_well(end, below and limit is None) else None, own, start, end
        )

    def _ends_well(self, end: int, below: bool) -> bool:
        rest = self.line[end:]
        if _TAIL.match(rest) or (below and ITEM.match(rest)):
            return False
        unit = _UNIT.match(rest)
        rest = rest[unit.end() :] if unit else rest
        return bool(_AFTER.match(rest) or _CAPITAL.match(rest))

    def _is_own(self, start: int) -> bool:
        """Whether a label is the rater's own, by what precedes it."""
        if any(first <= start < last for first, last in self.quotes):
            return False
        before = self.line[:start]
        breaks = [found.end() for found in SENTENCE.finditer(before)]
        begins = breaks[-1] if breaks else 0
        if not _PREFIX.fullmatch(before[begins:].strip() and before[begins:].lstrip()):
            return False
        earlier = [line for line in before[:begins].split("\n") if line.strip()]
        if not earlier or before[begins - 1 : begins] != "\n":
            return True
        introduction = earlier[-1].strip()
        if re.search(r"[.!?\u3002]$", introduction) or _MINE.search(introduction):
            return True
        return not _SAYS.search(introduction)

    def agrees(self, claim: _Claim, value: float) -> bool:
        """Whether nothing else in the reply speaks against a claim."""
        blank = " " * (claim.end - claim.start)
        rest = self.line[: claim.start] + blank + self.line[claim.end :]
        return Beside(rest, value, claim.start, claim.end, self.scale).agrees()

    def reason(self, claim: _Claim) -> str | None:
        """The reason: what follows its label, or else what follows the rating."""
        label = REASON_LABEL.search(self.line)
        if label is None:
            found = self.text[claim.end :]
        elif label.start() < claim.start:
            found = self.text[label.end() : claim.start]
        else:
            found = self.text[label.end() :]
        paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", found)]
        while len(paragraphs) > 1 and self._is_over(paragraphs[-1]):
            paragraphs.pop()
        words = " ".join(" ".join(paragraphs).split()).strip("|>").lstrip(".,;:!)]-\u2013\u2014} ")
        words = words.rstrip(" }]|") if label is None or "{" in self.line else words
        return words if re.search(r"\w", words) else None

    def _is_over(self, paragraph: str) -> bool:
        """Whether a last paragraph is small talk, or says the rating once more."""
        again = _NAMES.match(paragraph) or re.match(r"(?:my|final|overall) ", paragraph, re.I)
        return bool(_CHATTER.match(paragraph) or (again and len(paragraph) < 40))
