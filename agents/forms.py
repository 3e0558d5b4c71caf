"""Forms: a prompt template, the shape of its reply, and the one parser of that shape.

A form renders into *segments*: literal text and inserted values alternate, so that the journal can
store a question, a draft or a persona once and still show the exact prompt again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from agents.scale import Scale

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MARK = "\x00"
"""Separates segments while a template is rendered. It cannot occur in a text: see `clean`."""


class Status(StrEnum):
    """What became of a reply."""

    OK = "ok"
    CUT = "cut"  # stopped by the token limit
    EMPTY = "empty"  # no text at all
    UNREADABLE = "unreadable"  # text that does not have the form's shape
    FAILED = "failed"  # the backend gave an error instead of a reply


UNPARSED = (Status.UNREADABLE, Status.EMPTY, Status.CUT)
"""The statuses of replies that cannot be used."""


class Parsed(NamedTuple, Generic[T_co]):
    """A parsed reply: `value` is None where the model did not say it. Nothing is filled in."""

    value: T_co | None
    status: Status


class Judgement(NamedTuple):
    """A rating on a scale, with its reason (None if it was truncated)."""

    rating: float
    reason: str | None


class Shape(Protocol[T_co]):
    """The shape of a reply: how it is constrained, how long it may be, how it is read."""

    @property
    def max_tokens(self) -> int | None:
        """Upper bound on the reply's tokens; None leaves it to the model's settings."""

    @property
    def regex(self) -> str | None:
        """A regular expression that constrained decoding holds the reply to; None for free text."""

    def parse(self, text: str, cut: bool) -> Parsed[T_co]:
        """Read a reply. `cut` says that the token limit ended it."""


@dataclass(frozen=True)
class FreeText:
    """A reply in plain prose. A reply that was cut off is missing, not a shorter reply."""

    max_tokens: int | None = None
    regex: None = None

    def parse(self, text: str, cut: bool) -> Parsed[str]:
        """Read prose: the text without surrounding white space."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        return Parsed(None, Status.CUT) if cut else Parsed(text, Status.OK)


BLANK = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u3000\ufeff"
"""What no reason may begin with: control characters, and every space that Unicode has."""


@dataclass(frozen=True)
class Rating:
    """`Rating: 5`, a line break, `Reason: ...`: the rating first, so that it survives truncation.

    The parser takes exactly what the regular expression allows and no more: "6/7", "6.5" on a scale
    of whole numbers, a number in the middle of a sentence or a refusal are unparseable, and an
    unparseable rating has no value.

    Attributes:
        low, high: the ends of the scale.
        integer: whole numbers only; otherwise at most two decimals.
    """

    low: float = 1
    high: float = 7
    integer: bool = True
    max_tokens: int = 160

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a rating scale needs low < high, not {self.low:g} and {self.high:g}")

    @classmethod
    def on(cls, scale: Scale) -> Rating:
        """The shape of a rating on a scale."""
        return cls(scale.low, scale.high, scale.integer)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The ratings as text, lowest first; of a scale with decimals the whole numbers in it."""
        return tuple(map(str, range(math.ceil(self.low), math.floor(self.high) + 1)))

    @cached_property
    def _number(self) -> str:
        """A regular expression for a rating; longer numbers first, since 1 also begins 10."""
        whole = [*self.labels, *(["-0"] if self.low < 0 and not self.integer else [])]
        if self.integer and self.low >= 0 and self.high <= 9:
            return f"[{self.low:.0f}-{self.high:.0f}]"
        either = "|".join(sorted(whole, key=lambda one: (-len(one), one)))
        return f"(?:{either})" if self.integer else rf"(?:{self._bounds(whole)})(?:\.\d{{1,2}})?"

    def _bounds(self, whole: Sequence[str]) -> str:
        """Integer parts of a scale with decimals; what lies beyond its ends is left to `parse`."""
        outer = {str(math.trunc(self.low)), str(math.trunc(self.high)), *whole}
        if len(outer) > 201:
            return ("-?" if self.low < 0 else "") + r"\d{1,7}"
        return "|".join(sorted(outer, key=lambda one: (-len(one), one)))

    @property
    def regex(self) -> str:
        """A number of the scale, then one line of reason that does not begin with a blank."""
        return rf"Rating: {self._number}\nReason: [^{BLANK}][^\r\n]{{0,600}}"

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(rf"Rating: ({self._number})\r?\nReason:[ \t]*(\S[^\r\n]*)")

    @cached_property
    def _start(self) -> re.Pattern[str]:
        reason = r"(?:R|Re|Rea|Reas|Reaso|Reason(?::.*)?)?"  # truncated anywhere
        return re.compile(rf"Rating: ({self._number})(\r?\n{reason})?")

    def parse(self, text: str, cut: bool) -> Parsed[Judgement]:
        """Read a rating and its reason; a truncated reply keeps a rating that was complete."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            start = self._start.fullmatch(text)
            complete = start is not None and (start[2] is not None or self._ends(start[1]))
            value = self._value(start[1]) if start is not None and complete else None
            return Parsed(None if value is None else Judgement(value, None), Status.CUT)
        whole = self._whole.fullmatch(text)
        value = None if whole is None else self._value(whole[1])
        if whole is None or value is None:
            return Parsed(None, Status.UNREADABLE)
        return Parsed(Judgement(value, whole[2].rstrip()), Status.OK)

    def _ends(self, number: str) -> bool:
        """Whether a number is complete where a reply is truncated: no other one begins with it."""
        return self.integer and not any(
            other != number and other.startswith(number) for other in self.labels
        )

    def _value(self, number: str) -> float | None:
        value = float(number)
        if not self.low <= value <= self.high:
            return None
        return int(value) if value == int(value) else value


