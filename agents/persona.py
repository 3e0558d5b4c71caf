"""Personas: the description of an agent that prompts show."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Label = Literal["good", "bad", "neutral"]

STANCE: dict[Label, str] = {
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
of an aligned model, so the starting demographic is also stated."""


class Persona(BaseModel):
    """A persona, as read from a line of a personas file.

    Attributes:
        values: what the person values.
        voice: how the person speaks, as a sentence.
        goal: what the person wants, in the second person: "You want to ...".
        adapter: the name of a LoRA adapter in the model's settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=80)
    age: int = Field(ge=1, le=120)
    place: str = Field(min_length=1, max_length=120)
    occupation: str = Field(min_length=1, max_length=120)
    values: tuple[str, ...] = Field(min_length=1)
    voice: str = Field(min_length=1, max_length=400)
    goal: str | None = Field(default=None, min_length=1, max_length=400)
    adapter: str | None = Field(default=None, min_length=1, max_length=80)

    def introduction(self, label: Label) -> str:
        """The persona and its label in the second person, as prompts show them.

        The label comes first, because all prompts with this label share it as a common prefix,
        which the prefix cache of an engine can reuse.
        """
        return (
            f"{STANCE[label]} You are {self.name}, {self.age} years old, from {self.place}. "
            f"Occupation: {self.occupation}. You value {' and '.join(self.values)}. {self.voice}"
        ).lstrip()

    @property
    def about(self) -> str:
        """A short description in the third person."""
        return f"{self.age}, {self.occupation}, from {self.place}"
