"""What stands beside a rating in a reply, and whether it speaks against the rating.

Most numbers in a reason count, name or measure something, and say nothing about the rating. Another
number speaks against it only where it stands like a rating, with no noun of its own before or after
it (`3 steps`, `page 3`, `x = 3`, `at 3`). One on the scale then counts; one beyond it only if it is
tied to rating by a word in its clause (`I gave it 9`) or by an upper end (`8/10`).
Even so it agrees where it is unreal, told of others, or compared on the right side of it.
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
    UNIT,
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
    r"|\bbut i (?:will not|won['\u2019]t|can(?:not|['\u2019]t))[ \t]*(?:[.!\n]|$)"
    r"|(?:^|[.!?\n])[ \t]*please (?:send|share|paste|provide|give)(?: me)? (?:the|your|an?)"
    r" (?:answer|text|draft|reply|response)\b"
    r"|\bi (?:put|picked|chose|took|wrote)\b[^.\n]*\bat random\b",
    re.IGNORECASE,
)
_POINTS = rf"(?:stars?|marks?|percent|%|{UNIT})"
_NO_NOUN = (
    r"(?:and|or|is|was|would|myself|personally|sein|werden|geben|instead|because|but|if|for|as|then|now|at|than|here|overall|rather"
    r"|from|to|maybe|seems|feels|since|so|though|too|really|perhaps|without|with|when|unless|sorry"
    r"|actually|fits?|suits?|could|may|after|before|by|only|not|no|again|scale|might|will|should"
    r"|on|in(?! \d)|out|it|oder|und|weil|denn|ou"
    r"|et|o|y|e|mas|pero|mais|и|или|но)\b"
)
"""What follows a number that has no noun."""
_BARE = re.compile(
    rf"(?:{BETWEEN}{TO}[ \t]*{ANY})?+[ \t]*(?:{_POINTS})?[ \t]*(?:$|{_NO_NOUN}"
    r"|[^\w\s%\u00b0:=+*/^'\u2019-]|\n|-[ \t]|[だでとかをはが입이을로예])",
    re.I,
)
_FRACTION = re.compile(
    rf"(?<![\d/.])(?P<number>{ANY})(?:[ \t]*{_POINTS})?[ \t]*"
    rf"(?:/|out of|von|sur|su|van|\u0438\u0437)"
    rf"[ \t]*(?:a (?:possible|maximum of|total of) )?(?P<of>{ANY})(?![\d/])"
    rf"(?![ \t]+(?!{_NO_NOUN}|{_POINTS})[a-z])",
    re.I,
)
_USUAL_ENDS = (5, 10, 20, 100)
"""The upper ends of the scales that models know best."""
_LOOSE = re.compile(
    rf"(?<![\w.,/$\u20ac\u00a3\u00a5#:])(?<![^\W\d][-'\u2019])"
    rf"(?P<number>(?:minus )?(?:[+-]?{DIGITS}|\b(?:{WORD})\b))",
    re.I,
)
_GIVEN = (
    rf"(?:(?:{LABEL})s?|rat(?:ed|es|ing)|scor(?:ed|es|ing)|graded|giv(?:e|es|ing)|gave|gets?|got"
    r"|earn(?:s|ed)?|deserv\w+|merits?|worth|award\w*|assign\w*|mak(?:e|es|ing) (?:it|that)"
    r"|final\w*|overall|total|max(?:imum)?|possible"
    r"|verdien\w+|gebe|geben|m\u00e9rite|donne\w*|mettrais|mets|merece|doy|dar\u00eda|dou|daria"
    r"|merita|darei|заслуж\w+|ставлю|поставил\w*|дал\w* бы)"
)
_TURNS = (
    r"(?:call|settl\w+ on|say|said|meant|thought|think|guess|read|see|(?:my|would) answer|settled"
    r"|chang\w+"
    r"|correct(?:ion|ed)|revis\w+"
    r"|edit|down|up|drop\w*|lower\w*|rais\w+|upgrad\w+|downgrad\w+|actually|really|realistically"
    r"|rather|maybe|perhaps|probably|more like|closer|than|least|most|no|not(?! at\b)|wait|sorry"
    r"|that"
    r"|one is|it is|it['\u2019]s|should be|would be|should have|been|balance|reflection|instead"
    r"|go(?:ing)? (?:for|with)"
    r"|eher|eigentlich|vielleicht|lieber|nein|doch|plut\u00f4t|peut-\u00eatre|non|m\u00e1s bien"
    r"|quiz\u00e1s?|mejor|talvez|forse|piuttosto|meglio|скорее|лучше|нет|может быть|это"
    r"|w\u00e4re|ser\u00eda|seria|serait|sarebbe)"
)
_FILL = (
    r"\W+(?:(?:it|this|that|them|as|to|of|at|is|be|have|only|just|about|the|an?|with|on|for|from|me"
    r"|here|now|writ(?:e|ten)|put|pick|say"
    r"|every|one|all|most|least|eine?)\W+)*$"
)
_ARTICLE = r"\b(?:an?|eine|une?|una|uma?) (?:[a-z]+ )?$"
_RATED = re.compile(rf"\b{_GIVEN}{_FILL}|{_ARTICLE}", re.I)
_TIED = re.compile(
    rf"\b{_TURNS}{_FILL}|(?:其实|其實|实际|應該|应该|改为|改成|更正|还是|不对|やはり|やっぱり|実は|実際|本当は|むしろ|訂正|いや"
    r"|사실|실은|정정|아니|차라리)[^\d。]{0,8}$",
    re.I,
)
"""What ties the number after it to rating; the first also a number beyond the scale."""
_ALONE = re.compile(
    r"(?:^|[.:;!?(\u2026])[ \t]*(?:(?!\d)\w+[ \t,]+){0,2}$|,[ \t]*(?:(?:so|then|and|or)[ \t]+)?$"
)
_END = re.compile(rf"[ \t]*(?:{_POINTS})?[ \t]*(?:[.;!?)\n]|$|-[ \t])", re.I)
_START = re.compile(r"[ \t]*(?:(?:so|then|and|or|well|hmm?|ok|no)\b[ \t,]*)*$", re.I)
_LISTED = re.compile(rf"{ANY},?[ \t]*(?:and |or )?$", re.I)
_PERSONAL = re.compile(
    r"\b(?:i|my|me|ich|mein\w*|je|mon|ma|yo|mi|eu|io|я)\b.*\b(?:is|was|says|at|with|to|for|between"
    r"|bei|of"
    r"|ist|es|est|à)\W+$",
    re.I,
)
_TIED_AFTER = re.compile(
    rf"[ \t]*{_POINTS}?[ \t]*(?:(?:is|was|(?:would|might|may|could) be|seems"
    rf"|feels) (?:\w+ )?(?:fair"
    r"|fit|right|better|number|what|appropriate|enough|closer|rating|score)|would do|fits?\b|suits?"
    r"\b|actually|it is\b)",
    re.I,
)
_FROM_ME = re.compile(rf"[ \t]*{_POINTS}?[ \t]*(?:at (?:best|most)|from me|in my \w+)\b", re.I)
_TAKEN = re.compile(
    r"\b(?:off|minus|los[et]s?|losing|deduct\w*|subtract\w*|dock\w*|costs?|miss\w*|remov\w*)"
    r"(?: \w+)? $|\bwhere $|[\u6263\u51cf\u6e1b](?:[\u4e86\u53bb]|\u70b9)?$",
    re.I,
)
"""Points taken off, which agree with any rating, and what was enough."""
_OWN = re.compile(
    r"(?:[=<>+*/\u00d7\u2264\u2265^-]|\b(?:at|by|until|till|in|on|of|with|to|from|before|after|around"
    r"|about|for|than|past|per|under|over|between|and|or|x|um|ab|bis|nach|vor|mit|von|\u00e0|de|du|en"
    r"|avec|las?|los|con|hasta|por|di|da|e|et|und|y|o|\u0432|\u043d\u0430|\u0441|\u0434\u043e"
    r"|steps?|pages?|chapters?|items?|points?|parts?|lines?|questions?|numbers?|no\.?|bus|trams?"
    r"|rooms?|versions?|levels?|grades?|sections?|days?|weeks?|years?|paragraphs?|sentences?"
    r"|platforms?|gates?|figures?|options?|examples?|rules?|tracks?|exits?|floors?|lessons?"
    r"|units?|tasks?|war|returns?|sides?|adds?|planet|why|kids|tables?|cases?|phases?|stages?|tips?|types?|ages?|aged|size|model|python"
    r"|schritte?|seiten?|kapitel|punkte?|zeilen?|frage|\u00e9tapes?|pages|questions|points?|lignes?"
    r"|pasos?|p\u00e1ginas?|preguntas?|puntos?|passos?|perguntas?|passi|passo|\u0448\u0430\u0433\w*"
    r"|\u043f\u0443\u043d\u043a\u0442\w*))[ \t]*$",
    re.I,
)
"""What a number on the scale belongs to that stands before it; any other one counts as tied."""
_ASPECTS = re.compile(
    rf"(?:^|(?<=[\n.:;(]))[ \t]*[^\W\d_]+[ \t]*[:=]?[ \t]*{ANY}[ \t]*(?:,|;|and|,[ \t]*and)[ \t]*"
    rf"[^\W\d_]+[ \t]*[:=]?[ \t]*{ANY}[ \t]*(?=[.,;)\n]|$)",
    re.I,
)
"""Two numbers that stand with the names of aspects, as in `tone: 6, style: 3`."""
_NAME = re.compile(r"(?:^|[\n.,;|])[ \t]*([^\W\d][^\n.,;:=(|\d]*?)[ \t]*(?P<mark>[:=(])[ \t]*$")
_RESULT = re.compile(
    rf".*\b(?:{_GIVEN}|{_TURNS}|{REASON}|result|verdict|conclusion|mean|average|then|now|better|new"
    r"|second|hmm?|well|or|kidding|joke|honestly|truth)\b.*",
    re.I,
)
"""What names no aspect of the rated text."""

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
_RANGE_BEFORE = re.compile(rf"(?<![\w.,/]){ANY}{BETWEEN}{TO}[ \t]*(?:an? )?$", re.I)
_UNREAL = re.compile(
    r"\b(?:if(?! (?:i|you|we|anything|asked|pressed|pushed)\b)|unless|had (?:it|the|there|they|this"
    r"|he|she)|(?:could|might) (?:have|be(?! (?:\w+ )?(?:fair|right|better|fit))|reach|become)"
    r"|needs?|requires?|would (?:need|require|take))\b"
    r"|\bwould (?:have been|be|reach|become)\b.*\b(?:with|without|were)\b",
    re.I,
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
        if _RETRACTED.search(rest) or any(map(self._refuses, _REFUSAL.finditer(rest))):
            return False
        if _ASPECTS.search(rest, self.end):
            return False
        for share in _FRACTION.finditer(rest):
            limit, number = self.scale.number(share["of"]), self.scale.number(share["number"])
            same = (limit, number) == (self.scale.high, self.value)
            if not (same or self._is_share(share) or self._is_named(rest, share.start())):
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
        """Whether a number beside the rating is untied to rating, or agrees with it."""
        number = self.scale.number(found["number"])
        start, end = found.span("number")
        if number == self.value or not _BARE.match(rest, end) or self._is_item(rest, number, end):
            return True
        if self._is_named(rest, start):
            return True
        sentence = REASON_LABEL.sub("\n", rest[max(0, start - _CLAUSE) : start])
        before = _TURN.split(sentence)[-1]
        after = _TURN.split(rest[end : end + _CLAUSE], maxsplit=1)[0]
        if number is not None and number < 0 <= self.scale.low:
            return True
        if _TAKEN.search(before):
            return True
        if start >= self.end and not _APART_FROM.search(rest, self.end, start):
            return False
        beyond = number is not None and not self.scale.low <= number <= self.scale.high
        said_so = _RATED.search(before) or _FROM_ME.match(after)
        if beyond and not said_so and before.strip() + after.strip():
            return True
        if not beyond and not self._is_tied(sentence, found[0], after):
            return True
        if self._is_compared(before, number):
            return True
        return bool(_UNREAL.search(before + after) or _TOLD.search(before))

    def _is_tied(self, sentence: str, said: str, after: str) -> bool:
        """Whether a number that has no noun is tied to rating in its clause."""
        low = _RANGE_BEFORE.search(sentence)
        sentence = re.split(r"[;!?\n]|\.(?=\s)", sentence[: low.start()] if low else sentence)[-1]
        before = _TURN.split(sentence)[-1]
        ends = _END.match(after) is not None
        if said.lower() == "one" and not re.search(r"\ba $", before, re.I):
            return ends and _START.fullmatch(before) is not None
        alone = _START.fullmatch(before) or (ends and _ALONE.search(sentence))
        if alone and not _LISTED.search(before):
            return True
        tied = _RATED.search(before) or _TIED.search(before) or _PERSONAL.search(before)
        if tied or _TIED_AFTER.match(after) or _FROM_ME.match(after):
            return True
        return _OWN.search(before) is None

    def _is_compared(self, before: str, number: float | None) -> bool:
        """Whether a number is one that the claim is set against, on the right side of it."""
        if number is None:
            return False
        for pattern, above in ((_UNDER, False), (_OVER, True)):
            if found := pattern.search(before):
                negated = _NOT.search(before, 0, found.start()) is not None
                return (self.value > number) == (above != negated)
        return bool(_APART.search(before))

    def _is_named(self, text: str, start: int) -> bool:
        """Whether a number stands with the name of an aspect."""
        name = _NAME.search(text, max(0, start - 60), start)
        if name is None or (start >= self.start and (name["mark"] == "(" or name[0][0] in ".,;|")):
            return False
        return _RESULT.fullmatch(name[1]) is None

    def _is_item(self, text: str, number: float | None, end: int) -> bool:
        """Whether a number is one of the marks of a list, as in `1. It is kind. 2. It helps`."""
        if number is None or not ITEM.match(text, end):
            return False
        return any(
            re.search(rf"(?<![\w.,]){number + step:g}[.)][ \t]+[^\W\d]", text) for step in (-1, 1)
        )
