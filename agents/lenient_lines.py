"""Reading choices, lines, titled lines and numbers that are not in the form asked.

As for ratings (see `agents.lenient`): what leaves a doubt is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agents.markup import plain, same_width
from agents.numbers import REASON

_FLAGS = re.IGNORECASE | re.MULTILINE
_MINE = r"(?:(?:my|the|your|final|so,?) )*"
_SAYING = re.compile(
    r"\b(?:says?|said|writes?|wrote|written|demands?|asks?|example|format|template)\b[^.!?\n]*\s*$",
    re.I,
)
_CHANGED = re.compile(
    r"\b(?:actually|second thought|reflection|correction|instead|i meant|or rather|changed my mind"
    r"|no, )",
    re.I,
)
_REFUSED = re.compile(
    r"\b(?:cannot|can['\u2019]t|unable to|won['\u2019]t|refuse to) (?:say|tell|decide|judge|do"
    r"|help|answer|plan)\b",
    re.I,
)
_REASON = re.compile(rf"^[ \t]*(?:{REASON})[ \t]*:[ \t]*", _FLAGS)
_SMALL_TALK = re.compile(
    r"\s*\n\s*\n(?:let me know|i hope|feel free|would you like|is there anything|if"
    r" you)\b[^\n]*\s*$",
    re.I,
)


def choice(text: str, title: str, options: Sequence[str]) -> tuple[str, str | None] | None:
    """Read the one option that is tied to the title, with the reason; None in doubt."""
    said = plain(text, f"{re.escape(title)}|{REASON}")
    if not said:
        return None
    line = same_width(said)
    either = "|".join(map(re.escape, options))
    claims = list(
        re.finditer(
            rf"^[ \t]*{_MINE}{re.escape(title)}[ \t]*(?::|=|is\b)\s*(?P<words>.*)$", line, _FLAGS
        )
    )
    claims = claims or list(re.finditer(r"\A(?P<words>.*)$", line, _FLAGS))
    mentions = list(re.finditer(rf"\b{re.escape(title)}\b[ \t]*:", line, _FLAGS))
    if len(claims) != 1 or len(mentions) > 1 or _SAYING.search(line[: claims[0].start()]):
        return None
    claim = claims[0]
    found = re.match(
        rf"[\"'`(\[]?({either})[\"'`)\]]?[ \t]*(?:$|[.;,!][ \t]*(?=$|because\b|since\b|as\b"
        rf"|{REASON})"
        rf"|[-\u2013\u2014][ \t]+(?=[a-z])|\(|because\b|(?={REASON}\b))",
        claim["words"],
        re.IGNORECASE,
    )
    if found is None:
        return None
    option = next(option for option in options if option.lower() == found[1].lower())
    others = "|".join(re.escape(other) for other in options if other != option)
    rest = line[claim.start("words") + found.end() :]
    label = _REASON.search(line)
    apart = rest if label is None or label.start() < claim.start() else rest.split("\n", 1)[0]
    if (
        _CHANGED.search(rest)
        or _REFUSED.search(line)
        or re.search(rf"\b(?:{others})\b", apart, re.I)
    ):
        return None
    return option, _words_of(said, label, claim, claim.start("words") + found.end())


def _words_of(
    said: str, label: re.Match[str] | None, claim: re.Match[str], after: int
) -> str | None:
    """The words after the label of the reason, or else after the claim."""
    if label is None:
        words = said[after:].lstrip(" ,.;:-\u2013\u2014()")
    else:
        words = said[label.end() : claim.start() if label.start() < claim.start() else None]
    words = " ".join(_SMALL_TALK.sub("", words).split())
    return words or None


def line(text: str) -> str | None:
    """Read one line of prose, also where it is broken; None for lists, scripts and thoughts."""
    said = plain(text, r"(?!)")
    if not said:
        return None
    parts = [part for part in re.split(r"\n\s*\n", _SMALL_TALK.sub("", said)) if part.strip()]
    if len(parts) > 1 and re.search(r":\s*$|\A[\w ]{1,12}!\Z", same_width(parts[0])):
        del parts[0]
    if len(parts) > 1 and text.lstrip().startswith("#"):
        del parts[0]  # a heading
    lines = [line.strip() for part in parts for line in part.split("\n")]
    marked = re.findall(r"^[ \t]*(?:[-*+\u2022]|\d+[.)])[ \t]+\S", text, re.M)
    spoken = [
        line for line in lines if re.match(r"[^\W\d][\w .'-]{0,40}:[ \t]*\S", same_width(line))
    ]
    if len(lines) > 1 and (marked or spoken):
        return None
    return " ".join(lines) or None


def titled(text: str, titles: Sequence[str]) -> tuple[str, ...] | None:
    """Read the words after each title, in the order of the titles; None if one is in doubt."""
    stems = {title.rpartition(" ")[0] for title in titles}
    numbered = [f"{n}" for n in range(1, len(titles) + 1)]
    listed = len(stems) == 1 and [title.rpartition(" ")[2] for title in titles] == numbered
    either = "|".join(re.escape(title) for title in sorted(titles, key=len, reverse=True))
    said = plain(text, either)
    if not said:
        return None
    found = _by_title(said, rf"({either})[ \t]*(?:[:=.]|[-\u2013\u2014](?=[ \t]))", stems)
    if found is None and listed:
        found = _by_item(text, next(iter(stems)))
    words = [(found or {}).get(title.lower(), "") for title in titles]
    return tuple(words) if all(words) and len(found or {}) == len(titles) else None


def _by_title(said: str, title: str, stems: set[str]) -> dict[str, str] | None:
    narrow = same_width(said)
    starts = list(re.finditer(rf"^[ \t]*{title}[ \t]*", narrow, _FLAGS))
    stem = "|".join(re.escape(stem) for stem in stems if stem)
    numbered = re.findall(rf"^[ \t]*(?:{stem}) \d+\b", narrow, _FLAGS) if stem else []
    names = [start[1].lower() for start in starts]
    if not starts or len(set(names)) < len(names) or len(numbered) > len(names):
        return None
    if re.search(title, " ".join(_outside(narrow, starts)), re.IGNORECASE):
        return None
    ends = [*(start.start() for start in starts[1:]), len(said)]
    words = [said[start.end() : end] for start, end in zip(starts, ends, strict=True)]
    return {
        name: " ".join(_SMALL_TALK.sub("", each).split())
        for name, each in zip(names, words, strict=True)
    }


def _outside(text: str, starts: Sequence[re.Match[str]]) -> list[str]:
    """The text without the titles that start lines."""
    ends = [*(start.start() for start in starts[1:]), len(text)]
    return [text[start.end() : end] for start, end in zip(starts, ends, strict=True)]


def _by_item(text: str, stem: str) -> dict[str, str] | None:
    """The items of a numbered list, and nothing beside them."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    items = [re.fullmatch(r"(\d{1,2})[.)][ \t]+(\S.*)", line) for line in lines]
    if not all(items):
        return None
    return {f"{stem} {item[1]}".lower(): item[2] for item in items if item}


