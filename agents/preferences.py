"""What a person wants of a model's answers, and who the person is: tier 3 of a policy.

The fields of both follow the survey of PRISM (Kirk et al., arXiv 2404.16019), so that its people
can be read as personas; `politics`, `tone`, `length`, `expertise` and `wishes` are our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from agents.section import Section

Tone = Literal["friendly", "neutral", "formal", "playful"]
Length = Literal["short", "medium", "long"]
Expertise = Literal["simple", "expert"]

ATTRIBUTES = (
    "values",
    "fluency",
    "factuality",
    "safety",
    "diversity",
    "creativity",
    "helpfulness",
)
"""What PRISM's people say an answer did well, and what counted in their choice."""

Attribute = Literal[
    "values",
    "creativity",
    "fluency",
    "factuality",
    "diversity",
    "safety",
    "personalisation",
    "helpfulness",
]
"""What PRISM's people state before they talk: how much each matters to them, 0 to 100."""


def _one_line(value: str) -> str:
    """White space of any kind is one blank, so that a wish cannot pose as lines of a prompt."""
    line = " ".join(value.split())
    if not line or not line.isprintable():
        raise ValueError("a line of printable characters")
    return line


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


class Preferences(Section):
    """What a person wants of a model's answers.

    Attributes:
        stated: how much each attribute of an answer matters to the person, 0 to 100.
        tone, length, expertise: how an answer should be written; None: no matter.
        dialect: the language or dialect of an answer.
        wishes: what the person asks of every answer, each a sentence to the model.
    """

    stated: Mapping[Attribute, Annotated[int, Field(ge=0, le=100, strict=True)]] = {}
    tone: Tone | None = None
    length: Length | None = None
    expertise: Expertise | None = None
    dialect: Line | None = None
    wishes: tuple[Line, ...] = Field(default=(), max_length=20)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def choices(self) -> Iterator[tuple[str, str]]:
        """Yield the preferences of style that are stated: (name, choice)."""
        for name in STYLES:
            choice = getattr(self, name)
            if choice is not None:
                yield name, choice

    def sentences(self, without: Sequence[str] = ()) -> list[str]:
        """Return the preferences as sentences to the one who answers.

        Args:
            without: names of styles, and wishes, that are left out.
        """
        found = [
            STYLES[name].format(choice) for name, choice in self.choices() if name not in without
        ]
        dear = [name for name, weight in self.stated.items() if weight >= DEAR]
        if dear:
            found.append(f"What matters most in an answer: {', '.join(dear)}.")
        return [*found, *(wish for wish in self.wishes if wish not in without)]


STYLES: Mapping[str, str] = {
    "tone": "The tone of an answer: {}.",
    "length": "The length of an answer: {}.",
    "expertise": "The level of an answer: {}.",
    "dialect": "The language of an answer: {}.",
}
"""The preferences of style, each with the sentence that a prompt shows."""

DEAR = 85
"""The weight from which a prompt names an attribute as what matters most."""


class Survey(Section):
    """Who a person is, in the categories of PRISM's survey; None: not told."""

    age: (
        Literal[
            "18-24 years old",
            "25-34 years old",
            "35-44 years old",
            "45-54 years old",
            "55-64 years old",
            "65+ years old",
            "Prefer not to say",
        ]
        | None
    ) = None
    gender: Literal["Male", "Female", "Non-binary / third gender", "Prefer not to say"] | None = (
        None
    )
    education: Line | None = None
    employment_status: Line | None = None
    marital_status: Line | None = None
    english_proficiency: (
        Literal["Native speaker", "Fluent", "Advanced", "Intermediate", "Basic"] | None
    ) = None
    religion: Line | None = None
    ethnicity: Line | None = None
    politics: (
        Literal["left", "leaning left", "centre", "leaning right", "right", "Prefer not to say"]
        | None
    ) = None
    birth_country: Line | None = None
    birth_region: Line | None = None
    reside_country: Line | None = None
    reside_region: Line | None = None
    lm_familiarity: Literal["Not familiar at all", "Somewhat familiar", "Very familiar"] | None = (
        None
    )
    lm_frequency_use: (
        Literal[
            "Every day",
            "Every week",
            "More than once a month",
            "Once per month",
            "Less than one a year",
        ]
        | None
    ) = None

    def groups(self) -> dict[str, str]:
        """Return the groups that the person belongs to: the values of `GROUPS` that are told."""
        found = {name: getattr(self, name) for name in GROUPS}
        return {name: value for name, value in found.items() if value is not None}


GROUPS = ("age", "gender", "education", "religion", "ethnicity", "politics", "reside_region")
"""The fields of a survey by which results are shown group by group."""

PROTECTED = ("age", "gender", "religion", "politics", "reside_region")
"""The attributes that a judge may try to guess from answers in which they were not mentioned."""


def options_of(attribute: str) -> tuple[str, ...]:
    """Return the options of a field with fixed categories; none for a free text."""
    found: list[str] = []
    waiting: list[Any] = [Survey.model_fields[attribute].annotation]
    while waiting:
        annotation = waiting.pop(0)
        if isinstance(annotation, str):
            found.append(annotation)
        else:
            waiting.extend(get_args(annotation))
    return tuple(found)
