"""Replies without their markup: thoughts, Markdown, JSON, XML and tables become plain lines.

`plain` turns what a model wrapped around its words into lines such as ``Rating: 5``, and keeps the
words. `same_width` gives a copy for matching in which digits, punctuation and spaces of all scripts
are those of ASCII; its places are those of the text.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from agents.drawn import chosen, filled
from agents.numbers import FLAGS, REASON
from agents.thoughts import split_thoughts

LONGEST = 4_000
"""Characters of the longest reply that is read leniently, so that reading takes no time."""

_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROL_TOKEN = re.compile(
    r"\A\s*\[/INST\]|<\|[^|<>]{1,40}\|>|</?s>\s*$|<(?:end|start)_of_turn>\s*$"
)
_STRUCK = re.compile(r"(?<!~)~~(?!~)\S|<(?:s|del|strike)>\S", re.IGNORECASE)
_UNSEEN = dict.fromkeys(
    map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufe0e\ufe0f\ufeff\u20e3\u202a\u202b\u202c\u202d\u202e")
)
"""Characters without width; those that join letters stay."""


_WHOLE = re.compile(r"[\"\u201c]([^\"\u201c\u201d]+)[\"\u201d]|[(\[](\d[\d./ ]*)[)\]]")


def plain(text: str, label: str, signed: bool = False) -> str | None:
    """The lines of a reply without markup; None if nothing can be relied on in it.

    Args:
        text: the reply.
        label: a regular expression for the labels that matter.
        signed: a dash before a number may be its sign, and is never the mark of a list.

    Returns:
        None where thoughts never end, where words are struck out, or for a reply that is longer
        than `LONGEST`.
    """
    if len(text) > LONGEST:
        return None
    split = split_thoughts(text)
    if split.unended:
        return None
    said = _CONTROL_TOKEN.sub("", split.text)
    if _STRUCK.search(said):
        return None
    said = _BREAKS.sub("\n", said).translate(_UNSEEN)
    said = re.sub(rf"\\n(?=\W*(?:{label})\b)", "\n", said, flags=re.I)
    said = chosen(filled(said))
    said = _table_lines(_csv_lines(_json_lines(_without_fences(said)), label), label)
    said = _tag_lines(said, label)
    said = re.sub(r"\n\s*\n", "\n\n", said)
    said = _without_marks(said, label, signed).strip()
    whole = _WHOLE.fullmatch(said)
    return (whole[1] or whole[2]).strip() if whole else said


def _csv_lines(text: str, label: str) -> str:
    """Replace comma-separated values under a row of labels by a line for each of them."""
    lines = text.split("\n")
    known = re.compile(label, re.I)
    for number, line in enumerate(lines[:-1]):
        for mark in (",", ";", "\t"):
            titles = next(csv.reader([line], delimiter=mark), [])
            if len(titles) < 2 or not all(known.fullmatch(title.strip(' "*')) for title in titles):
                continue
            values = next(
                csv.reader(lines[number + 1 :], delimiter=mark, skipinitialspace=True), []
            )
            if len(lines) == number + 2 and len(values) >= len(titles):
                values = [*values[: len(titles) - 1], mark.join(values[len(titles) - 1 :])]
                pairs = zip(titles, values, strict=True)
                return "\n".join([*lines[:number], *(": ".join(pair) for pair in pairs)])
    return text


_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)
_QUOTED_LINES = re.compile(r"(?:[ \t]*(?:>.*)?(?:\n|$))+")


def _without_fences(text: str) -> str:
    """Remove the lines of fences, and the marks of a reply that is wholly a block quotation."""
    text = _FENCE.sub("", text).strip()
    if text.startswith(">") and _QUOTED_LINES.fullmatch(text):
        text = re.sub(r"^[ \t]*>[ \t]?", "", text, flags=re.MULTILINE)
    return text


_OBJECT = re.compile(r"^[ \t]*[\[{]", re.MULTILINE)
_DECODER = json.JSONDecoder(
    object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=str, strict=False
)


def _json_lines(text: str) -> str:
    """Replace JSON that starts a line by a line for each of its values."""
    found = _OBJECT.search(text)
    if found is None:
        return text
    start = found.end() - 1
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return text
    lines = "\n".join(_lines_of(value))
    return f"{text[:start]}{lines}\n{_json_lines(text[end:].lstrip(','))}"


_OF_PARENT = ("value", "number", "points")


def _lines_of(value: Any, key: str = "") -> Iterator[str]:
    """Objects are tuples of pairs, so that a repeated key is seen twice."""
    if isinstance(value, tuple):
        for name, inner in value:
            yield from _lines_of(inner, key if key and name.lower() in _OF_PARENT else name)
    elif isinstance(value, list) and any(isinstance(inner, tuple | list) for inner in value):
        for inner in value:
            yield from _lines_of(inner, key)
    else:
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield f"{key}: {shown}" if key else shown


_TOTAL = (
    r"(?:overall|final|total|my|combined|gesamt|insgesamt|global|totale|general|итого\w*|общая"
    r"|综合|总体|総合)"
)
_SUMMARY = re.compile(rf"\W*{_TOTAL}\W*", re.I)
_RULE = re.compile(r"(?=[^-]*-)[ \t|:-]+")
_NUMERIC = re.compile(r"[\W_]*\d[\d.,/ ]*[\W_]*")


def _table_lines(text: str, label: str) -> str:
    """Replace a table by lines `title: cell`, titles in its first row or its first column."""
    if "|" not in text:
        return text
    known = re.compile(rf"\W*(?:{_TOTAL} )?(?:{label})\W*", re.IGNORECASE)
    given = text.split("\n")
    ruled = {n for n, line in enumerate(given) if "|" in line and _RULE.fullmatch(line)}
    lines: list[str] = []
    rows: list[str] = []
    for number, line in enumerate([*given, ""]):
        inside = "|" in line and (line.strip().startswith("|") or rows or number + 1 in ruled)
        if inside:
            rows.append(line)
            continue
        lines += _rows(rows, known)
        rows = []
        lines.append(line)
    return "\n".join(lines)


def _rows(rows: list[str], known: re.Pattern[str]) -> list[str]:
    cells = [
        [cell.strip() for cell in row.strip().strip("|").split("|")]
        for row in rows
        if not _RULE.fullmatch(row)
    ]
    ruled = len(cells) < len(rows)
    if not cells:
        return []
    upright = any(known.fullmatch(row[0]) or _SUMMARY.fullmatch(row[0]) for row in cells[1:])
    upright = upright and (len(cells[0]) == 2 or not known.fullmatch(cells[0][0]))
    if ruled and not upright and not any(map(_NUMERIC.fullmatch, cells[0])):
        titles = cells[0]
        return [
            f"{title}: {cell}"
            for row in cells[1:]
            for title, cell in zip(titles, row, strict=False)
        ]
    if len(cells[0]) > 2:
        rest = [
            f"{title}: {cell}"
            for row in cells[1:]
            for title, cell in zip(cells[0][2:], row[2:], strict=False)
        ]
        return [": ".join(row[:2]) for row in cells] + rest
    return [": ".join(row) for row in cells]


_KEPT = re.compile(
    r"([:=])[ \t]*(?:[<{\u27e8\u3010\u00ab\u300c]+[ \t]*([+-]?\d[\d.,/]*)[ \t]*"
    r"[>}\u27e9\u3011\u00bb\u300d]+|<([^<>\n]*\s[^<>\n]*)>[ \t]*$)",
    re.MULTILINE,
)
"""What stands in the brackets of a placeholder."""
_TAG = re.compile(r"<(/?)([^\W\d][\w-]*)(?:\s[^<>]*)?/?>")


_ATTRIBUTE = re.compile(r"\s([\w-]+)=[\"']([^\"']*\d[^\"']*)[\"']")


def _tag_lines(text: str, label: str) -> str:
    """Replace the tags of labels by labels, and remove all others."""
    known = re.compile(label, re.IGNORECASE)

    def replaced(tag: re.Match[str]) -> str:
        if not known.fullmatch(tag[2]):
            return "\n" if tag[2].lower() == "br" else ""
        if tag[1]:
            return "\n"
        given = _ATTRIBUTE.findall(tag[0])
        names = (tag[2] if name.lower() in _OF_PARENT else name for name, _ in given)
        lines = [f"{name}: {value}" for name, (_, value) in zip(names, given, strict=True)]
        return "\n".join([*lines, "" if tag[0].endswith("/>") else f"{tag[2]}: "])

    text = _KEPT.sub(lambda kept: f"{kept[1]} {kept[2] or kept[3]}", text)
    text = re.sub(r"(?m)(?<=>)[ \t]*(?=<\w)", "\n", text)  # tags side by side are lines
    return re.sub(r":[ \t]*:", ":", _TAG.sub(replaced, text))


_EMPHASIS = re.compile(
    r"\*\*+|(?<!\d)\*(?=\S)|(?<=[^\s\d])\*|(?<=\d)\*(?![ \t]*\d)|__+(?=\S)|(?<=\S)__+|\b_|_\b"
)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+(.*?)[ \t]*#*$", re.MULTILINE)
_RULER = re.compile(r"^[ \t]*(?:-[ \t]*){3,}$|^[ \t]*(?:\*[ \t]*){3,}$", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*(?:[-*+\u2022\u25cf\u30fb][ \t]+)+", re.MULTILINE)
_SIGNED_BULLET = re.compile(r"^[ \t]*(?:[-*+\u2022\u25cf\u30fb][ \t]+)+(?!\d)", re.MULTILINE)
_ITEM = re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+(?=[^\W\d])", re.MULTILINE)
_CODE_LINE = re.compile(r"^([ \t]*)`([^`\n]+)`([ \t]*)$", re.MULTILINE)
_WRAPPED = re.compile(r"([\"'`$\u201c]|\\boxed\{)([+-]?[\d.,/ ]+)([\"'`$\u201d}])")
_COMMAND = re.compile(r"\\(?:boxed|text|textbf|mathbf|mathrm)\{([^{}\n]*)\}")
_PICTURES = re.compile(
    r"^[ \t]*(?![\u2716-\u2718\u274c])[\u2190-\u2bff\U0001f300-\U0001faff][ \t]+(?=\**[^\W\d])",
    re.MULTILINE,
)
"""A symbol at the start of a line; one that crosses out stays."""
_NUMBERED = re.compile(
    rf"^[ \t]*(?P<one>[^\n:]{{1,20}})[:.)][ \t]*(?P<rating>[^\n]*)\n\s*(?P<two>[^\n:]{{1,20}})"
    rf"[:.)][ \t]*"
    rf"(?P<reason>(?:{REASON})\b)",
    FLAGS,
)


_PERSON = re.compile(r"review|evaluat|rater|judge|answer|person|user|author", re.I)


def _without_numbers(found: re.Match[str]) -> str:
    """Two lines without the words that number them, as in `Line 1: ...`, `Line 2: ...`."""
    numbered = (
        re.sub(r"1st|2nd|\d+|first|second", "", found[name], flags=re.I) for name in ("one", "two")
    )
    if _PERSON.search(found["one"]) or len(set(numbered)) > 1 or found["one"] == found["two"]:
        return found[0]
    return f"{found['rating']}\n{found['reason']}"


_KEY = re.compile(r"([\"'\u201c])([^\W\d]\w*)([\"'\u201d])[ \t]*:")


def _without_marks(text: str, label: str, signed: bool) -> str:
    """Remove emphasis, headings, marks of lists, code marks and quotation marks around a value."""
    text = _PICTURES.sub("", _RULER.sub("", text))
    for _ in range(3):  # commands in commands
        text = _COMMAND.sub(r"\1", text)
    text = re.sub(r"^[ \t]*\$\$?([^$\n]+)\$\$?[ \t]*$", r"\1", text, flags=re.MULTILINE)
    text = _BULLET.sub("", text) if not signed else _SIGNED_BULLET.sub("", text)
    text = _EMPHASIS.sub("", text)
    text = _HEADING.sub(_heading(label), text)
    text = re.sub(
        rf"^[ \t]*[#@*\u2022\u00b7\u25aa\u25ba\u25b6\u2013\u2014+\u00a7-]+[ \t]*(?=(?:{label})\b)",
        "",
        text,
        flags=FLAGS,
    )
    text = _NUMBERED.sub(_without_numbers, text)
    text = re.sub(rf"^[ \t]*[a-z][.)][ \t]+(?=(?:{label})\b)", "", text, flags=FLAGS)
    text = _CODE_LINE.sub(r"\1\2\3", text)
    text = _WRAPPED.sub(r"\2", text)
    text = _unwrapped(text, label)
    text = _KEY.sub(r"\2:", text)
    text = re.sub(r"^[ \t]*\{[ \t]*(?=[^\W\d])", "", text, flags=re.MULTILINE)
    text = re.sub(rf"^[ \t]*[\u3010\[\(]({label})[\u3011\]\)]", r"\1: ", text, flags=re.M | re.I)
    text = re.sub(rf"\[/(?:{label})\]", "", text, flags=re.I)
    return _ITEM.sub("", text)


def _unwrapped(text: str, label: str) -> str:
    """Remove the brackets or quotation marks around each line, where every line has them."""
    wrapped = re.compile(
        rf"[ \t]*(?:\[(?P<a>(?:{label})\b[^\n\[\]]*)\]|\((?P<b>(?:{label})\b[^\n()]*)\)"
        rf"|[\"\u201c](?P<c>(?:{label})\b[^\n\"\u201c\u201d]*)[\"\u201d])[ \t]*,?",
        re.IGNORECASE,
    )
    text = re.sub(rf"\)[ \t]+(?=\((?:{label})\b)", ")\n", text, flags=re.I)
    given = [line for line in text.split("\n") if line.strip()]
    inner = [found[found.lastgroup or 0] for line in given if (found := wrapped.fullmatch(line))]
    return "\n".join(inner) if len(inner) == len(given) else text


def _heading(label: str) -> Callable[[re.Match[str]], str]:
    alone = re.compile(rf"(?:{label})\W*", re.IGNORECASE)
    return lambda heading: f"{heading[1]}:" if alone.fullmatch(heading[1]) else heading[1]


_DASHES = "\u2010\u2011\u2012\u2212\ufe63\uff0d"


def same_width(text: str) -> str:
    """The text with the digits, spaces and punctuation of ASCII, character by character."""
    return text if text.isascii() else "".join(map(_narrow, text))


_MARKS = {"\u060c": ",", "\u061b": ";", "\u061f": "?", "\u0964": ".", "\u06d4": "."}
"""Commas and full stops of Arabic and Indian scripts."""


def _narrow(char: str) -> str:
    if char < "\x80":
        return char
    if char in _DASHES:
        return "-"
    if char in _MARKS:
        return _MARKS[char]
    if "\uff01" <= char <= "\uff5e":
        return chr(ord(char) - 0xFEE0)
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    return " " if category == "Zs" else char