class Prompt(NamedTuple):
    """A rendered form: one system message, and the user message in segments."""

    system: str
    segments: tuple[str, ...]

    @property
    def user(self) -> str:
        """The user message as the model gets it."""
        return "".join(self.segments)


def clean(text: str) -> str:
    """Replace what no database and no tokenizer can hold: NUL and lone surrogates."""
    text = text.replace(MARK, "\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


_TAG = re.compile(r"<(\w+)>")
_ENVIRONMENT = SandboxedEnvironment(
    undefined=StrictUndefined,
    autoescape=False,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: f"{MARK}{value}{MARK}",
)

_ENVIRONMENT.filters.pop("random")  # a prompt follows from its values alone


@dataclass(frozen=True)
class Form(Generic[T]):
    """A prompt template with the shape of its reply.

    `system` is plain text and the same for every call of the form; `user` is a Jinja template.
    Tags such as ``<answer>`` fence what is inserted: a value that itself contains one of the
    template's tags has it defused, so that a text cannot pose as another part of the prompt.
    `example` holds a value for every name that the template may use, to try other wordings out.

    Raises:
        ValueError: the template cannot be compiled.
    """

    name: str
    system: str
    user: str
    reply: Shape[T] = field(compare=False)
    example: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        try:
            _ = self._template
        except TemplateError as error:
            raise ValueError(f"form {self.name}: {error}") from None

    @cached_property
    def _template(self) -> Any:
        return _ENVIRONMENT.from_string(self.user)

    @cached_property
    def _fence(self) -> re.Pattern[str]:
        names = "|".join(sorted(set(_TAG.findall(self.user)))) or r"(?!)"
        return re.compile(rf"<(?=\s*/?\s*(?:{names})\b)", re.IGNORECASE)

    def try_out(self) -> None:
        """Render the example, with a memory and without.

        Raises:
            ValueError: the template fails.
        """
        self.render(self.example)
        self.render({**self.example, "past": None})

    def render(self, values: Mapping[str, Any]) -> Prompt:
        """Fill the template in.

        Raises:
            ValueError: the template uses a name that `values` lacks, or fails in another way.
        """
        try:
            template = self._template
            context = template.new_context(dict(values), shared=True)  # no globals to copy
            pieces = "".join(template.root_render_func(context)).split(MARK)
        except Exception as error:  # a template can raise what it likes
            raise ValueError(f"form {self.name}: {error or type(error).__name__}") from None
        for place in range(1, len(pieces), 2):
            if "<" in pieces[place]:
                pieces[place] = self._fence.sub("\u2039", pieces[place])
        return Prompt(self.system, tuple(piece for piece in pieces if piece))


class CallName(NamedTuple):
    """The unique name of a call within its run; the call's seed is derived from it.

    Attributes:
        round, episode: numbers, from 0.
        form: the name of the prompt form.
        agent: the number of the agent; None for an observer.
        turn: distinguishes calls of one form by one agent in an episode.
        attempt: how often the call was repeated because a reply could not be used.
    """

    round: int
    episode: int
    form: str
    agent: int | None
    turn: int = 0
    attempt: int = 0

    def __str__(self) -> str:
        who = "-" if self.agent is None else self.agent
        return f"{self.round}/{self.episode}/{self.form}/{who}/{self.turn}.{self.attempt}"


def prompt_hash(system: str, user: str) -> bytes:
    """Hash a prompt: 16 bytes of BLAKE2b over system message, zero byte and user message."""
    return blake2b(f"{system}\0{user}".encode(), digest_size=16).digest()
