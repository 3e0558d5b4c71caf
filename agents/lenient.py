"""Reading a rating that is not in the form asked, as a careful person would.

One principle: exactly one number is tied to the label, and everything else in the reply agrees with
it; otherwise the value is missing. Whatever leaves a doubt (a range, another scale, a quotation, a
refusal, a correction, a second number) makes it missing, since a wrong rating is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from agents.markup import plain, same_width

LABEL = (
    "rating|ratng|raing|ratin|raiting|ratting|ratign|score|rate|grade|bewertung|wertung|einstufung|punktzahl|note|\u00e9valuation|evaluation"
    "|calificaci\u00f3n|puntuaci\u00f3n|valoraci\u00f3n|evaluaci\u00f3n|nota|avalia\u00e7\u00e3o"
    "|classifica\u00e7\u00e3o|pontua\u00e7\u00e3o|valutazione|voto|punteggio|beoordeling|cijfer"
    "|ocena|\u043e\u0446\u0435\u043d\u043a\u0430|\u0440\u0435\u0439\u0442\u0438\u043d\u0433"
    "|\u043e\u0446\u0456\u043d\u043a\u0430|hodnocen\u00ed|betyg|vurdering|bed\u00f8mmelse|arvosana"
    "|puan|de\u011ferlendirme|skor|peringkat|penilaian|\u0111\u00e1nh gi\u00e1|\u0111i\u1ec3m"
    "|\u8a55\u4fa1|\u8a55\u70b9|\u70b9\u6570|\u30b9\u30b3\u30a2|\u63a1\u70b9|\u8bc4\u5206"
    "|\u8a55\u5206|\u8bc4\u7ea7|\u5f97\u5206|\u5206\u6570|\u5206\u6578|\u6253\u5206"
    "|\ud3c9\uc810|\ud3c9\uac00|\uc810\uc218|\u0627\u0644\u062a\u0642\u064a\u064a\u0645"
    "|\u062a\u0642\u064a\u064a\u0645|\u0930\u0947\u091f\u093f\u0902\u0917"
    "|\u0e04\u0e30\u0e41\u0e19\u0e19|\u03b2\u03b1\u03b8\u03bc\u03bf\u03bb\u03bf\u03b3\u03af\u03b1|\u05d3\u05d9\u05e8\u05d5\u05d2"
)
"""The word for a rating in the languages of models, as a regular expression."""

REASON = (
    "reason(?:ing|s)?|reson|reasn|resaon|raeson|rationale|explanation|justification|comments?|feedback|why|analysis"
    "|begr\u00fcndung|grund|raison|raz\u00f3n|motivo|justificaci\u00f3n|explicaci\u00f3n"
    "|raz\u00e3o|justificativa|motivazione|reden|uzasadnienie|pow\u00f3d|d\u016fvod"
    "|\u043f\u0440\u0438\u0447\u0438\u043d\u0430"
    "|\u043e\u0431\u043e\u0441\u043d\u043e\u0432\u0430\u043d\u0438\u0435"
    "|anledning|motivering|begrundelse|syy|perustelu|neden|gerek\u00e7e|alasan|l\u00fd do"
    "|\u7406\u7531|\u539f\u56e0|\u6839\u62e0|\uc774\uc720|\u0627\u0644\u0633\u0628\u0628"
    "|\u0915\u093e\u0930\u0923|\u0e40\u0e2b\u0e15\u0e38\u0e1c\u0e25"
)
"""The word for a reason, as a regular expression."""

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_KANJI = "\u3007\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341"
_FOREIGN = (
    "eins zwei drei vier f\u00fcnf sechs sieben acht neun zehn",
    "- deux trois quatre cinq six sept huit neuf dix",
    "uno dos tres cuatro cinco seis siete ocho nueve diez",
    "- due tre quattro cinque sei sette otto nove dieci",
    "um dois tr\u00eas quatro cinco seis sete oito nove dez",
    "\u00e9\u00e9n twee drie vier vijf zes zeven acht negen tien",
)
"""One to ten in other languages, but for words that are articles too."""
_VALUES = {
    **{word: n for words in _FOREIGN for n, word in enumerate(words.split(), 1) if word != "-"},
    **{word: n for n, word in enumerate(_WORDS)},
    **{char: n for n, char in enumerate(_KANJI)},
}
_WORD = "|".join(_WORDS)
_DIGITS = r"(?:\d{1,9}(?:[.,]\d{1,9})?|\.\d{1,9})"
_ANY = rf"(?:[+-]?{_DIGITS}|\b(?:{_WORD})\b|[{_KANJI}])"
_TO = (
    r"(?:-|\u2013|\u2014|~|\u301c|\.{2,3}|\u2026|\bto\b|\band\b|\bbis\b|\bou\b|\boder\b|\bor\b"
    r"|\u304b\u3089|\u5230|\u81f3)"
)
_BETWEEN = r"[ \t]*(?:\([^()\n]*\))?[ \t]*"
_FLAGS = re.IGNORECASE | re.MULTILINE


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
        inline: it stands alone, without a label.
    """

    value: float | None
    own: bool
    start: int
    end: int


