"""Shapes of replies other than prose and ratings: a choice, a line, titled lines, numbers, sliders.

Each has a regular expression that bounds the length of the reply, so that constrained decoding
always ends within `max_tokens`, and a parser. Replies in another form are read leniently where they
are certain: see `agents.lenient_lines`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any, Literal, NamedTuple, TypeVar

from agents import lenient_lines as lenient
from agents.forms import BLANK, Parsed, Status, line_of, object_schema
from agents.thoughts import split_thoughts

T = TypeVar("T")


def _words(limit: int) -> str:
    """A line of 1 to `limit` characters that does not begin with a space."""
    return rf"[^{BLANK}][^\r\n]{{0,{limit - 1}}}"


def _lenient(value: T | None) -> Parsed[T]:
    return Parsed(value, Status.UNREADABLE if value is None else Status.LENIENT)


class Chosen(NamedTuple):
    """The chosen option, with its reason (None if it was truncated or there is none)."""

    option: str
    reason: str | None


@dataclass(frozen=True)
class Choice:
    """`Title: option`, a line break, `Reason: ...`: the option first, in case of truncation."""

    title: str
    options: tuple[str, ...]
    limit: int = 300
    max_tokens: int = 160

    def __post_init__(self) -> None:
        for option, other in permutations(self.options, 2):
            if other.startswith(option):
                raise ValueError(
                    f"{option} is a prefix of {other}: truncated replies are ambiguous"
                )

    @property
    def _first(self) -> str:
        return rf"{self.title}: (?:{'|'.join(map(re.escape, self.options))})"

    @property
    def regex(self) -> str:
        """The title with one of the options, then one line with a reason."""
        return rf"{self._first}\nReason: {_words(self.limit)}"

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """An object with the option, then the reason."""
        option = {"type": "string", "enum": list(self.options)}
        return object_schema({self.title: option, "Reason": {"type": "string"}})

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Write an object as an option and its reason."""
        return f"{self.title}: {line_of(value, self.title)}\nReason: {line_of(value, 'Reason')}"

    @cached_property
    def _reply(self) -> re.Pattern[str]:
        return re.compile(rf"({self._first})(?:\r?\nReason:[ \t]*(\S[^\r\n]*))?")

    def parse(self, text: str, cut: bool) -> Parsed[Chosen]:
        """Parse a choice and its reason; a truncated reply keeps a complete option."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        found = self._reply.match(text) if cut else self._reply.fullmatch(text)
        if cut and found is None:
            return Parsed(None, Status.CUT)
        if found is None or (found[2] is None and not cut):
            chosen = lenient.choice(text, self.title, self.options)
            return _lenient(None if chosen is None else Chosen(*chosen))
        option = found[1].removeprefix(f"{self.title}: ")
        if cut:
            return Parsed(Chosen(option, None), Status.CUT)
        return Parsed(Chosen(option, found[2].rstrip()), Status.OK)


@dataclass(frozen=True)
class Line:
    """One line of prose."""

    limit: int = 240

    @property
    def max_tokens(self) -> int:
        """One token per character, an upper bound for any tokenizer on its own languages."""
        return self.limit

    @property
    def regex(self) -> str:
        """A line that does not begin with a space."""
        return _words(self.limit)

    @property
    def json_schema(self) -> dict[str, Any]:
        """An object with the line."""
        return object_schema({"line": {"type": "string"}})

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Write an object as its line."""
        return line_of(value, "line")

    def parse(self, text: str, cut: bool) -> Parsed[str]:
        """Parse the line; a truncated line has no value."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        if "\n" in text or "\r" in text or split_thoughts(text).text != text:
            return _lenient(lenient.line(text))
        return Parsed(text, Status.OK)


@dataclass(frozen=True)
class Titled:
    """Lines `Title: words`, one for each title, in order; the value is a tuple of the words.

    Attributes:
        fields: each title with the maximum number of characters of its words.
    """

    fields: tuple[tuple[str, int], ...]

    @property
    def max_tokens(self) -> int:
        """One token per character, as for a `Line`."""
        return sum(len(title) + limit for title, limit in self.fields)

    @property
    def regex(self) -> str:
        """The titles with their words, one line each."""
        return r"\n".join(rf"{title}: {_words(limit)}" for title, limit in self.fields)

    @property
    def json_schema(self) -> dict[str, Any]:
        """An object with the words of each title."""
        return object_schema({title: {"type": "string"} for title, _ in self.fields})

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Write an object as its titled lines."""
        return "\n".join(f"{title}: {line_of(value, title)}" for title, _ in self.fields)

    @cached_property
    def _reply(self) -> re.Pattern[str]:
        lines = (rf"{re.escape(title)}:[ \t]*(\S[^\r\n]*)" for title, _ in self.fields)
        return re.compile(r"\s*\n\s*".join(lines))

    def parse(self, text: str, cut: bool) -> Parsed[tuple[str, ...]]:
        """Parse all lines; the value is None if one is missing."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        found = self._reply.fullmatch(text)
        if found is None:
            return _lenient(lenient.titled(text, [title for title, _ in self.fields]))
        return Parsed(tuple(words.strip() for words in found.groups()), Status.OK)


@dataclass(frozen=True)
class Sliders:
    """Lines `Title: 73` or `Title: n/a`, one for each title, in order: whole numbers on one range.

    The value is a tuple of the numbers; None for n/a.
    """

    titles: tuple[str, ...]
    low: int = 1
    high: int = 100

    @property
    def max_tokens(self) -> int:
        """Enough for all lines, with one token per character."""
        return sum(len(title) + 2 + max(len(str(self.high)), 3) + 1 for title in self.titles)

    @property
    def regex(self) -> str:
        """The titles with a number or n/a, one line each."""
        numbers = "|".join(map(str, range(self.high, self.low - 1, -1)))
        return r"\n".join(rf"{re.escape(title)}: (?:n/a|{numbers})" for title in self.titles)

    @property
    def json_schema(self) -> dict[str, Any]:
        """An object with a number for each title, or null."""
        return object_schema({title: {"type": ["integer", "null"]} for title in self.titles})

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Write an object as its titled lines."""
        given = [value.get(title) for title in self.titles]
        if any(number is not None and type(number) is not int for number in given):
            raise ValueError(f"{self.titles[0]}: found no whole number and no null")
        shown = ("n/a" if number is None else number for number in given)
        return "\n".join(f"{title}: {one}" for title, one in zip(self.titles, shown, strict=True))

    def parse(self, text: str, cut: bool) -> Parsed[tuple[int | None, ...]]:
        """Parse all lines; the value is None if one is missing or out of range."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        exact = re.fullmatch(self.regex, text) is not None
        words = lenient.titled(text, list(self.titles))
        numbers = [] if words is None else [self._number(each) for each in words]
        if not numbers or any(number is False for number in numbers):
            return Parsed(None, Status.UNREADABLE)
        value = tuple(None if number is None else int(number) for number in numbers)
        return Parsed(value, Status.OK if exact else Status.LENIENT)

    def _number(self, words: str) -> int | Literal[False] | None:
        """The number in a line, or one of 100 as in 73/100; None for n/a; False for neither."""
        words = words.strip().lower().rstrip(".")
        if words in ("n/a", "na", "not applicable"):
            return None
        found = re.fullmatch(rf"(\d{{1,4}})(?:\s*/\s*{self.high})?", words)
        number = int(found[1]) if found else self.low - 1
        return number if self.low <= number <= self.high else False


@dataclass(frozen=True)
class Numbers:
    """`Title: 1, 3` or `Title: none`: some of the numbers from 1 to `count`."""

    title: str
    count: int

    @property
    def max_tokens(self) -> int:
        """Enough for all numbers."""
        return len(self.title) + 8 + 4 * self.count

    @property
    def regex(self) -> str:
        """``none``, or up to `count` numbers."""
        number = f"(?:{'|'.join(map(str, range(self.count, 0, -1)))})"
        return rf"{self.title}: (?:none|{number}(?:, {number}){{0,{self.count - 1}}})"

    @property
    def json_schema(self) -> dict[str, Any]:
        """An object with the list of numbers."""
        number = {"type": "integer", "enum": list(range(1, self.count + 1))}
        return object_schema({self.title: {"type": "array", "items": number}})

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Write an object as its numbers, or ``none``."""
        numbers = value.get(self.title)
        if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
            raise ValueError(f"{self.title}: found no list of whole numbers")
        return f"{self.title}: {', '.join(map(str, sorted(set(numbers)))) or 'none'}"

    def parse(self, text: str, cut: bool) -> Parsed[tuple[int, ...]]:
        """Parse the numbers; the value is sorted, without duplicates."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        if re.fullmatch(self.regex, text) is None:
            return _lenient(lenient.numbers(text, self.title, self.count))
        return Parsed(
            tuple(sorted({int(number) for number in re.findall(r"\d+", text)})), Status.OK
        )
