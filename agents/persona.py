"""Personas: who an agent is, in words that a prompt can show."""

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
"""How a label is told to a model. Few prior memories alone do not move a polite model, so the
starting demographics are also put into words."""


class Persona(BaseModel):
    """One person, as read from a line of a personas file.

    `goal` is what the person is after, told in the second person: "You want to ...".
    `adapter` names a LoRA adapter that the person speaks with, where the model's settings list it.
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

        The label's words come first: all prompts with this label have them in common, and a prefix
        cache keeps what prompts have in common from their beginning.
        """
        return (
            f"{STANCE[label]} You are {self.name}, {self.age} years old, from {self.place}. "
            f"Occupation: {self.occupation}. You value {' and '.join(self.values)}. {self.voice}"
        ).lstrip()

    @property
    def about(self) -> str:
        """Who the person is, as others would say it."""
        return f"{self.age}, {self.occupation}, from {self.place}"
