"""Forms: a prompt template, the shape of its reply, and the one parser of that shape.

A form renders into *segments*: literal text and inserted values alternate, so that the journal can
store a question, a draft or a persona once and still show the exact prompt again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

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
"""Statuses of replies that cannot be used."""


class Parsed(NamedTuple, Generic[T_co]):
    """A parsed reply: `value` is None where the model did not say it. Nothing is filled in."""

    value: T_co | None
    status: Status


class Judgement(NamedTuple):
    """A rating on a closed integer scale, with its reason (None if it was cut off)."""

    rating: int
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
    """`Rating: 5`, a line break, `Reason: ...`: the rating first, so that it survives a cut.

    The parser takes exactly what the regular expression allows and no more: "6/7", "6.5", a number
    in the middle of a sentence or a refusal are unreadable, and an unreadable rating has no value.
    """

    low: int = 1
    high: int = 7
    max_tokens: int = 160

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 9:
            raise ValueError(
                f"a rating scale needs 0 <= low < high <= 9, not {self.low}-{self.high}"
            )

    @property
    def regex(self) -> str:
        """One digit of the scale, then one line of reason that does not begin with a blank."""
        return rf"Rating: [{self.low}-{self.high}]\nReason: [^{BLANK}][^\r\n]{{0,600}}"

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(rf"Rating: ([{self.low}-{self.high}])\r?\nReason:[ \t]*(\S[^\r\n]*)")

    @cached_property
    def _start(self) -> re.Pattern[str]:
        reason = r"(?:R|Re|Rea|Reas|Reaso|Reason(?::.*)?)?"  # broken off anywhere
        return re.compile(rf"Rating: ([{self.low}-{self.high}])(?:\r?\n{reason})?")

    def parse(self, text: str, cut: bool) -> Parsed[Judgement]:
        """Read a rating and its reason; a cut reply keeps a rating that was complete."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            start = self._start.fullmatch(text)
            value = Judgement(int(start[1]), None) if start else None
            return Parsed(value, Status.CUT)
        whole = self._whole.fullmatch(text)
        if whole is None:
            return Parsed(None, Status.UNREADABLE)
        return Parsed(Judgement(int(whole[1]), whole[2].rstrip()), Status.OK)


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
