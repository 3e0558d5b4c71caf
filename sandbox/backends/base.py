"""What every backend speaks: a call goes in, a reply comes out, or an error is raised."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agents.forms import CallName, Shape


class ModelSettings(BaseModel):
    """What every backend's settings have in common.

    Attributes:
        backend: the name of the backend, or the path of its file; `sandbox.backends` reads it.
        max_tokens: limit of a reply in free text; other replies bring their own.
        temperature: of sampling; 0 is greedy.
        timeout: seconds that a reply may take; null for as long as it takes.
        retries: how often a call is asked again while no reply comes, before the run stops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backend: str
    max_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    timeout: float | None = Field(default=None, gt=0)
    retries: int = Field(default=5, ge=0, le=100)

    def check(self) -> None:
        """Look at what can be seen without starting anything, such as a model's folder.

        Raises:
            ValueError: it cannot work; the message begins with the key that is wrong.
        """

    def adapter_names(self) -> Collection[str] | None:
        """The LoRA adapters that personas may name; None where only a server knows them."""
        return None


OWN_SAMPLING = frozenset(
    (
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "n",
        "logprobs",
        "stream",
        "model",
        "messages",
        "prompt",
        "structured_outputs",
        "response_format",
        "output_kind",
    )
)
"""Parameters of a request that a backend sets by itself for each call."""


def _refuse_own(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if key in OWN_SAMPLING:
            raise ValueError(f"no {key}: it follows from the config and the name of a call")
    return value


FreeParameters = Annotated[dict[str, Any], AfterValidator(_refuse_own)]
"""Parameters of a request that a config may set."""


class LanguageModelSettings(ModelSettings):
    """What the backends that serve a language model have in common.

    Attributes:
        model: a folder or a name on a model hub; for a server, the name that it serves it under.
        expected_rating: also keep the expected value of each rating, from the log-probabilities of
            the labels (after Liu et al., "G-Eval", arXiv 2303.16634).
        sampling: further sampling parameters, by the names that vLLM and its server use for them:
            top_p, top_k, min_p, repetition_penalty, ...
    """

    model: str = Field(min_length=1)
    expected_rating: bool = False
    sampling: FreeParameters = Field(default_factory=dict)


class Call(NamedTuple):
    """One request to a model.

    Attributes:
        name, seed: which call it is, and the seed that follows from that.
        system, user: the two messages of the prompt.
        shape: what the reply must look like.
        max_tokens, temperature: how it is sampled.
        priority: which call an engine with a queue of its own is to take first, the lowest.
        adapter: the LoRA adapter that the speaker's persona names, if any.
    """

    name: CallName
    seed: int
    system: str
    user: str
    shape: Shape[Any]
    max_tokens: int
    temperature: float
    priority: int = 0
    adapter: str | None = None


class Reply(NamedTuple):
    """What a model said.

    Attributes:
        text: the answer alone.
        cut: the token limit ended it.
        tokens_in, tokens_out: of prompt and reply, thinking included; None where not known.
        cached_tokens: those of the prompt that a prefix cache held; None where not known.
        thinking: what a reasoning model thought before it answered; None where it did not.
        expected: the expected value of the rating in the reply, where it was asked for.
    """

    text: str
    cut: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    cached_tokens: int | None = None
    thinking: str | None = None
    expected: float | None = None


class CallFailed(Exception):
    """This call has no reply, and others may have: it becomes a row with this error."""


class Unavailable(Exception):
    """The reply did not come this time: the same call is asked again, with the same seed.

    Attributes:
        after: seconds to wait at least, where whoever refused said so.
    """

    def __init__(self, problem: str, after: float = 0.0) -> None:
        super().__init__(problem)
        self.after = after


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
