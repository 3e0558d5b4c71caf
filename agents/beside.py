"""What stands beside a rating in a reply: whether it agrees with the rating, or leaves a doubt.

A number beside the rating equals it, or counts, names or marks something, or is told of the text,
or depends on a condition, or is compared with the rating on the right side of it. Any other number
speaks against the rating.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agents.numbers import (
    ANY,
    BETWEEN,
    DIGITS,
    ITEM,
    KANJI,
    LABEL,
    REASON,
    REASON_LABEL,
    SENTENCE,
    TO,
    WORD,
    WORDS,
    Numbers,
)

_REFUSAL = re.compile(
    r"(?:can(?:no|'|\u2019)?t|can not|un(?:able|willing)|not able|(?:wo|would)n['\u2019]t|will not"
    r"|refuse|declin\w+|rather not|not going|do not want|don['\u2019]t)"
    r"(?: to)?(?: \w+){0,2} (?:rate|score|judge|evaluate|assess|assign|(?:give|provide|offer)(?:"
    r" \w+){0,2} (?:ratings?|scores?))\b(?!(?: \w+){0,2} (?:higher|lower|more|better|above|below))"
    r"|\bno (?:rating|score)\b|\bn/a\b",
    re.IGNORECASE,
)
_RETRACTED = re.compile(
    r"(?:^|[.;!?\n][ \t]*|\bplease )(?:ignore|disregard|discard|forget)\b"
    r"[^.\n]*\b(?:rating|score|number|above|it|that)\b"
    r"|\b(?:rating|score|number)(?: \w+){0,3} (?:is|was) (?:\w+ ){0,2}"
    r"(?:mistake|typo|error|wrong|invalid|void)\b|\bscratch that\b"
    r"|\bchang\w+ my (?:mind|rating|score)\b|\bi (?:mistyped|misread|retract|withdraw)\b"
    r"|\bi (?:put|picked|chose|took|wrote)\b[^.\n]*\bat random\b",
    re.IGNORECASE,
)
_POINTS = r"(?:points?|pts?\b|stars?|marks?|punkt\w*|puntos|pontos|punti)"
_NOT_NOUNS = (
    rf"(?:{_POINTS}|and|or|to|out|of|is|was|would|instead|because|but|if|for|as|then|now|at|than"
    r"|here|overall|rather|from|actually|maybe|seems?|on|in|so|since|this|that|it|though|too|really"
    r"|perhaps|bis|von|without|with|by|under|after|before|except|when|while|unless|only|otherwise"
    r"|again|more|less|not|no|should|could|might|will|can|has|had|are|were|be|into|per|versus|vs"
    r"|against|given|due|scale|i|he|she|they|you|we|my|just|also|feels?|fits|sur|de|weil|denn|из|и"
    r"|или|но|хотя|oder|und|ou|et|o|y|mas|pero|mais|aber|eller|lub|sau|veya|atau|hoặc|من|أو|या)\b"
)
_FRACTION = re.compile(
    rf"(?<![\d/.])(?P<number>{ANY})(?:[ \t]+{_POINTS})?[ \t]*"
    rf"(?:/|out of|von|sur|su|van|\u0438\u0437)"
    rf"[ \t]*(?:a (?:possible|maximum of|total of) )?(?P<of>{ANY})(?![\d/])"
    rf"(?![ \t]+(?!{_NOT_NOUNS})[a-z])",
    re.I,
)
_USUAL_ENDS = (5, 10, 20, 100)
"""The upper ends of the scales that models know best."""
_SUM = re.compile(
    r"(?<![\w.,/(])\(?\d[\d() \t.]{0,20}[-+*/\u00d7\u00f7\u2212]"
    r"[-+*/\u00d7\u00f7\u2212\d() \t.]{1,60}=[ \t]*\d+(?:\.\d+)?(?![\w/])"
)
_ASPECT = (
    rf"(?P<name>[^\W\d_][\w'&/ -]{{0,30}}?)[ \t]*(?:[:=]|[ \t]|\([ \t]*)[ \t]*{ANY}(?:/\d+)?\)?"
)
_ASPECTS = re.compile(
    rf"(?:^|(?<=[\n.,;:(]))[ \t]*{_ASPECT}(?:[ \t]*(?:[,;.|]|\n"
    rf"|,? and )\s*(?:and )?{_ASPECT.replace('?P<name>', '')})+",
    re.I,
)
"""Two numbers or more that stand with the names of aspects, as in `tone: 6, style: 3`."""
_LOOSE = re.compile(
    rf"(?<![\w.,/$\u20ac\u00a3\u00a5#:])(?<!\w[-'\u2019])"
    rf"(?P<number>(?:minus )?(?:[+-]?{DIGITS}|\b(?:{WORD})\b))",
    re.I,
)
_COUNT = re.compile(
    rf"(?:(?:-|\u2013| to | or | and )(?:\d+|{WORD}))?"
    rf"(?:[ \t]+(?:(?:more|further|in the) )?(?!{_NOT_NOUNS})[^\W\d_\u3040-\uffff]{{2,}}"
    r"|[ \t]+of[ \t]+(?:the|them|us|those|these|his|her|their|its|my|your|its)\b"
    r"|[ \t]+an?[ \t]+(?:day|week|month|year|time|piece|person|head)|-[a-z]|[ \t]*%|[ \t]?\u00b0"
    r"|[a-z\u00b0]|:\d\d\b)"
    rf"|(?:[ \t]+(?:of|out of|in)[ \t]+|/){ANY}[ \t]+"
    rf"(?:(?!{_NOT_NOUNS})[a-z]|points (?:are|is|were|was)\b)"
    r"|[ \t]+points?[ \t]+(?:less|more|fewer|off|lower|higher|short)\b"
    r"|[ \t]?(?![分点點점でだとかまは])[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]",
    re.I,
)
_NUMBERED = re.compile(
    r"\b(?:platform|room|gate|floor|figure|table|level|bus|route|track|exit|day|week|type|phase"
    r"|stage|round|volume|rule|tip|example|steps?|points?|parts?|paragraphs?|lines?|questions?"
    r"|no\.|pages?|options?|items?"
    r"|sentences?|chapters?|sections?|version|since|until|aged?|number)[ \t]*"
    r"(?:\d+(?:,| and| or| to|-|\u2013)[ \t]*)*$",
    re.I,
)
_NAMED = re.compile(r"[a-z,][ \t]+(?!Rating|Score|Final|Overall)[A-Z][a-z]{2,}[ \t]$")
_MEASURED = re.compile(
    r"\b(?:lose|loses|lost|miss|misses|minus|cover|covers|covered|make|makes|made|raise|raises"
    r"|list|lists|has|have|had|includes?|contains?|addresses|first|last|other|the|these|those|all"
    r"|main|key|good|in|of|with)[ \t]+$",
    re.I,
)
"""What comes before points that are no score, as in `makes three points`."""
_PRONOUN = re.compile(
    r"\b(?:the|these|those|all|any|other|others|next|first|last|only|of|in|into|both|no|at|by|each"
    r"|every|this|that|which|another|some)[ \t]+$",
    re.I,
)
"""What comes before a number in words that stands for its noun, as in `the two`."""

_ONE = re.compile(rf"[ \t]+(?!{_POINTS}|out of\b)[a-z]", re.I)
"""What follows `one` where it is a pronoun."""

_A = r"(?:an? |the )?(?:rating of |score of |full |perfect |solid |strong |clear |higher )*$"
_UNDER = re.compile(
    rf"\b(?:(?:less|lower|worse) than|(?:falls?|fell|fall|just|stops?) short of|below|under|not"
    rf" (?:quite|yet|really)|(?:almost|nearly) ?|close to|short of|from reaching|to reach) {_A}",
    re.I,
)
_OVER = re.compile(rf"\b(?:(?:more|higher|better) than|above|over|beyond) {_A}", re.I)
_NOT = re.compile(r"(?:n['\u2019]t|\b(?:no|not|never|hardly|cannot))\b", re.I)
_APART = re.compile(
    rf"(?:n['\u2019]t|\bnot|\bnever) (?:\w+ ){{1,4}}?(?:an? )(?:\w+ )?$"
    r"|\b(?:not|neither|nor|rather than|instead of|isn['\u2019]t|no|for|from"
    r"|to (?:be|get|earn|make it)"
    rf"|(?:worthy|worth) of) (?:an? |the ){_A}|\b(?:rather than|instead of) {_A}",
    re.I,
)
_RANGE = re.compile(
    rf"(?P<between>\bbetween (?:an? )?)?(?<![\w.,/])(?P<low>{ANY}){BETWEEN}{TO}[ \t]*(?:an? )?"
    rf"(?P<high>{ANY})(?![\w%/])",
    re.I,
)
_RATED = re.compile(
    rf"\b(?:i|i'd|my|me|an?|it['\u2019]?s?|should|really|{LABEL})\b|(?:^|[:=])[ \t]*$", re.I
)
_UNREAL = re.compile(
    r"\b(?:if(?! (?:i|you|we|anything|asked|pressed|pushed)\b)|unless|had (?:it|the|there|they|this"
    r"|he|she)|(?:could|might) (?:have|be|reach|become)"
    r"|needs?|requires?|would (?:need|require|take))\b"
    r"|\bwould (?:have been|be|reach|become)\b.*\b(?:with|without|were)\b",
    re.I,
)
_TOO = re.compile(
    r"[ \t]+(?:would be|is|seems|feels) (?:too|reserved|only for|out of reach)\b", re.I
)
_TOLD = re.compile(
    r"\b(?:draft|text|author|writer|user|answer|reply|post|article|question|speaker|response|person"
    r"|he|she|they|it)[ \t]+(?:\w+[ \t]+){0,2}?(?:says?|said|claims?|claimed|asks?|asked|tells?"
    r"|told|calls?|called|demands?|demanded|wants?|wanted|gives?|gave|rates?|rated)\b",
    re.I,
)
_TURN = re.compile(r"[\n!?\u3002]|[.;](?=\s|$)|\b(?:but|so|yet|however|though|and i)\b", re.I)
_CLAUSE = 200
"""Characters to each side of a number in which its clause may begin and end."""
_APART_FROM = re.compile(rf"{SENTENCE.pattern}|{REASON_LABEL.pattern}", re.I | re.M)
_OTHER_LABEL = re.compile(
    rf"(?:^|\n)[ \t]*(?!(?:{REASON})\b)([^\W\d][\w'-]*)[ \t]*[:=][ \t]*$", re.I
)
_ENDS = re.compile(
    r"(?:max|min)(?:imum)?|scale|out[ _]of|high(?:est)?|low(?:est)?|of|total|best", re.I
)
_RESULT = re.compile(
    r".*\b(?:correct(?:ed|ion|ing)?|actually|revis\w*|edit|update\w*|overall|final\w*|answer|total"
    r"|result"
    r"|verdict|thought|conclusion|mean|average|no|wait|sorry|hmm?|well|then|now|better|rather"
    r"|instead|new|second|reconsider\w*|reflection|changed?|or|kidding|joke|honestly|truth"
    r"|really)\b.*",
    re.I,
)
_DIGIT = "0"
_SIMPLE = str.maketrans(
    {
        **{chr(code): " " for code in range(128) if not chr(code).isalnum()},
        **{chr(code): chr(code).lower() for code in range(ord("A"), ord("Z") + 1)},
        **{str(digit): f" {_DIGIT} " for digit in range(10)},
    }
)
_HINTS = frozenset(
    f"{_DIGIT} {' '.join(WORDS)} rating ratings score scores rate judge evaluate assess assign"
    " number ignore disregard discard forget retract withdraw scratch change changed changing"
    " mistyped misread random".split()
)
_FOREIGN_DIGIT = re.compile(rf"[^\W\D\x00-\x7f]|[{KANJI}][\u70b9\u5206]")


def may_differ(reason: str) -> bool:
    """Whether a reason has a number or a word that could speak against the rating before it.

    Every reply in the form asked is put to this question, so it must cost next to nothing.
    """
    if not _HINTS.isdisjoint(reason.translate(_SIMPLE).split()):
        return True
    return not reason.isascii() and _FOREIGN_DIGIT.search(reason) is not None


@dataclass(frozen=True)
class Beside:
    """A reply without its rating.

    Attributes:
        line: the reply with spaces in place of the rating.
        value: the rating.
        start, end: its place.
        scale: its scale.
    """

    line: str
    value: float
    start: int
    end: int
    scale: Numbers

    def agrees(self) -> bool:
        """Whether nothing speaks against the rating."""
        rest = self.line
        high = self.scale.high
        if _RETRACTED.search(rest) or any(map(self._refuses, _REFUSAL.finditer(rest))):
            return False
        rest = _SUM.sub(lambda found: " " * len(found[0]), rest)
        rest = _ASPECTS.sub(self._without_aspects, rest)
        for share in _FRACTION.finditer(rest):
            limit, number = self.scale.number(share["of"]), self.scale.number(share["number"])
            if not self._is_share(share) and (limit, number) != (high, self.value):
                return False
        rest = _FRACTION.sub(lambda share: " " * len(share[0]), rest)
        rest = _RANGE.sub(self._without_weighing, rest)
        return all(self._is_apart(rest, found) for found in _LOOSE.finditer(rest))

    def _without_weighing(self, found: re.Match[str]) -> str:
        """Blanks in place of a range around the rating, such as the rater weighed before it."""
        low, high = self.scale.number(found["low"]), self.scale.number(found["high"])
        weighed = found["between"] or found.start() < self.start
        if not weighed or low is None or high is None or not low <= self.value <= high:
            return found[0]
        return " " * len(found[0])

    def _without_aspects(self, found: re.Match[str]) -> str:
        """Blanks in place of the aspects that an overall rating comes after."""
        names = re.split(rf"[ \t:=(]*{ANY}(?:/\d+)?\)?[ \t,;.|\n]*(?:and )?", found[0], flags=re.I)
        if found.end() > self.start or any(_RESULT.fullmatch(name) for name in names):
            return found[0]
        return "".join(char if char == "\n" else " " for char in found[0])

    def _refuses(self, refusal: re.Match[str]) -> bool:
        """Whether a refusal is the rater's own, and not what the rated text does."""
        before = _TURN.split(self.line[: refusal.start()])[-1]
        before = REASON_LABEL.sub("", before)
        if re.search(r"\b(?:some|no)thing (?:that )?i $", before, re.I):
            return False
        return bool(not before.strip() or re.search(r"\b(?:i|we|ai|model)\b", before, re.I))

    def _is_share(self, found: re.Match[str]) -> bool:
        """Whether a fraction is none of a scale, as in `two thirds`, `24/7`, `3 out of 4`."""
        number, limit = self.scale.number(found["number"]), self.scale.number(found["of"])
        if number is None or limit is None or number > limit:
            return True
        return limit not in (self.scale.high, *_USUAL_ENDS)

    def _is_apart(self, rest: str, found: re.Match[str]) -> bool:
        """Whether a number beside the claim agrees with it, or is no rating given."""
        number = self.scale.number(found["number"])
        start, end = found.span("number")
        if number == self.value or self._is_count(rest, start, end):
            return True
        if start >= self.end and not _APART_FROM.search(rest, self.end, start):
            return False
        before = _TURN.split(rest[max(0, start - _CLAUSE) : start])[-1]
        after = _TURN.split(rest[end : end + _CLAUSE], maxsplit=1)[0]
        if self._is_compared(before, number):
            return True
        beyond = number is not None and not self.scale.low <= number <= self.scale.high
        if beyond and not _RATED.search(before):
            return True
        return bool(_UNREAL.search(before + after) or _TOO.match(after) or _TOLD.search(before))

    def _is_compared(self, before: str, number: float | None) -> bool:
        """Whether a number is one that the claim is set against, on the right side of it."""
        if number is None:
            return False
        for pattern, above in ((_UNDER, False), (_OVER, True)):
            if found := pattern.search(before):
                negated = _NOT.search(before, 0, found.start()) is not None
                return (self.value > number) == (above != negated)
        return bool(_APART.search(before))

    def _is_count(self, text: str, start: int, end: int) -> bool:
        """Whether a number counts something, or marks an item, and so is no rating."""
        said, after = text[start:end], text[end:]
        number, before = self.scale.number(said), text[max(0, start - 40) : start]
        if other := _OTHER_LABEL.search(before):
            if _ENDS.fullmatch(other[1].replace("_", " ")):
                return number in (self.scale.low, self.scale.high)
            return not (_RESULT.fullmatch(other[1]) or re.match(LABEL, other[1], re.I))
        if _COUNT.match(after) or (number is not None and number >= 1000):
            return True
        if said.isalpha() and _PRONOUN.search(before):
            return True
        if said.lower() == "one" and _ONE.match(after) and not re.search(r"\ba $", before, re.I):
            return True
        if re.match(rf"[ \t]+{_POINTS}", after, re.I) and _MEASURED.search(before):
            return number != self.scale.high
        if re.search(r"(?:^|\n)[ \t]*$", before):
            return bool(ITEM.match(after))
        if re.search(r"[.:;,][ \t]*\(?$", before) and re.match(r"\)[ \t]+[^\W\d]", after):
            return True
        return bool(_NUMBERED.search(before) or _NAMED.search(before))
