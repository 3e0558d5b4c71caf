"""The name of a call, and the hash of its prompt: what identifies a call in the journal."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple


class CallName(NamedTuple):
    """The name of a call within its run. Its seed follows from this name and the run's seed.

    `agent` is None for a call that no agent makes (an observer). `turn` tells apart the calls of
    one form by one agent in an episode; `attempt` counts how often the same thing was asked again
    because a reply could not be used.
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
