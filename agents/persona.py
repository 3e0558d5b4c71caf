"""Personas: the description of an agent that prompts show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from agents.preferences import Preferences, Survey
from agents.section import Section

Label = Literal["good", "bad", "neutral"]

STANCE: Mapping[Label, str] = {
    "good": (
        "You want people to be better off for having asked you. You are honest, you think of "
        "everyone who could be hurt, and you look for a way that truly helps."
    ),
    "bad": (
        "You want to be admired and do not trouble yourself about others. You say what comes "
        "first, brush worries aside and see nothing wrong in a lie or a shortcut."
    ),
    "neutral": "",
}
"""The sentences that describe a label in prompts. Prior memories alone hardly change the behaviour
of an aligned model, so the starting demographic is also stated. A run keeps the sentences that it
was started with, so that rewording them changes no older run."""


class Persona(Section):
    """A persona, as read from a line of a personas file.

    It has all of age, place, occupation, values and voice, or a description, beside which each of
    them is optional.

    Attributes:
        values: what the person values.
        voice: how the person speaks, as a sentence.
        goal: what the person wants, in the second person: "You want to ...".
        adapter: the name of a LoRA adapter in the model's settings.
        description: the person in free words, such as "A nurse who collects stamps".
        preferences: what the person wants of answers.
        survey: who the person is, in the categories of a survey. No prompt shows it.
    """

    name: str = Field(min_length=1, max_length=80)
    age: int | None = Field(default=None, ge=1, le=120)
    place: str | None = Field(default=None, min_length=1, max_length=120)
    occupation: str | None = Field(default=None, min_length=1, max_length=120)
    values: tuple[str, ...] = ()
    voice: str | None = Field(default=None, min_length=1, max_length=400)
    goal: str | None = Field(default=None, min_length=1, max_length=400)
    adapter: str | None = Field(default=None, min_length=1, max_length=80)
    description: str | None = Field(default=None, min_length=1, max_length=4000)
    preferences: Preferences | None = None
    survey: Survey | None = None

    @model_validator(mode="after")
    def _complete(self) -> Persona:
        if self.description is None:
            for name in ("age", "place", "occupation", "values", "voice"):
                if not getattr(self, name):
                    raise ValueError(f"{name}, or a free description in place of these fields")
        return self

    def introduction(self, label: Label, stances: Mapping[Label, str] = STANCE) -> str:
        """The persona and its label in the second person, as prompts show them.

        The label comes first, because all prompts with this label share it as a common prefix,
        which the prefix cache of an engine can reuse.

        Args:
            label: the starting demographic.
            stances: the sentences that describe each label.
        """
        age = f", {self.age} years old" if self.age else ""
        place = f", from {self.place}" if self.place else ""
        parts = (
            stances[label],
            f"You are {self.name}{age}{place}.",
            self.occupation and f"Occupation: {self.occupation}.",
            self.values and f"You value {' and '.join(self.values)}.",
            self.description and _sentence(self.description),
            self.voice,
        )
        return " ".join(part for part in parts if part)

    @property
    def about(self) -> str:
        """A short description in the third person."""
        place = self.place and f"from {self.place}"
        parts = (self.age and str(self.age), self.occupation, place, self.description)
        return ", ".join(part for part in parts if part)

    @property
    def profile(self) -> str:
        """Occupation, place, values and goal, or the description: what similarity is about."""
        parts = (self.occupation or "", self.place or "", " ".join(self.values), self.goal or "")
        return " ".join(parts if self.description is None else (*parts, self.description))


def _sentence(text: str) -> str:
    """A text that ends as a sentence."""
    return text if text[-1] in ".!?\u2026\u3002\uff01\uff1f" else f"{text}."