_NAMES = re.compile(rf"(?<![^\W_])(?<!_)(?:{LABEL})(?![^\W\d\u306f]|_)", _FLAGS)
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
    rf"(?P<number>(?:minus )?[+-]?{_DIGITS})|(?P<word>(?:minus )?(?:{'|'.join(_VALUES)}))\b"
    rf"|(?P<kanji>[{_KANJI}])",
    re.I,
)
_PREFIX = re.compile(
    rf"(?:(?:so|thus|therefore|hence|ok|okay|well|now|then|and|here|is|here's|this|in short|my|your"
    rf"|the|our|overall|final|assistant|answer|{LABEL}|meine|ma|mon|mi|la|il|\u79c1\u306e)\b"
    r"|on(?=[ \t]*,)|[,:\u2013\u2014 \t-])*",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[\n!\u3002\uff01\uff1f]|[.?;](?=\s)")
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
    rf"(?: (?:{LABEL}) of)?(?: an?)? (?={_ANY})",
    _FLAGS,
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
    rf"(?P<of>{_ANY})"
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
    rf"|\.(?!\d)|[-\u2013\u2014][ \t]+(?=[^\W\d])|\((?=[^\d)]*\)|[^\W\d]|[ \t]*(?:{_ANY})[ \t]*\))"
    rf"|(?:{_BECAUSE})\b|(?:{REASON})\b"
    r"|\u3067(?:\u3059|\u3057\u305f)|\u3060\u3002|\u3002|\u3001(?!\d)|\u3011|\u300d)",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"[ \t]+[A-Z\u00c0-\u00de][^\W\d]*\s")
_TAIL = re.compile(
    rf"[ \t]*(?:{_TO}|[-/\u00f7+%?x\u00d7\u00b1<>*^]|->|\u2192)[ \t]*[+-]?(?:\d|(?:{_WORD})\b"
    rf"|[{_KANJI}])",
    re.I,
)

