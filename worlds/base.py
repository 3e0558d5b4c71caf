"""The interfaces of worlds: `World`, which a world implements, and `Episode`, which it uses."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from agents.agent import Agent
from agents.forms import Form, Judgement
from agents.memory import Recalled
from agents.persona import Label, Persona
from agents.plugins import PluginError, entry_points, is_file, load_entry_point, load_file
from agents.policy import Policy
from agents.scale import Declaration, Scale, Stage
from agents.section import Section
from worlds.observer import observer_form

T = TypeVar("T")


class Settings(Section):
    """The `world:` section of a config. A world adds its own keys; unknown keys are rejected.

    Attributes:
        founding: the keys that define the society. A fork cannot change them.
        kind: the kind of world.
    """

    founding: ClassVar[tuple[str, ...]] = ()

    kind: str


class SettingError(Exception):
    """Raised for an invalid setting: its key, what was found and expected.

    The key is one below `world`; of an error in `World.inherit` one below `memory`.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Pair(Section):
    """A question and an answer that an agent may have as a prior memory."""

    question: str
    answer: str
    label: Label


class Meeting(NamedTuple):
    """The participants and the question of an episode. It depends only on the seed and the round.

    Attributes:
        author: the number of the only agent whose memory the episode changes; None for none. An
            agent is author at most once per round.
        peers: the numbers of the other agents that take part.
        question: an index into the list of questions, modulo its length.
    """

    author: int | None
    peers: tuple[int, ...]
    question: int


class Rated(NamedTuple):
    """A peer's rating and its reason; None where they could not be parsed."""

    rater: int
    rating: float | None
    reason: str | None


class Part(NamedTuple):
    """A character of a scene.

    Attributes:
        name: the name of the character.
        about: a short description in the third person.
        agent: the agent that plays the character; None for an invented character.
    """

    name: str
    about: str
    agent: Agent | None = None


@dataclass
class Act:
    """An act of a part in a scene, or one that the modulator refused.

    Attributes:
        number: the number of the act in its episode, from 0; refused acts are counted too.
        step: the number of the step of the plan, from 0.
        part: the number of the acting part.
        on: the number of the act that this one reacts to; None for a step of the plan.
        text: the act; None where the reply was unparseable.
        passed: whether the modulator accepted the act; None where its reply was unparseable.
        why: the modulator's reason; None where it is missing.
        seen_by: the sorted numbers of the parts that saw the act, including the acting part.
        harm: whether the act does harm; None where the critique was unparseable.
        critique: who is harmed and how, or why nobody is.
    """

    number: int
    step: int
    part: int
    on: int | None = None
    text: str | None = None
    passed: bool | None = None
    why: str | None = None
    seen_by: tuple[int, ...] = ()
    harm: bool | None = None
    critique: str | None = None


@dataclass
class Utterance:
    """A message of a user with one answer of a model.

    Attributes:
        number: the number of the utterance in its episode, which is the `turn` of its calls.
        kind: `answer` (a candidate under the user's own policy), `aggregate` (what one policy for
            all would have given) or `red_team` (a request that a rule forbids).
        turn: of the conversation, from 0.
        candidate: of the turn, from 0.
        prompt: what the user says.
        text: the answer; None where there is no usable reply.
        chosen: whether the conversation goes on from it.
        score: the user's; None where the reply was unparseable, or was not asked for.
        manner: the type of the conversation, or the phrasing of a request.
        request, rule: the ids of a red-team request and of the rule that it would break.
    """

    number: int
    kind: str
    turn: int
    candidate: int
    prompt: str
    text: str | None = None
    chosen: bool = False
    score: float | None = None
    manner: str = ""
    request: str | None = None
    rule: str | None = None


class Verdict(NamedTuple):
    """What a judge, or the user, says of an utterance or a conversation.

    Attributes:
        kind: such as `obeyed` or `guess`.
        subject: what it is about: a rule, an attribute, a dimension.
        value: the verdict; None where the reply was unparseable.
        expected: the true value; None where there is none.
        utterance: the number of an utterance; None for the conversation.
    """

    kind: str
    subject: str
    value: str | None
    expected: str | None = None
    utterance: int | None = None


