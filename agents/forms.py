"""Forms: a prompt template with the shape of its reply, which constrains and parses it.

A form renders into *segments* of literal text and inserted values, so that the journal can store
a question, a draft or a persona once and still restore the exact prompt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from jinja2 import TemplateError

from agents import beside, templates
from agents.scale import Scale
from agents.sentences import whole_sentences
from agents.thoughts import split_thoughts

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Status(StrEnum):
    """The parse status of a reply."""

    OK = "ok"
    LENIENT = "lenient"  # read, but not in the form asked: see `agents.lenient`
    SHORTENED = "shortened"  # truncated prose, kept to its last whole sentence
    CUT = "cut"  # truncated by the token limit
    EMPTY = "empty"  # no text
    UNREADABLE = "unreadable"  # unparseable: not in the form's shape
    FAILED = "failed"  # the backend returned an error


UNPARSED = (Status.UNREADABLE, Status.EMPTY, Status.CUT)
"""The statuses of replies that cannot be used."""

READ = (Status.OK, Status.LENIENT, Status.SHORTENED)
"""The statuses of calls whose reply has a value."""


class Parsed(NamedTuple, Generic[T_co]):
    """A parsed reply; `value` is None where the reply is unusable. No default is filled in."""

    value: T_co | None
    status: Status


class Judgement(NamedTuple):
    """A rating on a scale, with its reason (None if it was truncated)."""

    rating: float
    reason: str | None


class Shape(Protocol[T_co]):
    """The shape of a reply: constraint, maximum length and parser."""

    @property
    def max_tokens(self) -> int | None:
        """Maximum tokens of the reply; None: the limit in the model's settings."""

    @property
    def regex(self) -> str | None:
        """A regular expression for constrained decoding; None for free text."""

    def parse(self, text: str, cut: bool) -> Parsed[T_co]:
        """Parse a reply; `cut` means that it was truncated by the token limit."""


@runtime_checkable
class JsonShape(Shape[Any], Protocol):
    """A shape that a server can also ask for as JSON, for servers that constrain nothing else.

    A shape without these two is not constrained on such a server.
    """

    @property
    def json_schema(self) -> dict[str, Any]:
        """The schema of an object with the parts of the reply, in their order."""

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Write an object as the text that the prompt asks for.

        Raises:
            ValueError: the object does not fit the schema.
        """


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object that has all of these properties and no others.

    It has only keywords that servers with a strict mode accept: no lengths and no patterns.
    """
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def line_of(value: Mapping[str, Any], name: str) -> str:
    """Return a text of an object on one line.

    Raises:
        ValueError: there is no such text.
    """
    text = value.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{name}: found no text")
    return " ".join(text.split())


@dataclass(frozen=True)
class FreeText:
    """A reply in plain prose. A truncated reply has no value, and thoughts are no prose."""

    max_tokens: int | None = None
    regex: None = None

    def shortened(self, text: str) -> Parsed[str]:
        """Read truncated prose up to its last whole sentence; without one it has no value."""
        split = split_thoughts(text)
        said = "" if split.unended else whole_sentences(split.text)
        return Parsed(said, Status.SHORTENED) if said else self.parse(text, cut=True)

    def parse(self, text: str, cut: bool) -> Parsed[str]:
        """Read prose: the text without surrounding white space."""
        text = text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            return Parsed(None, Status.CUT)
        split = split_thoughts(text)
        said = split.text.strip()
        if split.unended or not said:
            return Parsed(None, Status.UNREADABLE)
        return Parsed(said, Status.OK if said == text else Status.LENIENT)


MOST_ENUMERATED = 101
"""The most ratings that a JSON schema lists one by one; a longer scale is a range."""

BLANK = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u3000\ufeff"
"""Characters that a reason must not begin with: control characters and all Unicode spaces."""