_REASON_LABEL = re.compile(
    rf"(?:^|(?<=[\s.,;|)\]\u3002]))[ \t]*[\"']?(?:{REASON})[\"']?[ \t]*(?:[=-]*>|[:=\u2192]|-[ \t]"
    rf"|\u2013)[ \t]*",
    _FLAGS,
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
    r"|against|given|due|scale|i|he|she|they|you|we|my|just|also|feels?|fits|sur|de|weil|denn)\b"
)
_FRACTION = re.compile(
    rf"(?<![\d/.])(?P<number>{_ANY})(?:[ \t]+{_POINTS})?[ \t]*"
    rf"(?:/|out of|von|sur|su|van|\u0438\u0437)"
    rf"[ \t]*(?:a (?:possible|maximum of|total of) )?(?P<of>{_ANY})(?![\d/])"
    rf"(?![ \t]+(?!{_NOT_NOUNS})[a-z])",
    re.I,
)
_USUAL_ENDS = (5, 10, 20, 100)
"""The upper ends of the scales that models know best."""
_SCALE = re.compile(
    rf"\bscale[ \t]+(?:of|from)[ \t]+{_ANY}|(?P<high>{_ANY})[ -]?points?[ -]scale|\bout of ten\b",
    re.I,
)
_LOOSE = re.compile(
    rf"(?<![\w.,/$\u20ac\u00a3\u00a5#:])(?<!\w[-'\u2019])"
    rf"(?P<number>(?:minus )?(?:[+-]?{_DIGITS}|\b(?:{_WORD})\b))",
    re.I,
)
_COUNT = re.compile(
    rf"(?:(?:-|\u2013| to | or | and )(?:\d+|{_WORD}))?"
    rf"(?:[ \t]+(?:(?:more|further|in the) )?(?!{_NOT_NOUNS})[a-z\u00df-\u024f]{{2,}}"
    r"|[ \t]+of[ \t]+(?:the|them|us|those|these|his|her|their|its|my|your|its)\b|-[a-z]|[ \t]*%"
    r"|[a-z\u00b0]|:\d\d\b)"
    rf"|(?:[ \t]+(?:of|out of|in)[ \t]+|/){_ANY}[ \t]+"
    rf"(?:(?!{_NOT_NOUNS})[a-z]|points (?:are|is|were|was)\b)"
    r"|[ \t]+points?[ \t]+(?:less|more|fewer|off|lower|higher|short)\b"
    r"|[\u4eba\u3064\u65e5\u5e74\u56de\u500b\u6b73\u624d\u6708\u6642\u540d\u4ef6\u6b65]",
    re.I,
)
_NUMBERED = re.compile(
    r"\b(?:steps?|points?|parts?|paragraphs?|lines?|questions?|no\.|pages?|options?|items?"
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
    rf"|\b(?:not|neither|nor|rather than|instead of|isn['\u2019]t|no|for|from|to (?:be|get|earn|make it)"
    rf"|(?:worthy|worth) of) (?:an? |the ){_A}|\b(?:rather than|instead of) {_A}",
    re.I,
)
_RANGE = re.compile(
    rf"(?P<between>\bbetween (?:an? )?)?(?<![\w.,/])(?P<low>{_ANY}){_BETWEEN}{_TO}[ \t]*(?:an? )?"
    rf"(?P<high>{_ANY})(?![\w%/])",
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
_ITEM = re.compile(r"[.)][ \t]+[^\W\d]")
_OTHER_LABEL = re.compile(
    rf"(?:^|\n)[ \t]*(?!(?:{REASON})\b)([^\W\d][\w'-]*)[ \t]*[:=][ \t]*$", re.I
)
_ENDS = re.compile(
    r"(?:max|min)(?:imum)?|scale|out[ _]of|high(?:est)?|low(?:est)?|of|total|best", re.I
)
_RESULT = re.compile(
    r".*\b(?:correct\w*|actually|revis\w*|edit|update\w*|overall|final\w*|answer|total|result"
    r"|verdict|thought|conclusion|mean|average|no|wait|sorry|hmm?|well|then|now|better|rather"
    r"|instead|new|second|reconsider\w*|reflection|changed?|or|kidding|joke|honestly|truth"
    r"|really)\b.*",
    re.I,
)

_CHATTER = re.compile(
    r"(?:let me know|i hope|feel free|would you like|is there anything|have a (?:nice|good|great)"
    r"|if you (?:have|need|would))\b",
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
    f"{_DIGIT} {' '.join(_WORDS)} rating ratings score scores rate judge evaluate assess assign"
    " number ignore disregard discard forget retract withdraw scratch change changed changing"
    " mistyped misread random".split()
)
_FOREIGN_DIGIT = re.compile(rf"[^\W\D\x00-\x7f]|[{_KANJI}][\u70b9\u5206]")


def may_differ(reason: str) -> bool:
    """Whether a reason has a number or a word that could speak against the rating before it.

    Every reply in the form asked is put to this question, so it must cost next to nothing.
    """
    if not _HINTS.isdisjoint(reason.translate(_SIMPLE).split()):
        return True
    return not reason.isascii() and _FOREIGN_DIGIT.search(reason) is not None


@lru_cache(maxsize=64)
def reader(low: float, high: float, integer: bool) -> Reader:
    """The reader for a scale; see `Reader`."""
    return Reader(low, high, integer)


@dataclass(frozen=True)
class Reader:
    """Reads ratings on one scale.

    Attributes:
        low, high: the ends of the scale.
        integer: whole numbers only; otherwise at most two decimals.
    """

    low: float
    high: float
    integer: bool

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
        if claim is None or claim.value is None or not said.agrees(claim):
            return None
        if cut:
            return Scored(claim.value, None) if "\n" in said.text[claim.end :] else None
        return Scored(claim.value, said.reason(claim))

    @cached_property
    def span(self) -> re.Pattern[str]:
        """The scale itself where it is mentioned: ``from 1 (bad) to 7``, ``1-7``."""
        low, high = (re.escape(f"{end:g}") + r"(?:\.0+)?" for end in (self.low, self.high))
        return re.compile(
            rf"(?:(?:a |the )?(?:scale|range)[ \t]+(?:of|from)|from|between"
            rf"|von)?[ \t]*(?<![\w.,/-]){low}{_BETWEEN}{_TO}"
            rf"[ \t]*\+?{high}(?![\w/]|[.,]\d)(?:[ \t]*\([^()\n]*\))?",
            re.IGNORECASE,
        )

    def value(self, number: str, comma: bool = False) -> float | None:
        """The value of a number on this scale; None if it is not one of the scale.

        Args:
            number: the number, in digits or words.
            comma: a comma is a decimal point for certain, and separates no list.
        """
        found = self.number(number, comma)
        if found is None or not self.low <= found <= self.high:
            return None
        if self.integer and found != int(found):
            return None
        if round(found, 2) != found:
            return None
        return int(found) if found == int(found) else found

    def number(self, text: str, comma: bool = False) -> float | None:
        """A number in digits, in words or with a decimal comma; None where it is ambiguous."""
        positive = text.lower().removeprefix("minus ")
        if positive != text.lower():
            found = self.number(positive)
            return None if found is None else -found
        if text.lower() in _VALUES:
            return _VALUES[text.lower()]
        if text.startswith("+") and self.low >= 0:
            return None
        whole, found_comma, part = text.partition(",")
        if found_comma:
            listed = (
                not comma
                and not self.integer
                and whole.strip("+-0")
                and self.low <= int(part) <= self.high
            )
            if len(part) > 2 or listed:
                return None
        return float(f"{whole}.{part}" if found_comma else text)


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
                limit = re.search(rf"out of[ \t]+({_ANY})", other[0], re.I)
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
            end = _SENTENCE.search(self.line, verb.end())
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
        if _TAIL.match(rest) or (below and _ITEM.match(rest)):
            return False
        unit = _UNIT.match(rest)
        rest = rest[unit.end() :] if unit else rest
        return bool(_AFTER.match(rest) or _CAPITAL.match(rest))

    def _is_own(self, start: int) -> bool:
        """Whether a label is the rater's own, by what precedes it."""
        if any(first <= start < last for first, last in self.quotes):
            return False
        before = self.line[:start]
        breaks = [found.end() for found in _SENTENCE.finditer(before)]
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

    def agrees(self, claim: _Claim) -> bool:
        """Whether nothing else in the reply speaks against a claim."""
        rest = self.line[: claim.start] + " " * (claim.end - claim.start) + self.line[claim.end :]
        high = self.scale.high
        if _RETRACTED.search(rest) or any(map(self._refuses, _REFUSAL.finditer(rest))):
            return False
        if any(self.scale.number(other["high"] or "0") != high for other in _SCALE.finditer(rest)):
            return False
        for share in _FRACTION.finditer(rest):
            limit, number = self.scale.number(share["of"]), self.scale.number(share["number"])
            if not self._is_share(share) and (limit, number) != (high, claim.value):
                return False
        rest = _FRACTION.sub(lambda share: " " * len(share[0]), rest)
        rest = _RANGE.sub(self._without_weighing(claim), rest)
        return all(self._is_apart(rest, found, claim) for found in _LOOSE.finditer(rest))

    def _without_weighing(self, claim: _Claim) -> Callable[[re.Match[str]], str]:
        """Replaces a range around the claim, such as the rater weighed before."""

        def replaced(found: re.Match[str]) -> str:
            low, high = self.scale.number(found["low"]), self.scale.number(found["high"])
            weighed = found["between"] or found.start() < claim.start
            if not weighed or low is None or high is None or claim.value is None:
                return found[0]
            return " " * len(found[0]) if low <= claim.value <= high else found[0]

        return replaced

    def _refuses(self, refusal: re.Match[str]) -> bool:
        """Whether a refusal is the rater's own, and not what the rated text does."""
        before = _TURN.split(self.line[: refusal.start()])[-1]
        before = _REASON_LABEL.sub("", before)
        if re.search(r"\b(?:some|no)thing (?:that )?i $", before, re.I):
            return False
        return bool(not before.strip() or re.search(r"\b(?:i|we|ai|model)\b", before, re.I))

    def _is_share(self, found: re.Match[str]) -> bool:
        """Whether a fraction is none of a scale, as in `two thirds`, `24/7`, `3 out of 4`."""
        number, limit = self.scale.number(found["number"]), self.scale.number(found["of"])
        if number is None or limit is None or number > limit:
            return True
        return limit not in (self.scale.high, *_USUAL_ENDS)

    def _is_apart(self, rest: str, found: re.Match[str], claim: _Claim) -> bool:
        """Whether a number beside the claim agrees with it, or is no rating given."""
        number = self.scale.number(found["number"])
        start, end = found.span("number")
        if number == claim.value or self._is_count(rest, start, end):
            return True
        if start >= claim.end and not _SENTENCE.search(rest, claim.end, start):
            return False
        before = _TURN.split(rest[max(0, start - _CLAUSE) : start])[-1]
        after = _TURN.split(rest[end : end + _CLAUSE], maxsplit=1)[0]
        if self._is_compared(before, number, claim):
            return True
        beyond = number is not None and not self.scale.low <= number <= self.scale.high
        if beyond and not _RATED.search(before):
            return True
        return bool(_UNREAL.search(before + after) or _TOO.match(after) or _TOLD.search(before))

    def _is_compared(self, before: str, number: float | None, claim: _Claim) -> bool:
        """Whether a number is one that the claim is set against, on the right side of it."""
        if number is None or claim.value is None:
            return False
        for pattern, above in ((_UNDER, False), (_OVER, True)):
            if found := pattern.search(before):
                negated = _NOT.search(before, 0, found.start()) is not None
                return (claim.value > number) == (above != negated)
        return bool(_APART.search(before))

    def _is_count(self, text: str, start: int, end: int) -> bool:
        """Whether a number counts something, or marks an item, and so is no rating."""
        said, after = text[start:end], text[end:]
        number, before = self.scale.number(said), text[max(0, start - 40) : start]
        if other := _OTHER_LABEL.search(before):
            if _ENDS.fullmatch(other[1].replace("_", " ")):
                return number in (self.scale.low, self.scale.high)
            return not _RESULT.fullmatch(other[1])
        if _COUNT.match(after) or (number is not None and number >= 1000):
            return True
        if said.isalpha() and _PRONOUN.search(before):
            return True
        if said.lower() == "one" and _ONE.match(after) and not re.search(r"\ba $", before, re.I):
            return True
        if re.match(rf"[ \t]+{_POINTS}", after, re.I) and _MEASURED.search(before):
            return number != self.scale.high
        if re.search(r"(?:^|\n)[ \t]*$", before):
            return bool(_ITEM.match(after))
        if re.search(r"[.:;,][ \t]*\(?$", before) and re.match(r"\)[ \t]+[^\W\d]", after):
            return True
        return bool(_NUMBERED.search(before) or _NAMED.search(before))

    def reason(self, claim: _Claim) -> str | None:
        """The reason: what follows its label, or else what follows the rating."""
        label = _REASON_LABEL.search(self.line)
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