_NUMBERS = r"\d{1,3}(?:[ \t]*(?:,|;|&|\u3001|\band\b|,[ \t]*and\b|[ \t])[ \t]*\d{1,3})*"


def numbers(text: str, title: str, count: int) -> tuple[int, ...] | None:
    """Read the numbers after the title, sorted; None in doubt, or for one beyond `count`."""
    said = plain(text, re.escape(title))
    if not said:
        return None
    line = same_width(said)
    claims = re.findall(
        rf"^[ \t]*{_MINE}{re.escape(title)}[ \t]*(?::|=|are\b)\s*(.*)$", line, _FLAGS
    )
    claims = claims or re.findall(r"\A(.*)\Z", line, re.DOTALL)
    if len(claims) != 1 or (
        len(line.splitlines()) > 1 and re.search(r"\d", line.replace(claims[0], "", 1))
    ):
        return None
    words = re.sub(r"\([^()\d]*\)", "", claims[0]).strip().rstrip(".").strip()
    words = words.removeprefix("[").removesuffix("]").strip()
    if re.fullmatch(r"none|", words, re.IGNORECASE) and (words or re.search(r"\[\s*\]", text)):
        return ()
    if not re.fullmatch(_NUMBERS, words, re.IGNORECASE):
        return None
    found = {int(number) for number in re.findall(r"\d+", words)}
    return tuple(sorted(found)) if found <= set(range(1, count + 1)) else None