@dataclass(frozen=True)
class Rating:
    """`Rating: 5`, a line break, `Reason: ...`: the rating first, in case of truncation.

    A reply in another form is read leniently where it is certain, and a rating that is not certain
    has no value: see `agents.lenient`.

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
            raise ValueError(
                f"a rating scale: found low {self.low:g}, high {self.high:g}; expected low < high"
            )

    @classmethod
    def on(cls, scale: Scale) -> Rating:
        """Create the shape of a rating on a scale."""
        return cls(scale.low, scale.high, scale.integer)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The ratings as text, lowest first; only whole numbers, also on a scale with decimals."""
        return tuple(map(str, range(math.ceil(self.low), math.floor(self.high) + 1)))

    @cached_property
    def _number(self) -> str:
        """A regular expression for a rating; longer numbers first, since 1 is a prefix of 10."""
        whole = [*self.labels, *(["-0"] if self.low < 0 and not self.integer else [])]
        if self.integer and self.low >= 0 and self.high <= 9:
            return f"[{self.low:.0f}-{self.high:.0f}]"
        either = "|".join(sorted(whole, key=lambda number: (-len(number), number)))
        return f"(?:{either})" if self.integer else rf"(?:{self._bounds(whole)})(?:\.\d{{1,2}})?"

    def _bounds(self, whole: Sequence[str]) -> str:
        """Integer parts of a scale with decimals; `parse` rejects values outside its range."""
        outer = {str(math.trunc(self.low)), str(math.trunc(self.high)), *whole}
        if len(outer) > 201:
            return ("-?" if self.low < 0 else "") + r"\d{1,7}"
        return "|".join(sorted(outer, key=lambda number: (-len(number), number)))

    @property
    def regex(self) -> str:
        """A number of the scale, then one line with a reason that does not begin with a space."""
        return rf"Rating: {self._number}\nReason: [^{BLANK}][^\r\n]{{0,600}}"

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """An object with the rating, then the reason."""
        rating: dict[str, Any] = {"type": "integer" if self.integer else "number"}
        if self.integer and len(self.labels) <= MOST_ENUMERATED:
            rating["enum"] = [int(label) for label in self.labels]
        else:
            rating |= {"minimum": self.low, "maximum": self.high}
        return object_schema({"Rating": rating, "Reason": {"type": "string"}})

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Write an object as a rating and its reason; `parse` checks the range."""
        rating = value.get("Rating")
        if isinstance(rating, bool) or not isinstance(rating, int | float):
            raise ValueError("Rating: found no number")
        number = int(rating) if rating == rating // 1 else rating
        return f"Rating: {number}\nReason: {line_of(value, 'Reason')}"

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(rf"Rating: ({self._number})\r?\nReason:[ \t]*(\S[^\r\n]*)")

    @cached_property
    def _start(self) -> re.Pattern[str]:
        reason = r"(?:R|Re|Rea|Reas|Reaso|Reason(?::.*)?)?"  # truncated anywhere
        return re.compile(rf"Rating: ({self._number})(\r?\n{reason})?")

    def parse(self, text: str, cut: bool, constrained: bool = False) -> Parsed[Judgement]:
        """Parse a rating and its reason; a truncated reply keeps a complete rating.

        A reason that contradicts the rating makes it missing, unless decoding was constrained:
        then the form tells which number is the rating.
        """
        reply, text = text, text.strip()
        if not text:
            return Parsed(None, Status.EMPTY)
        if cut:
            start = self._start.fullmatch(text)
            if start is None:
                return self._lenient(reply, cut)
            complete = start[2] is not None or self._is_complete(start[1])
            value = self._value(start[1]) if complete else None
            if start[2] and not constrained and not self._is_agreed(text, start[2]):
                value = None
            return Parsed(None if value is None else Judgement(value, None), Status.CUT)
        whole = self._whole.fullmatch(text)
        value = None if whole is None else self._value(whole[1])
        if whole is None or value is None:
            return self._lenient(reply, cut)
        if not constrained and not self._is_agreed(text, whole[2]):
            return Parsed(None, Status.UNREADABLE)
        return Parsed(Judgement(value, whole[2].rstrip()), Status.OK)

    def _is_agreed(self, text: str, reason: str) -> bool:
        """Whether a careful reader takes the rating at the start of a text as its only one."""
        if not beside.may_differ(reason):
            return True
        return self._read_leniently(text) is not None

    def _lenient(self, reply: str, cut: bool) -> Parsed[Judgement]:
        found = self._read_leniently(reply, cut)
        if found is None:
            return Parsed(None, Status.CUT if cut else Status.UNREADABLE)
        return Parsed(Judgement(*found), Status.LENIENT)

    def _read_leniently(self, reply: str, cut: bool = False) -> tuple[float, str | None] | None:
        from agents import lenient  # here, since its patterns take long to compile

        return lenient.reader(self.low, self.high, self.integer).read(reply, cut)

    def _is_complete(self, number: str) -> bool:
        """Whether a number at the end of a truncated reply is complete: no other starts with it."""
        return self.integer and not any(
            other != number and other.startswith(number) for other in self.labels
        )

    def _value(self, number: str) -> float | None:
        value = float(number)
        if not self.low <= value <= self.high:
            return None
        return int(value) if value == int(value) else value


def parse_reply(
    shape: Shape[T], text: str, cut: bool, constrained: bool = False, shorten: bool = False
) -> Parsed[T]:
    """Parse a reply; after constrained decoding its form alone tells what each part is.

    Args:
        shape: the shape that was asked for.
        text: the reply.
        cut: it was truncated by the token limit.
        constrained: decoding was constrained to the shape.
        shorten: truncated prose is kept to its last whole sentence.
    """
    if cut and shorten and isinstance(shape, FreeText):
        return cast(Parsed[T], shape.shortened(text))
    if constrained and isinstance(shape, Rating):
        return cast(Parsed[T], shape.parse(text, cut, constrained=True))
    return shape.parse(text, cut)


class Prompt(NamedTuple):
    """A rendered form: one system message, and the user message in segments."""

    system: str
    segments: tuple[str, ...]

    @property
    def user(self) -> str:
        """The full user message."""
        return "".join(self.segments)


def clean(text: str) -> str:
    """Replace characters that databases and tokenizers reject: NUL and lone surrogates."""
    text = text.replace(templates.MARK, "\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Form(Generic[T]):
    """A prompt template with the shape of its reply.

    `system` is plain text and the same for every call of the form; `user` is a Jinja template.
    Tags such as ``<answer>`` delimit inserted values. Where a value contains one of the template's
    tags or a control token of chat templates, its first character is replaced, so that a text
    cannot pose as another part of the prompt: see `agents.templates`.

    Attributes:
        name: unique within a world.
        system: the system message.
        user: the template of the user message.
        reply: the shape of the reply.
        example: a value for every name that the template may use, for checking templates.
        bound: the run's policy binds the reply. It does not bind what the users of a model say.

    Raises:
        ValueError: the template cannot be compiled.
    """

    name: str
    system: str
    user: str
    reply: Shape[T] = field(compare=False)
    example: Mapping[str, Any] = field(default_factory=dict, compare=False)
    bound: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        try:
            _ = self._template
        except TemplateError as error:
            raise ValueError(f"form {self.name}: {error}") from None

    @cached_property
    def _template(self) -> Any:
        return templates.compiled(self.user)

    def try_out(self) -> None:
        """Check the template by rendering the example, with and without a memory.

        Raises:
            ValueError: the template cannot be rendered.
        """
        self.render(self.example)
        self.render({**self.example, "past": None})

    def render(self, values: Mapping[str, Any]) -> Prompt:
        """Render the template.

        Raises:
            ValueError: the template uses a name that is not in `values`, or fails otherwise.
        """
        try:
            pieces = templates.pieces(self._template, values)
        except Exception as error:  # templates can raise any exception
            raise ValueError(f"form {self.name}: {error or type(error).__name__}") from None
        tag_start = templates.tags(self.user)
        for place in range(1, len(pieces), 2):
            pieces[place] = templates.defused(pieces[place], tag_start)
        return Prompt(self.system, tuple(piece for piece in pieces if piece))


class CallName(NamedTuple):
    """The unique name of a call within its run; the call's seed is derived from it.

    Attributes:
        round, episode: numbers, from 0.
        form: the name of the prompt form.
        agent: the number of the agent; None for the observer and calls without an agent.
        turn: distinguishes calls of one form by one agent in an episode.
        attempt: number of repetitions after unusable replies.
    """

    round: int
    episode: int
    form: str
    agent: int | None
    turn: int = 0
    attempt: int = 0

    def __str__(self) -> str:
        agent = "-" if self.agent is None else self.agent
        return f"{self.round}/{self.episode}/{self.form}/{agent}/{self.turn}.{self.attempt}"


def prompt_hash(system: str, user: str) -> bytes:
    """Hash a prompt: 16 bytes of BLAKE2b over system message, zero byte and user message."""
    return blake2b(f"{system}\0{user}".encode(), digest_size=16).digest()
