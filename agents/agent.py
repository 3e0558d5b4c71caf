"""An agent: a persona, a position and a memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from agents.memory import Memory
from agents.persona import STANCE, Label, Persona
from agents.policy import Policy, binding


@dataclass
class Agent:
    """One member of a society.

    Attributes:
        number: its number in the society, counted from 0.
        label: its starting demographic.
        persona: its persona.
        x, y: its position on the map.
        links: numbers of the agents it is linked to; None where its position decides.
        node: the name of its node in a graph file; None without one.
        community: its group of agents with similar profiles; None in worlds without groups.
        memory: what it remembers.
        stances: the sentences that describe each label, as its run keeps them.
        policy: the rules of its run, which may overrule what it prefers; None: none.
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
    stances: Mapping[Label, str] = field(default_factory=lambda: STANCE)
    policy: Policy | None = None

    @cached_property
    def introduction(self) -> str:
        """The persona and its label in the second person, as prompts show them.

        What it prefers of answers comes last, without what the policy overrules.
        """
        introduction = self.persona.introduction(self.label, self.stances)
        wishes = " ".join(self.wishes)
        return f"{introduction} What you want of answers: {wishes}" if wishes else introduction

    @cached_property
    def wishes(self) -> list[str]:
        """What it prefers within the policy, as sentences to the one who answers."""
        return binding(self.policy, self.persona.preferences)
