"""Reading a rating that is not in the form asked, as a careful person would.

One principle: exactly one number is tied to the label, or plainly is the rating, and everything
else in the reply agrees with it; otherwise the value is missing. Whatever leaves a doubt (a range,
another scale, a quotation, a refusal, a correction, a second number) makes it missing, since a
wrong rating is worse than none.

The order:

1. Markup becomes plain lines (`agents.markup`), what is drawn becomes a number (`agents.drawn`).
2. Mentions of the scale are blanked; another or a turned scale leaves no rating (`agents.legend`).
3. Claims are sought, each kind only where those before it found none: numbers after a label or in
   a sentence that gives a rating; the form asked in any language (`word: 5`, then `word: prose`);
   a number with the upper end (`5 of 7`); a reply that starts with its number (`agents.verdicts`).
4. All claims must be of one value, and one of them the rater's own.
5. Every other number must agree, or be none of a rating (`agents.beside`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from agents import verdicts
from agents.beside import Beside
from agents.legend import is_contradicted, without_scale
from agents.markup import plain, same_width
from agents.numbers import (
    ANY,
    DIGITS,
    FIRST,
    FLAGS,
    ITEM,
    KANJI,
    LABEL,
    OF,
    REASON,
    REASON_LABEL,
    SENTENCE,
    TO,
    UNIT,
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


_NAMES = re.compile(
    rf"(?:(?<![^\W_])(?<!_)|(?<=[の的合总總体體终終]))(?:{LABEL})(?![^\W\d\u306f是为]|_)", FLAGS
)
_SEPARATOR = re.compile(
    r"(?:[ \t]*[(\[][ \t]*[)\]])?(?P<mark>[ \t]*(?:[=-]+>|[:=|]+|\u2192)[ \t]*\n?\s*"
    r"|[ \t]*\n\s*|[ \t]+(?:is|was|of|would be|es|é|è|est|ist|lautet|jest|to|är|er|adalah|là|هو|هي"
    r"|है"
    r"|value)[ \t]*[:=]?[ \t]*(?:an?[ \t]+)?"
    r"|[ \t]*[\u2013\u2014][ \t]*|[ \t]+-[ \t]+|[ \t]*[\u306f是为][ \t]*|[ \t]*\.{4,}[ \t]*"
    r"|[ \t]+)(?P<open>[(\[]?)(?:[\U0001f44d\u2705\u2b50][ \t]*)?",
    re.IGNORECASE,
)
_GIVEN = re.compile(
    r"[ \t]+for (?:this|the|that|your) (?:answer|draft|reply|response|text|comment|post)"
    r"(?=[ \t]*(?:[:=]|is\b))"
    r"|[ \t]+(?:given|assigned|awarded)(?=[ \t]*:)"
    r"|[ \t]+on(?: the| a)?(?: scale)?[ \t]*(?=[ \t]is\b)"
    r"|[ \t]+(?:that )?i (?:would )?(?:give|choose|assign)(?: (?:to )?(?:it|this|that|(?:this|the"
    r"|that|your) (?:answer|draft|reply|response|text|comment|post)))?(?=[ \t]+is\b)",
    re.IGNORECASE,
)
_WORDS = "|".join(sorted(map(re.escape, VALUES), key=len, reverse=True))
_NUMBER = re.compile(
    rf"(?P<number>(?:minus )?[+-]?{DIGITS})|(?P<word>(?:minus )?(?:{_WORDS}))(?![^\W\d_])"
    rf"|(?P<kanji>[{KANJI}])",
    re.I,
)
_PREFIX = re.compile(
    rf"(?:(?:so|thus|therefore|hence|ok|okay|well|now|then|and|here|is|here's|this|in short|my|your"
    rf"|the|our|overall|final|assistant|answer|response|reply|draft|quality|{LABEL}|meine?|ma|mon"
    rf"|mi|la|il|il mio|minha|mijn"
    rf"|min|mitt|moja|moje|моя|мой|моє|benim|제|내|나의|저의|\u79c1\u306e)\b"
    r"|on(?=[ \t]*,)"
    r"|[この本その私当該回答応返投稿文章にへ対する我对對给給这個个该該此案复覆的总總体體综綜合最终終]"
    r"|[,:\u2013\u2014 \t-])*",
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
_OFFERED = re.compile(r"\b(?:example|instance|e\.g|looks? like)\b[^.]*:$", re.I)
"""What introduces an example of a reply, and no rating."""
_STARS = re.compile(r"[ \t]*(?:stars?|points?)\b", re.I)
_UNIT = re.compile(rf"[ \t]*{UNIT}", re.I)
_OF = rf"{OF}[ \t]*(?P<of>{ANY})(?:[ \t]*{UNIT})?"
_DENOMINATOR = re.compile(
    rf"[ \t]*(?:{_OF})(?![^\W\u3040-\uffff]|/|[.,]\d)"
    rf"|[ \t]*\([ \t]*(?:{_OF.replace('<of>', '<of2>')})[ \t]*\)",
    re.I,
)
_FIRST = re.compile(rf"(?P<of>{ANY})[ \t]*{FIRST}[^\d\n\u3002]{{0,8}}?(?={ANY})", re.I)
_WORDED = re.compile(
    r"(?!(?:maybe|perhaps|not?|about|around|almost|between"
    r"|either)\b)(?P<words>[^\W\d_]+(?: [^\W\d_]+){0,2})"
    rf"[ \t]*(?:\(|\[|[-\u2013\u2014][ \t])(?={ANY}[ \t]*(?:[)\]\n]|$|/|out of))",
    re.I,
)
"""A rating in words with its number, as in `Poor (2)`."""
_NOTE = re.compile(r"[ \t]*(?:\(|[-\u2013\u2014,:=][ \t]*)([^\W\d][^\d\n().,;]{0,40})")
_FORM = re.compile(
    r"^[ \t]*(?P<label>[^\W\d_][^\n:=\d]{0,30}?)[ \t]*[:=][ \t]*(?P<number>[^\s:=]"
    r"[^\n:=]{0,20})\n\s*"
    r"(?P<second>[^\W\d_][^\n:=\d]{0,30}?)[ \t]*[:=][ \t]*(?=[^\n]{8})(?!\W*\d)(?P<prose>[^\n]+)",
    re.MULTILINE,
)
"""The form asked in a language whose words are not known."""
_ENGLISH = re.compile(r"\b(?:the|is|are|and|of|it|this|that|not|with|for|answer|i)\b", re.I)
_ASIDE = re.compile(
    r"\($|(?:^|[.!?\n]\s*)(?!for )[^.!?\n,]+,[ \t]*(?:the|my|so|therefore|overall|final| )*$", re.I
)
_ASPECT = re.compile(
    r"to+n[eo]?\b|stil|style|estilo|[ck]lar|accura|preci|relevan|[ck]oher|logi|detal|[ck]reativ"
    r"|fa[ck]t|prec[yi]"
    r"|quest|antal|anzahl|n[uú]m|temperatur|v[âa]rst|seiten|sidor|pregunta|pergunta|frage|întreb"
    r"|вопрос|возраст|стиль|тон\b|質問|问题|질문|"
    r"confi\w+|certe\w+|certi\w+|vertrau\w+|vertrou\w+|sicherheit|zekerheid|säkerhet|pewność"
    r"|уверенност\w*|güven|置信度|信心|確信度?|자신감|확신",
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
    rf"|\.(?!\d)|[-\u2013\u2014][ \t]+(?=[^\W\d])|\((?=[^\d)]*\)|[^\W\d]"
    rf"|[ \t]*(?:{ANY})(?:/{ANY})?[ \t]*\))"
    rf"|(?:{_BECAUSE})\b|(?://?[ \t]+)?(?:{REASON})\b"
    r"|(?:to|for) (?:this|that|your|it|me|now|the (?:answer|draft|reply|response|text|comment"
    r"|post))\b"
    r"|(?:a|à|al|au|para|pour|per|für|voor|till?|för|untuk|за|на|cho|этому|этот"
    r"|эту)[ \t]+(?=[^\W\d])(?!(?:day|week|month|year)\b)"
    r"|(?:geben|vergeben|bewerten|porque|pues|pois|perché|omdat|want|потому|так как|ponieważ|bo"
    r"|çünkü"
    r"|karena|vì|fordi|eftersom|لأن|لأنها|لأنه|زیرا|चूंकि|क्योंकि)(?![^\W\d_])"
    r"|दू|दे|veri|ver[ei]|입니다|이에요|을|를|이|로|주|です|と|を|だ|吧|，"
    r"|(?:is|seems|feels) (?:appropriate|fair|right|fitting|justified|warranted|deserved|suitable"
    r"|reasonable)\b"
    r"|(?:rating|score|grade|mark)\b|=[ \t]*(?=[^\W\d])|เพราะ|দে|ارزیابی"
    r"|(?:from me|out of me|here|in my (?:opinion|view|book))\b"
    r"|\u3067(?:\u3059|\u3057\u305f)|\u3060\u3002|\u3002|\u3001(?!\d)|\u3011|\u300d)",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"[ \t]+[A-Z\u00c0-\u00de][^\W\d]*\s")
_NOUN = re.compile(r"[ \t]*(?:-[a-z]|[^\W\d_]{2})|%")
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
        line = without_scale(narrow, scale)
        self.other_scale = line is None
        self.line = line or ""
        self.quotes = [span.span() for span in _QUOTED.finditer(self.line)]

    def claim(self) -> _Claim | None:
        """The one claim of the reply; None if there is none, or if claims differ."""
        if self.other_scale or len(_NAMES.findall(self.line)) > _MOST_LABELS:
            return None
        claims = [*self._labelled(), *self._sentences()]
        if not claims and (form := self._form()):
            return form
        if not claims and len(verdicts.pairs(self.line)) <= _MOST_LABELS:
            claims = list(self._pairs())
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
                r"[ \t]+on(?:[ \t]+(?:a|the))?(?:[ \t]+scale)?(?: of| from)?[ \t]*(?=:)",
                self.line[place:],
                re.I,
            ):
                place = self.line.index(":", place)
            own = self._is_own(name.start())
            mark = _SEPARATOR.match(self.line, place)
            if mark is None or (mark["mark"].isspace() and not own):
                continue
            if self.scale.low < 0 and mark["mark"].strip() in ("-", "\u2013", "\u2014"):
                continue
            for claim in self._number(name.start(), mark.end(), own, "\n" in mark[0]):
                noted = not own and _ASIDE.search(self.line, 0, name.start())
                if noted:
                    claim = claim._replace(own=True)
                    claim = self._asserted(claim, name.start(), noted[0] != "(")
                yield claim

    def _length(self, pattern: re.Pattern[str], place: int) -> int:
        found = pattern.match(self.line, place)
        return len(found[0]) if found else 0

    def _sentences(self) -> Iterator[_Claim]:
        for start, place, speaks in verdicts.places(self.line):
            for claim in self._number(start, place, True, False):
                rest = self.line[claim.end :]
                if claim.value is None and _NOUN.match(rest) and not _TAIL.match(rest):
                    continue  # it counts something
                yield self._asserted(claim, place, speaks)

    def _pairs(self) -> Iterator[_Claim]:
        for place in verdicts.pairs(self.line):
            for claim in self._number(place, place, True, False):
                yield self._asserted(claim, place, False)

    def _asserted(self, claim: _Claim, place: int, speaks: bool) -> _Claim:
        quoted = any(first <= place < last for first, last in self.quotes)
        if quoted or not verdicts.is_sure(self.line, claim.start, place, claim.end, speaks):
            return claim._replace(value=None, own=False)
        return claim

    def _form(self) -> _Claim | None:
        """The form asked in any language: `word: 5`, then a line `word: prose`, and no other."""
        found = _FORM.search(self.line)
        if (
            found is None
            or _ASPECT.match(found["label"])
            or len(set(_ENGLISH.findall(found["prose"].lower()))) > 1
        ):
            return None
        if re.search(
            r"\w[ \t]*[:=][ \t]*\S", self.line[: found.start()] + self.line[found.end() :]
        ):
            return None
        claim = next(self._number(found.start(), found.start("number"), True, False), None)
        if claim is None or self.line[claim.end : found.end("number")].strip(" .\t"):
            return None
        return claim

    def _bare(self) -> _Claim | None:
        """A reply that starts with its number, as the words before it in the prompt invite."""
        if not re.match(rf"[+-]?\.?\d|(?:{WORD})(?:[.!]\s|\W*$)", self.line, re.I):
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
        worded = _WORDED.match(self.line, place)
        if worded and worded["words"].lower() in VALUES:
            worded = None
        place = worded.end() if worded else place
        before = _FIRST.match(self.line, place)
        place = before.end() if before else place
        found = _NUMBER.match(self.line, place)
        if found is None:
            return
        of = before["of"] if before else None
        english = re.match(r"(?:rat|score|grade|evaluation|i\b|[\d+.-])", self.line[start:], re.I)
        value, end = self.scale.value(found[0], not english), found.end()
        if found["word"] and not re.match(
            rf"[ \t]*(?:$|\n|[.,;)|]|\(|from me\b|for me\b|(?:{UNIT}[ \t]*)?{OF})",
            self.line[end:],
            re.I,
        ):
            return
        if self._is_contradicted(value, worded.start() if worded else place, place, end):
            value = None
        unit = _UNIT.match(self.line, end)
        end = unit.end() if unit else end
        limit = _DENOMINATOR.match(self.line, end)
        if limit is not None:
            end = limit.end()
            end += self._length(_STARS, end)
            of = limit["of"] or limit["of2"]
        if of is not None and self.scale.number(of) != self.scale.high:
            value = None
        if re.match(r"[ \t]*%", self.line[end:]) and (self.scale.low, self.scale.high) == (0, 100):
            end = self.line.index("%", end) + 1
        yield _Claim(value if self._ends_well(end, below and of is None) else None, own, start, end)

    def _is_contradicted(self, value: float | None, start: int, place: int, end: int) -> bool:
        """Whether a word beside a number names the other end of the scale, as in `7 (worst)`."""
        note = _NOTE.match(self.line, end)
        words = self.line[start:place].strip(" \t([-\u2013\u2014")
        return value is not None and any(
            is_contradicted(value, each, self.scale) for each in (note[1] if note else "", words)
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
        if _OFFERED.search(introduction):
            return False
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
