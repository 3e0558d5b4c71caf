"""Whole sentences of a text that was truncated, in any script."""

from __future__ import annotations

import re

_FULL_STOPS = "\u3002\uff01\uff1f\uff61\uff0e"  # of Chinese and Japanese
_ENDS = (
    "!?\u2026\u203c\u203d\u2047-\u2049"  # Latin, Greek, Cyrillic and others, besides the full stop
    "\u0589\u061f\u06d4\u0700-\u0702"  # Armenian, Arabic, Urdu, Syriac
    "\u0964\u0965\u0df4\u104b\u1362\u1367\u1368"  # Indic scripts, Sinhala, Burmese, Ethiopic
    "\u17d4\u17d5\u0f0d\u0f0e\u1803\u1809\u166e\ua4ff"  # Khmer, Tibetan, Mongolian, Cree, Lisu
)
_CLOSING = "\"'\u2019\u201d\u00bb\u203a)\\]}\u300d\u300f\u3011\uff09\u3009\u300b*_"
_END = re.compile(rf"(?:\.+|[{_ENDS}{_FULL_STOPS}])+[{_CLOSING}]*")
_SHORT = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "sr",
        "jr",
        "vs",
        "cf",
        "eg",
        "ie",
        "viz",
        "no",
        "nos",
        "fig",
        "vol",
        "ed",
        "eds",
        "approx",
        "ca",
        "bzw",
        "evtl",
        "ggf",
        "inkl",
        "nr",
        "str",
        "usw",
        "resp",
        "abs",
        "art",
        "av",
        "mme",
        "mlle",
        "sra",
        "srta",
    ]
)
"""Words that a full stop shortens, in some languages; letters alone (e.g., z.B., U.S.) besides."""
_WORD = re.compile(r"[^\s(\[\"'\u201c\u2018\u00ab]*\Z")


def whole_sentences(text: str) -> str:
    """Return a truncated text up to the end of its last whole sentence; empty if it has none.

    A sentence ends at a mark of its script, with the quotes and brackets that close after it. A
    full stop after an abbreviation, an initial or the number of a list, or before a word in lower
    case, ends none; nor does one after a digit at the very end, which may be a decimal point.
    """
    last = 0
    for found in _END.finditer(text):
        if _ends_sentence(text, found):
            last = found.end()
    return text[:last].strip()


def _ends_sentence(text: str, found: re.Match[str]) -> bool:
    after, mark = text[found.end() :], found[0].strip("\"'*_")
    if found[0][0] in _FULL_STOPS or not mark.startswith("."):
        return not after or not after[0].isalnum() or found[0][0] not in "!?"
    if after and not after[0].isspace():
        return False  # 3.5, example.org
    following = after.lstrip()[:1]
    if following.islower():
        return False
    if mark.startswith(".."):
        return True
    before = text[: found.start()]
    word = _WORD.search(before)
    said = "" if word is None else word[0]
    if said.isdigit():
        return bool(following) and not _begins_line(before, said)
    letters = said.replace(".", "").casefold()
    short = letters in _SHORT or all(len(part) == 1 and part.isalpha() for part in said.split("."))
    return bool(letters) and not short


def _begins_line(before: str, word: str) -> bool:
    """Whether a word is the first of its line, such as the number of a list."""
    return not before[: len(before) - len(word)].rpartition("\n")[2].strip()
