"""The interface of backends: calls, replies, errors and common settings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

from pydantic import AfterValidator, Field, field_validator

from agents.forms import CallName, Shape, clean
from agents.section import Section
from agents.stops import NO_STOPS, Stops


def transport_of(settings: type) -> set[str]:
    """Collect the keys in `transport` of a class of settings and of its bases."""
    return {key for cls in settings.__mro__ for key in vars(cls).get("transport", ())}


_MOST_STOPS = 32


class ModelSettings(Section):
    """Settings that all backends have.

    Attributes:
        transport: the keys that do not change what a model says, such as an address; `resume` can
            set them. A subclass lists its own; those of its bases count too. A key within a
            mapping is written with a dot.
        backend: the name of the backend, or the path of its file.
        max_tokens: limit of a reply in free text; other reply shapes have their own limits.
        temperature: sampling temperature; 0 is greedy.
        stop: strings before which a reply in prose, or in one line, ends at the latest; null for
            the tags and last lines of the prompt templates, [] for none.
        timeout: seconds that a reply may take; null for no limit.
        retries: how often a call that fails while others are answered is repeated before it
            becomes a failed call.
        patience: seconds that a run waits for a backend that answers nothing before it stops.
    """

    transport: ClassVar[tuple[str, ...]] = ("timeout", "retries", "patience")

    backend: str
    max_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    stop: tuple[str, ...] | None = None
    timeout: float | None = Field(default=None, gt=0)
    retries: int = Field(default=5, ge=0, le=100)
    patience: float = Field(default=900.0, ge=0)

    @field_validator("stop", mode="before")
    @classmethod
    def _stop(cls, value: Any) -> Any:
        if value is None:
            return None
        texts = list(value) if isinstance(value, list | tuple) else [value]
        valid = all(isinstance(text, str) and (text.strip() or "\n" in text) for text in texts)
        if isinstance(value, str) or not valid or len(texts) > _MOST_STOPS:
            raise ValueError(
                f"a list of at most {_MOST_STOPS} texts, each with more than blanks, such as "
                '["</answer>"]; null for those of the prompt templates, [] for none'
            )
        return tuple(dict.fromkeys(map(clean, texts)))

    def check(self) -> None:
        """Check what can be checked before the backend starts, such as a model's folder.

        Raises:
            ValueError: a setting is invalid; the message begins with its key.
        """

    def adapter_names(self) -> Collection[str] | None:
        """Return the LoRA adapters that personas may name; None if only a server knows them."""
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
        "regex",
        "system",
        "output_kind",
    )
)
"""Parameters of a request that the backend sets for each call."""

_NEVER_DROPPED = frozenset(("model", "messages", "prompt"))


def _refuse_own(value: dict[str, Any]) -> dict[str, Any]:
    for key, one in value.items():
        if key in OWN_SAMPLING and (one is not None or key in _NEVER_DROPPED):
            raise ValueError(f"no {key}, which the program sets for each call")
    return value


FreeParameters = Annotated[dict[str, Any], AfterValidator(_refuse_own)]
"""Parameters of a request that a config may set; null drops one that the program sets."""


class LanguageModelSettings(ModelSettings):
    """Settings that all backends with a language model have.

    Attributes:
        model: a folder, a name on a model hub, or the name of a served model.
        expected_rating: also store the expected value of each rating, from the log-probabilities
            of the labels (after Liu et al., "G-Eval", arXiv 2303.16634).
        sampling: additional sampling parameters, by the names of vLLM and its server:
            top_p, top_k, min_p, repetition_penalty, ...; null drops one that the program sets.
    """

    model: str = Field(min_length=1)
    expected_rating: bool = False
    sampling: FreeParameters = Field(default_factory=dict)


class Call(NamedTuple):
    """One request to a model.

    Attributes:
        name, seed: the name of the call, and the seed that follows from it.
        system, user: the two messages of the prompt.
        shape: the shape of the reply.
        max_tokens, temperature: sampling parameters.
        priority: dispatch priority; lower runs first.
        adapter: the LoRA adapter that the agent's persona names, if any.
        stop: where prose ends at the latest. What a backend does not cut is cut after it, so that
            a backend may stop at some of `stop.strings`, or at none.
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
    stop: Stops = NO_STOPS


def chat(system: str, user: str, system_role: bool = True) -> list[dict[str, str]]:
    """Return the messages of a prompt; an empty system message is left out.

    Args:
        system: the text of the system message.
        user: the text of the user message.
        system_role: false puts the system text before the user's, in one message.
    """
    if not system or not system_role:
        return [{"role": "user", "content": plain_prompt(system, user)}]
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def plain_prompt(system: str, user: str) -> str:
    """Return both texts of a prompt as one, for a model without a chat template."""
    return f"{system}\n\n{user}" if system else user


class Reply(NamedTuple):
    """The reply of a model.

    Attributes:
        text: the reply without thinking.
        cut: truncated: ended by the token limit.
        tokens_in, tokens_out: of prompt and reply, thinking included; None if unknown.
        cached_tokens: prompt tokens that were in the prefix cache; None if unknown.
        thinking: the thinking of a reasoning model, which is no part of `text`.
        expected: the expected value of the rating in the reply, if requested.
        raw: the response of a server, where it was not wholly understood.
        constrained: decoding was constrained to the shape of the reply.
    """

    text: str
    cut: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    cached_tokens: int | None = None
    thinking: str | None = None
    expected: float | None = None
    raw: str | None = None
    constrained: bool = False


class CallFailed(Exception):
    """This call has no reply, though others may have one: it becomes a row with this error."""


class Unavailable(Exception):
    """The backend is unavailable for now: the call is retried with the same seed.

    Attributes:
        after: the least seconds to wait.
        asked: the server itself asked for this pause.
        busy: the server has too much to do, which says nothing about this call.
    """

    def __init__(
        self, problem: str, after: float = 0.0, *, asked: bool = False, busy: bool = False
    ) -> None:
        super().__init__(problem)
        self.after = after
        self.asked = asked
        self.busy = busy


class Resting(Unavailable):
    """The call was not sent, since every address rests: this is no attempt."""


class BackendDown(Exception):
    """No further call can be answered: the run stops and can be resumed."""


class Backend(Protocol):
    """Answers calls. Slow work, such as loading a model, belongs in `start`.

    A backend with a true attribute `keeps_timeout` limits the time of a reply itself, so that the
    time which a call waits in the backend's own queue does not count. A method `environment()`
    tells, once the backend has started, what answers: a mapping of names to JSON values, such as
    the version and the arguments of an engine, which is stored with the session.
    """

    @property
    def model(self) -> str:
        """The name of the model in the journal."""

    async def start(self) -> None:
        """Start the backend.

        Raises:
            BackendDown: it cannot be started; the message is one line.
        """

    async def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            CallFailed: this call has no reply.
            Unavailable: the call should be retried.
            BackendDown: no further call can be answered.
        """

    async def close(self) -> None:
        """Release everything that was started."""
