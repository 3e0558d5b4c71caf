"""Shapes of replies beyond prose and ratings: a choice, a line, titled lines, numbers.

Each is held by a regular expression whose language is finite and short, so that a model that is
constrained to it always comes to an end within `max_tokens`, and each has one parser that takes
what the expression allows and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import NamedTuple

from agents.forms import BLANK, Parsed, Status


def _words(limit: int) -> str:
    """A line of 1 to `limit` characters that does not begin with a blank."""
    return rf"[^{BLANK}][^\r\n]{{0,{limit - 1}}}"


class Chosen(NamedTuple):
    """One of the options of a choice, with its reason (None if it was cut off)."""

    option: str
    reason: str | None


@dataclass(frozen=True)
class Choice:
    """`Title: option`, a line break, `Reason: ...`: the option first, so that it survives a cut."""

    title: str
    options: tuple[str, ...]
    limit: int = 300
    max_tokens: int = 160

    def __post_init__(self) -> None:
        for one, other in permutations(self.options, 2):
            if other.startswith(one):
                raise ValueError(f"{one} begins {other}: where it is cut off nobody can tell")

    @property
    def _first(self) -> str:
        return rf"{self.title}: (?:{'|'.join(map(re.escape, self.options))})"

    @property
    def regex(self) -> str:
        """The title with one of the options, then one line of reason."""
        return rf"{self._first}\nReason: {_words(self.limit)}"

    @cached_property
    def _reply(self) -> re.Pattern[str]:
        return re.compile(rf"({self._first})(?:\r?\nReason:[ \t]*(\S[^\r\n]*))?")

    def parse(self, text: str, cut: bool) -> Parsed[Chosen]:
        """Read a choice and its reason; a cut reply keeps an option that was complete."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        found = self._reply.match(text) if cut else self._reply.fullmatch(text)
        if found is None or (found[2] is None and not cut):
            return Parsed(None, Status.CUT if cut else Status.UNREADABLE)
        option = found[1].removeprefix(f"{self.title}: ")
        if cut:
            return Parsed(Chosen(option, None), Status.CUT)
        return Parsed(Chosen(option, found[2].rstrip()), Status.OK)


@dataclass(frozen=True)
class Line:
    """One line of prose and no more."""

    limit: int = 240

    @property
    def max_tokens(self) -> int:
        """A token a character, which no tokenizer needs for a language it was trained on."""
        return self.limit

    @property
    def regex(self) -> str:
        """A line that does not begin with a blank."""
        return _words(self.limit)

    def parse(self, text: str, cut: bool) -> Parsed[str]:
        """Read the line; one that was cut off is missing."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        if "\n" in text or "\r" in text:
            return Parsed(None, Status.UNREADABLE)
        return Parsed(text, Status.OK)


@dataclass(frozen=True)
class Titled:
    """Lines `Title: words`, one for each title and in their order; the value has the words.

    Attributes:
        fields: each title with the most characters that its words may have.
    """

    fields: tuple[tuple[str, int], ...]

    @property
    def max_tokens(self) -> int:
        """A token a character, as for a `Line`."""
        return sum(len(title) + limit for title, limit in self.fields)

    @property
    def regex(self) -> str:
        """The titles with their words, a line each."""
        return r"\n".join(rf"{title}: {_words(limit)}" for title, limit in self.fields)

    @cached_property
    def _reply(self) -> re.Pattern[str]:
        lines = (rf"{re.escape(title)}:[ \t]*(\S[^\r\n]*)" for title, _ in self.fields)
        return re.compile(r"\s*\n\s*".join(lines))

    def parse(self, text: str, cut: bool) -> Parsed[tuple[str, ...]]:
        """Read all lines; where one is missing there is no value."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        found = self._reply.fullmatch(text)
        if found is None:
            return Parsed(None, Status.UNREADABLE)
        return Parsed(tuple(words.strip() for words in found.groups()), Status.OK)


@dataclass(frozen=True)
class Numbers:
    """`Title: 1, 3` or `Title: none`: some of the numbers from 1 to `count`."""

    title: str
    count: int

    @property
    def max_tokens(self) -> int:
        """Enough for all of them."""
        return len(self.title) + 8 + 4 * self.count

    @property
    def regex(self) -> str:
        """None, or at most as many numbers as there are."""
        one = f"(?:{'|'.join(map(str, range(self.count, 0, -1)))})"
        return rf"{self.title}: (?:none|{one}(?:, {one}){{0,{self.count - 1}}})"

    def parse(self, text: str, cut: bool) -> Parsed[tuple[int, ...]]:
        """Read the numbers, ascending, each once."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        if re.fullmatch(self.regex, text) is None:
            return Parsed(None, Status.UNREADABLE)
        return Parsed(tuple(sorted({int(one) for one in re.findall(r"\d+", text)})), Status.OK)
