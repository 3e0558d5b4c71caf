"""Wordings of rating prompts that ask for another range than that of their scale."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agents.markup import same_width

_WORDS = {
    word: number
    for number, word in enumerate(
        (
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        )
    )
} | {"twenty": 20, "hundred": 100, "a hundred": 100, "one hundred": 100}  # fmt: skip
_N = rf"(?:[+-]?\d+(?:\.\d+)?|{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?!\d|[.,]\d)"
_TO = (
    r"(?:-|\u2013|\u2014|\u2026|\.{2,3}|~|\u301c|\uff5e|\bto\b|\band\b|\bthrough\b|\bthru\b|\bbis\b"
    r"|\bund\b|\bjusqu'\u00e0\b|\b\u00e0\b|\ba\b|\bhasta\b|\bal?\b|\u304b\u3089|\u5230|\u81f3)"
)
_ENDS = r"[ \t]*(?:\([^()]*\)|\[[^\[\]]*\])?,?\s*"
_RANGE = re.compile(
    rf"(?<![a-z\d.,])(?P<low>{_N}){_ENDS}{_TO}\s*(?P<high>{_N})(?P<after>\s*[\w-]*)", re.I
)
_HIGH = re.compile(
    rf"\bout of (?P<a>{_N})|\bscale of (?P<b>{_N})(?!{_ENDS}{_TO})|\b(?P<c>{_N})[ -]points? scale"
    rf"|(?P<d>\d+)\s*\u70b9\u6e80\u70b9|\u6ee1\u5206\s*(?P<e>\d+)|\bvon (?P<f>\d+) punkten"
    r"|\b(?:rating|score)\b[^\n]{0,20}?/(?P<g>\d+)\b",
    re.IGNORECASE,
)
_ABOUT_RATING = re.compile(
    r"rat(?:e|ing)|scale|scor|number|point|between|grade|mark|bewert|skala|note|zahl|\u00e9chelle"
    r"|escala"
    r"|puntu|scala|valut|\u8a55\u4fa1|\u70b9|\u6570\u5b57|\u6570\u3067|\u30b9\u30b3\u30a2"
    r"|\u5c3a\u5ea6"
    r"|\u6bb5\u968e|\u8bc4|\u8a55\u5206|\u5206\u6570|\ud3c9\uac00|\uc810",
    re.IGNORECASE,
)
_ABOUT_LENGTH = re.compile(
    r"[\s-]*(?:words?|sentences?|lines?|characters?|paragraphs?|tokens?|items?|minutes?|people"
    r"|years?)",
    re.IGNORECASE,
)


def other_range(text: str, low: float, high: float) -> str | None:
    """The first range in a wording that is not from `low` to `high`, as it is said there.

    Ranges in digits and in words, in several languages, as ``from 1 to 10``, and upper ends such as
    ``out of 10``. The lengths of replies are no ranges.
    """
    return next(_others(same_width(text), low, high), None)


def _others(text: str, low: float, high: float) -> Iterator[str]:
    for found in _RANGE.finditer(text):
        ends = _number(found["low"]), _number(found["high"])
        around = text[max(0, found.start() - 60) : found.end() + 20]
        about = _ABOUT_RATING.search(around) and not _ABOUT_LENGTH.match(found["after"])
        if about and ends[0] < ends[1] and ends != (low, high):
            yield f"from {found['low']} to {found['high']}"
    for found in _HIGH.finditer(text):
        number = next(each for each in found.groups() if each is not None)
        if _number(number) != high and not _ABOUT_LENGTH.match(text, found.end()):
            yield found[0].strip()


def _number(text: str) -> float:
    word = text.lower()
    return _WORDS[word] if word in _WORDS else float(text)