class Unanswered(Exception):
    """Raised when a required reply is unusable; the episode then ends as failed.

    The message is the name of the form, with the turn unless it is 0.
    """

    def __init__(self, form: str, turn: int) -> None:
        super().__init__(f"{form}/{turn}" if turn else form)


class Episode(Protocol):
    """One meeting, as `World.play` sees it. `ask`, `rate` and `observe` call models."""

    @property
    def author(self) -> Agent:
        """The author. Raises if the episode has none."""

    @property
    def peers(self) -> Sequence[Agent]:
        """The other agents that take part."""

    @property
    def round(self) -> int:
        """The round, from 0."""

    @property
    def slot(self) -> int:
        """The place of the meeting among those of its round, from 0."""

    @property
    def question(self) -> str:
        """The text of the question."""

    def recall(self, agent: Agent) -> Recalled | None:
        """The memories nearest to the question, as of the end of the previous round.

        How many, and how near they must be, the config says: `memory.top_k`, `memory.recall`.
        """

    def latest(self, agent: Agent) -> Recalled | None:
        """The most recent memory, as of the end of the previous round."""

    async def ask(
        self,
        agent: Agent | None,
        form: Form[T],
        *,
        past: Recalled | None = None,
        turn: int = 0,
        **values: Any,
    ) -> T:
        """Request a reply from an agent's model and parse it.

        Args:
            agent: the agent; None calls the social model without a persona.
            form: the prompt template. It also sees `me` (the agent's introduction) and `past`.
            past: the memories that the prompt shows: `past` is the nearest one, and `past.all` are
                all of them, where the config recalls several.
            turn: distinguishes several calls of one form by one agent.
            values: the values of the template.

        Raises:
            Unanswered: there is no usable reply, also after all attempts.
        """

    async def rate(
        self, agent: Agent, form: Form[Judgement], *, past: Recalled | None = None, **values: Any
    ) -> Rated:
        """Request a rating on the peers' scale and record it, also where it is unparseable."""

    def record(self, stage: str, text: str) -> None:
        """Record the text of a stage."""

    def observe(
        self, stage: str, *, agent: Agent | None = None, other: Agent | None = None, **values: Any
    ) -> None:
        """Request the observer's ratings of a stage on every scale that applies to it.

        Runs in the background; `play` does not wait. Without agents the stage itself is rated,
        with `agent` that agent, with both agents the pair.

        Args:
            stage: the name of a declared stage.
            agent: the rated agent, or the first agent of a rated pair.
            other: the second agent of a rated pair.
            values: the values of the world's `observed` template.
        """

    def remember(self, text: str) -> None:
        """Add a memory about the question to the author's memory."""

    def enter(self, part: Part) -> None:
        """Record a part of a scene; parts are numbered from 0 in the order of these calls."""

    def act(self, act: Act) -> None:
        """Record an act of a scene, in the state that it has when the episode ends."""

    def note(self, kind: str, text: str) -> None:
        """Record any other text of a scene, such as a step of its plan."""

    async def judge(self, form: Form[T], *, turn: int = 0, **values: Any) -> T | None:
        """Request a reply from the observer's model; None where it is unusable.

        The policy does not bind it, and no agent sees it.
        """

    def utter(self, utterance: Utterance) -> None:
        """Record an utterance of a conversation, in the state that it has when the episode ends."""

    def verdict(self, verdict: Verdict) -> None:
        """Record a verdict on an utterance or the conversation."""

    @property
    def policy(self) -> Policy | None:
        """The policy of the run; None for a run that was started without one."""

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        """Run several independent calls concurrently and return their results in order."""


