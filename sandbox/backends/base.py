"""What every backend speaks: a call goes in, a reply comes out, or an error is raised."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from agents.forms import Shape


class ModelSettings(BaseModel):
    """What every backend's settings have in common.

    Attributes:
        max_tokens: limit of a reply in free text; other replies bring their own.
        temperature: of sampling; 0 is greedy.
        timeout: seconds that a reply may take; null for as long as it takes.
        retries: how often a call is asked again while no reply comes, before the run stops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    timeout: float | None = Field(default=None, gt=0)
    retries: int = Field(default=5, ge=0, le=100)


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


class Call(NamedTuple):
    """One request to a model. `system` and `user` are the two messages of the prompt."""

    name: CallName
    seed: int
    system: str
    user: str
    shape: Shape[Any]
    max_tokens: int
    temperature: float


class Reply(NamedTuple):
    """What a model said.

    `cut` means that the token limit ended it. Counts are None where the backend does not know
    them; `cached_tokens` are those of the prompt that a prefix cache held.
    """

    text: str
    cut: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    cached_tokens: int | None = None


class CallFailed(Exception):
    """This call has no reply, and others may have: it becomes a row with this error."""


class Unavailable(Exception):
    """The reply did not come this time: the same call is asked again, with the same seed."""


class BackendDown(Exception):
    """No call can be answered any more: the run stops here and can be resumed."""


class Backend(Protocol):
    """Answers calls. Everything slow (loading a model) happens in `start`, not in a constructor."""

    @property
    def model(self) -> str:
        """The name under which the journal records who spoke."""

    async def start(self) -> None:
        """Make ready. Raises BackendDown with one clear line if that cannot be done."""

    async def answer(self, call: Call) -> Reply:
        """Answer one call. Raises CallFailed, Unavailable or BackendDown."""

    async def close(self) -> None:
        """Let go of everything that was started."""
