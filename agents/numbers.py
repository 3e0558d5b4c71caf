"""The words for ratings, reasons and numbers in replies, and the numbers of a scale."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

LABEL = (
    r"rating|verdict|mark|overall(?=[ \t]*[:=])|score"
    r"|(?:arting|rtaing|raitng|ratnig|ratign|ating|rting|raing|ratng|ratig|ratin|rrating|raating"
    r"|ratting|ratiing|ratinng|ratingg|raiting|rateing|r[a-z]ting|ra(?![cfgkpvz])[a-z]ing|rat[a-z]ng"
    r"|rati[a-z]g|ratin[a-z]|csore|socre|scroe|scoer|scor|scre|scoe|scoore|scorre)"
    r"(?=[ \t]*[:=])"
    r"|rate|grade|bewertung|wertung|einstufung|punktzahl|note|\u00e9valuation|evaluation"
    "|calificaci\u00f3n|puntuaci\u00f3n|valoraci\u00f3n|evaluaci\u00f3n|nota|avalia\u00e7\u00e3o"
    "|classifica\u00e7\u00e3o|pontua\u00e7\u00e3o|valutazione|voto|punteggio|beoordeling|cijfer"
    "|ocena|\u043e\u0446\u0435\u043d\u043a\u0430|\u0440\u0435\u0439\u0442\u0438\u043d\u0433"
    "|\u043e\u0446\u0456\u043d\u043a\u0430|hodnocen\u00ed|betyg|vurdering|bed\u00f8mmelse|arvosana"
    "|puan|de\u011ferlendirme|skor|peringkat|penilaian|\u0111\u00e1nh gi\u00e1|\u0111i\u1ec3m"
    "|\u8a55\u4fa1|\u8a55\u70b9|\u70b9\u6570|\u30b9\u30b3\u30a2|\u63a1\u70b9|\u8bc4\u5206"
    "|\u8a55\u5206|\u8bc4\u7ea7|\u5f97\u5206|\u5206\u6570|\u5206\u6578|\u6253\u5206"
    "|\ud3c9\uc810|\ud3c9\uac00|\uc810\uc218|\u0627\u0644\u062a\u0642\u064a\u064a\u0645"
    "|\u062a\u0642\u064a\u064a\u0645|\u0930\u0947\u091f\u093f\u0902\u0917"
    "|\u0e04\u0e30\u0e41\u0e19\u0e19|\u03b2\u03b1\u03b8\u03bc\u03bf\u03bb\u03bf\u03b3\u03af\u03b1"
    "|\u05d3\u05d9\u05e8\u05d5\u05d2"
)
"""The word for a rating in the languages of models, as a regular expression."""

REASON = (
    "reason(?:ing|s)?|reson|reasn|resaon|raeson|rationale|explanation|justification"
    "|comments?|feedback|why|analysis"
    "|begr\u00fcndung|grund|raison|raz\u00f3n|motivo|justificaci\u00f3n|explicaci\u00f3n"
    "|raz\u00e3o|justificativa|motivazione|reden|uzasadnienie|pow\u00f3d|d\u016fvod"
    "|\u043f\u0440\u0438\u0447\u0438\u043d\u0430"
    "|\u043e\u0431\u043e\u0441\u043d\u043e\u0432\u0430\u043d\u0438\u0435"
    "|anledning|motivering|begrundelse|syy|perustelu|neden|gerek\u00e7e|alasan|l\u00fd do"
    "|\u7406\u7531|\u539f\u56e0|\u6839\u62e0|\uc774\uc720|\u0627\u0644\u0633\u0628\u0628"
    "|\u0915\u093e\u0930\u0923|\u0e40\u0e2b\u0e15\u0e38\u0e1c\u0e25"
)
"""The word for a reason, as a regular expression."""

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
KANJI = "\u3007\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341"
_FOREIGN = (
    "eins zwei drei vier fünf sechs sieben acht neun zehn",
    "- deux trois quatre cinq six sept huit neuf dix",
    "uno dos tres cuatro cinco seis siete ocho nueve diez",
    "- due tre quattro cinque sei sette otto nove dieci",
    "um dois três quatro cinco seis sete oito nove dez",
    "één twee drie vier vijf zes zeven acht negen tien",
    "unu doi trei patru cinci șase șapte opt nouă zece",
    "ett två tre fyra fem sex sju åtta nio tio",
    "- - tre fire fem seks syv otte ni ti",
    "yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän kymmenen",
    "egy kettő három négy öt hat hét nyolc kilenc tíz",
    "jeden dwa trzy cztery pięć sześć siedem osiem dziewięć dziesięć",
    "jedna dva tři čtyři pět šest sedm osm devět deset",
    "jedan dva tri četiri pet šest sedam osam devet deset",
    "один два три четыре пять шесть семь восемь девять десять",
    "один два три чотири п'ять шість сім вісім дев'ять десять",
    "едно две три четири пет шест седем осем девет десет",
    "bir iki üç dört beş altı yedi sekiz dokuz -",
    "satu dua tiga empat lima enam tujuh delapan sembilan sepuluh",
    "một hai ba bốn năm sáu bảy tám chín mười",
    "ένα δύο τρία τέσσερα πέντε έξι επτά οκτώ εννέα δέκα",
    "واحد اثنان ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة عشرة",
    "یک دو سه چهار پنج شش هفت هشت - ده",
    "ایک دو تین چار پانچ چھ سات آٹھ نو دس",
    "אחת שתיים שלוש ארבע חמש שש שבע שמונה תשע עשר",
    "एक दो तीन चार पाँच छह सात आठ नौ दस",
    "- - - - पांच छः - - - -",
    "এক দুই তিন চার পাঁচ ছয় সাত আট নয় দশ",
    "หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า สิบ",
    "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열",
    "일 이 삼 사 오 육 칠 팔 구 십",
)
"""One to ten in other languages, but for words that have another use in their place."""
VALUES = {
    **{word: n for words in _FOREIGN for n, word in enumerate(words.split(), 1) if word != "-"},
    **{word: n for n, word in enumerate(WORDS)},
    **{char: n for n, char in enumerate(KANJI)},
}
WORD = "|".join(WORDS)
DIGITS = r"(?:\d{1,9}(?:[.,]\d{1,9})?|\.\d{1,9})"
ANY = rf"(?:[+-]?{DIGITS}|\b(?:{WORD})\b|[{KANJI}])"
TO = (
    r"(?:-|\u2013|\u2014|~|\u301c|\.{2,3}|\u2026|\bto\b|\band\b|\bbis\b|\bou\b|\boder\b|\bor\b"
    r"|\u304b\u3089|\u5230|\u81f3)"
)
BETWEEN = r"[ \t]*(?:\([^()\n]*\))?[ \t]*"
UNIT = (
    r"(?:(?:points?|pts?|punkte?n?|punti|puntos|pontos|punten|poäng|poeng|pkt|puan|điểm|poin"
    r"|pistettä"
    r"|балл\w*|очк\w*)\b\.?|अंक|नंबर|نقاط|نقطة|درجات|নম্বর|คะแนน|점|[点分點](?![满滿満钟鐘]))"
)
"""The word for the points of a rating."""
OF = (
    r"(?:/|\b(?:out of|of|von|sur|sobre|de|di|su|van de|van|ud af|af|av|od|ze?|из|з|trên|dari"
    r"|daripada|din|dintre|na|από)\b|\bمن\b|\bاز\b|\bמתוך\b|จาก)"
    r"(?:[ \t]+(?:a possible|a maximum of|a total of|possible|maximal))?"
)
"""What stands between a rating and the upper end of its scale, as in `5 of 7`."""
FIRST = (
    r"(?:点満点(?:中|で|の(?:うち|中))?[、,]?|分満点(?:中|で)?|[点分]中|段階(?:評価)?(?:中|では?)"
    r"|점[ \t]*만점(?:에서?|[ \t]*중(?:에)?)"
    r"|점[ \t]*중(?:에서?)?|分(?:满分|滿分|制)?(?:里|中|,|，)"
    r"|में[ \t]+से|میں[ \t]+سے|(?:টির|এর)[ \t]+মধ্যে"
    r"|মধ্যে"
    r"|(?:puan[ \t]+)?üzerinden)"
)
"""What stands between the upper end of a scale and a rating on it, as in Japanese and Hindi."""
FLAGS = re.IGNORECASE | re.MULTILINE

REASON_LABEL = re.compile(
    rf"(?:^|(?<=[\s.,;|)\]\u3002]))[ \t]*[\"']?(?:{REASON})[\"']?[ \t]*(?:[=-]*>|[:=\u2192]|-[ \t]"
    rf"|\u2013)[ \t]*",
    FLAGS,
)
SENTENCE = re.compile(r"[\n!\u3002\uff01\uff1f]|[.?;](?=\s)")
ITEM = re.compile(r"[.)][ \t]+[^\W\d]")


@dataclass(frozen=True)
class Numbers:
    """The numbers of one scale, as replies write them.

    Attributes:
        low, high: the ends of the scale.
        integer: whole numbers only; otherwise at most two decimals.
    """

    low: float
    high: float
    integer: bool

    @cached_property
    def span(self) -> re.Pattern[str]:
        """The scale itself where it is mentioned: ``from 1 (bad) to 7``, ``1-7``."""
        low, high = (re.escape(f"{end:g}") + r"(?:\.0+)?" for end in (self.low, self.high))
        return re.compile(
            rf"(?:(?:a |the )?(?:scale|range)[ \t]+(?:of|from)|from|between"
            rf"|von)?[ \t]*(?<![\w.,/-]){low}{BETWEEN}{TO}"
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
        if text.lower() in VALUES:
            return VALUES[text.lower()]
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