class World(ABC):
    """Base class of worlds. A world is a subclass named `World` in a Python file.

    The file is built in (in this folder), named by its path (``world: {kind: ./my_world.py}``), or
    named by an entry point of the group `sandbox_society.worlds`.

    Attributes:
        settings_type: the class of its settings.
        stages: the stages of its episodes, in order.
        scales: its scales, the main scale first; see `agents.scale.Scale`.
        prompts: its prompt templates, without those of the observer.
        observed: a Jinja template that shows the observer what it rates; the question of the scale
            follows it.
        unit: the noun for what the observer rates.
        example: a value for each name in `observed`.
        pareto: the scales whose means the Pareto stopping rule multiplies; empty if the rule does
            not apply.
        declaration: the stages and scales of this run.

    Args:
        settings: the validated `world:` section of the config.
        seed: the run's seed.
        scales: scales that the config adds or overrides.
    """

    settings_type: ClassVar[type[Settings]]
    stages: ClassVar[tuple[Stage, ...]]
    scales: ClassVar[tuple[Scale, ...]] = ()
    observed: ClassVar[str] = ""
    unit: ClassVar[str] = "answer"
    example: ClassVar[Mapping[str, Any]] = {}
    pareto: ClassVar[tuple[str, ...]] = ()
    notes: tuple[str, ...] = ()
    prompts: tuple[Form[Any], ...]

    def __init__(self, settings: Any, seed: int, scales: Sequence[Scale] = ()) -> None:
        self.settings = settings
        self.seed = seed
        given = {scale.name: scale for scale in scales}
        own = [given.pop(scale.name, scale) for scale in self.scales]
        self.declaration = Declaration(stages=self.stages, scales=(*own, *given.values()))

    @property
    def forms(self) -> tuple[Form[Any], ...]:
        """All prompt templates: the world's own, then one for each scale of the stages."""
        return (*self.prompts, *map(self.rating_form, self.declaration.observed))

    def rating_form(self, scale: Scale) -> Form[Judgement]:
        """The prompt template of ratings of a stage on a scale: by default the observer's."""
        return observer_form(scale, self.observed, self.example, self.unit)

    @abstractmethod
    def populate(self, personas: Sequence[Persona]) -> list[Agent]:
        """Create the agents, with empty memories.

        Raises:
            SettingError: the settings are invalid.
        """

    @abstractmethod
    def inherit(self, agent: Agent, pairs: Sequence[Pair], count: int) -> Iterable[Pair]:
        """Select the `count` prior memories of an agent.

        Raises:
            SettingError: there are too few pairs; the key is one of the section `memory`.
        """

    def per_round(self, agents: Sequence[Agent]) -> int:
        """The number of meetings per round; by default one for each agent."""
        return len(agents)

    @abstractmethod
    def meet(self, agents: Sequence[Agent], round: int) -> list[Meeting]:
        """The `per_round` meetings of a round, in a deterministic order."""

    @abstractmethod
    async def play(self, episode: Episode) -> None:
        """Play one episode."""


def kinds() -> list[str]:
    """The names of the available worlds: built-in ones and entry points."""
    return sorted({*_BUILT_IN, *entry_points(_GROUP)})


def is_kind(kind: str) -> bool:
    """Whether a text names an available world, or is the path of a Python file."""
    return kind in _BUILT_IN or is_file(kind) or kind in kinds()


def world_of(kind: str) -> type[World]:
    """Load a world class by a name from `kinds` or by the path of a Python file.

    Raises:
        PluginError: it cannot be loaded.
    """
    if kind in _BUILT_IN:
        module = importlib.import_module(f"worlds.{kind}")
    elif is_file(kind):
        module = load_file(kind)
    else:
        module = load_entry_point(_GROUP, kind)
    found = getattr(module, "World", None)
    if not (isinstance(found, type) and issubclass(found, World)):
        raise PluginError(f"{kind} has no class World(base.World); expected one")
    missing = [name for name in ("settings_type", "stages") if not hasattr(found, name)]
    missing += sorted(found.__abstractmethods__)
    if missing:
        raise PluginError(f"{kind}: the class World has no {missing[0]}; expected one")
    return found


_GROUP = "sandbox_society.worlds"
_BUILT_IN = ("answers", "grid", "judging", "personal", "scene")
