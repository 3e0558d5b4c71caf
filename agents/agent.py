"""An agent: a persona, a place, a memory. It performs no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from agents.memory import Memory
from agents.persona import Label, Persona


@dataclass
class Agent:
    """One member of a society.

    Attributes:
        number: its number in the society, counted from 0.
        label: the starting demographic it belongs to.
        x, y: where it is shown.
        links: the agents it is linked to; None where its place alone says who is near.
        node: its name in a graph.
        community: the group of agents with like profiles that it belongs to, if there are any.
    """

    number: int
    label: Label
    persona: Persona
    x: float
    y: float
    links: tuple[int, ...] | None = None
    node: str | None = None
    community: int | None = None
    memory: Memory = field(default_factory=Memory)

    @cached_property
    def introduction(self) -> str:
        """Who it is, as prompts tell it."""
        return self.persona.introduction(self.label)
