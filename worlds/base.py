"""What a world is, and what an episode offers to the one who plays it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from agents.agent import Agent
from agents.forms import Form, Judgement
from agents.memory import Recalled
from agents.persona import Label, Persona
from agents.plugins import PluginError, entry_points, is_file, load_entry_point, load_file
from agents.scale import Declaration, Scale, Stage
from worlds.observer import observer_form

T = TypeVar("T")


class Settings(BaseModel):
    """The `world:` part of a config. A world adds its own keys; unknown ones are refused.

    `founding` names the keys that the society is founded on: they cannot change in a fork.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    founding: ClassVar[tuple[str, ...]] = ()

    kind: str


class SettingError(Exception):
    """A setting that cannot work: the key below `world`, and what was found and expected."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Pair(BaseModel):
    """A question and an answer that an agent may be born with."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    question: str
    answer: str
    label: Label


class Meeting(NamedTuple):
    """Who meets in an episode, and about what. Known before the round, from the seed alone.

    The memory of `author` changes in it, and of nobody else; where it is None, nobody's does. An
    agent is author once a round at most. `question` counts up through the list of questions,
    which is cycled.
    """

    author: int | None
    peers: tuple[int, ...]
    question: int


class Rated(NamedTuple):
    """One peer's rating: `rating` is None where the peer gave none that can be read."""

    rater: int
    rating: int | None
    reason: str | None


class Part(NamedTuple):
    """Somebody who takes part in a scene.

    Attributes:
        name: what others call them.
        about: who they are, as others would say it.
        agent: the member of the society who takes the part; None where it was invented.
    """

    name: str
    about: str
    agent: Agent | None = None


@dataclass
class Act:
    """Something that a part does in a scene, or would have done.

    Attributes:
        number: counts the acts of an episode from 0, those that did not pass among them.
        step: of the plan, from 0.
        part: the number of the part that acts.
        on: the number of the act that this one reacts to.
        text: what is done; None where the model gave nothing that can be read.
        passed: whether it came to pass; None where nobody could tell.
        why: the reason for that; None where it is missing.
        seen_by: the numbers of the parts that saw it, ascending, its own among them.
        harm: whether it does harm; None where that was not told.
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


class Unanswered(Exception):
    """A reply that the episode cannot do without is missing; the episode ends here as failed.

    Its text names the form, and the turn where it is not the first one.
    """

    def __init__(self, form: str, turn: int) -> None:
        super().__init__(f"{form}/{turn}" if turn else form)


class Episode(Protocol):
    """One meeting, as the one who plays it sees it. Everything slow hides behind `ask`."""

    @property
    def author(self) -> Agent:
        """Whose episode it is. There must be one."""

    @property
    def peers(self) -> Sequence[Agent]:
        """Who else takes part."""

    @property
    def question(self) -> str:
        """What it is about."""

    def recall(self, agent: Agent) -> Recalled | None:
        """What the agent remembers nearest to the question, as of the end of the round before."""

    def latest(self, agent: Agent) -> Recalled | None:
        """What the agent learned last, as of the end of the round before."""

    async def ask(
        self,
        agent: Agent | None,
        form: Form[T],
        *,
        past: Recalled | None = None,
        turn: int = 0,
        **values: Any,
    ) -> T:
        """Have an agent fill in a form. The template also sees `me` (the agent) and `past`.

        Where no agent is named, the social model speaks as nobody in particular. `turn` tells the
        calls of one form by one agent apart.

        Raises:
            Unanswered: there is no usable reply, also after asking again.
        """

    async def rate(
        self, agent: Agent, form: Form[Judgement], *, past: Recalled | None = None, **values: Any
    ) -> Rated:
        """Have a peer rate on the peers' scale, and record the rating even if it is unparseable."""

    def record(self, stage: str, text: str) -> None:
        """Record the text of a stage that the world declares."""

    def observe(
        self, stage: str, *, agent: Agent | None = None, other: Agent | None = None, **values: Any
    ) -> None:
        """Have the observer rate a stage on every scale that applies to it.

        Runs in the background; `play` does not wait. Without agents the stage itself is rated;
        with `agent` that agent in it, on the scales whose subject is an agent; with both the pair.

        Args:
            stage: one that the world declares.
            agent: who is rated.
            other: the second of a pair.
            values: what the world's `observed` template shows.
        """

    def remember(self, text: str) -> None:
        """Have the author learn this about the question."""

    def enter(self, part: Part) -> None:
        """Record somebody who takes part in a scene; parts are numbered from 0 as they enter."""

    def act(self, act: Act) -> None:
        """Record an act of a scene, as it is when the episode ends."""

    def note(self, kind: str, text: str) -> None:
        """Record what else a scene has brought, such as the steps of its plan."""

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        """Wait for several calls that do not depend on each other."""


class World(ABC):
    """The rules of a world: a subclass named `World` in a file of its own is all it takes.

    A world of ours is a file in this folder; one of a user's own is named by its path
    (``world: {kind: ./my_world.py}``) or by an entry point of the group `sandbox_society.worlds`.

    Attributes:
        stages: what its episodes record, in order.
        scales: what is rated, the main scale first; see `agents.scale.Scale`.
        prompts: its prompt templates, those of the observer's scales left out.
        observed: a Jinja template that shows the observer what it rates; the scale's question
            follows it.
        unit: what the observer rates at a time, in a word.
        example: a value for each name in `observed`.
        pareto: the scales whose means the Pareto stopping rule multiplies; empty: the rule does
            not apply.

    Args:
        settings: the validated `world:` part of the config.
        seed: the run's seed.
        scales: scales that a config adds, or gives another range.
    """

    settings_type: ClassVar[type[Settings]]
    stages: ClassVar[tuple[Stage, ...]]
    scales: ClassVar[tuple[Scale, ...]] = ()
    observed: ClassVar[str] = ""
    unit: ClassVar[str] = "answer"
    example: ClassVar[Mapping[str, Any]] = {}
    pareto: ClassVar[tuple[str, ...]] = ()
    prompts: tuple[Form[Any], ...]

    def __init__(self, settings: Any, seed: int, scales: Sequence[Scale] = ()) -> None:
        self.settings = settings
        self.seed = seed
        given = {scale.name: scale for scale in scales}
        known = [given.pop(scale.name, scale) for scale in self.scales]
        self.declaration = Declaration(stages=self.stages, scales=(*known, *given.values()))

    @property
    def forms(self) -> tuple[Form[Any], ...]:
        """All prompt templates: the world's own, then one for each scale of the observer."""
        asked = (
            observer_form(scale, self.observed, self.example, self.unit)
            for scale in self.declaration.observed
        )
        return (*self.prompts, *asked)

    @abstractmethod
    def populate(self, personas: Sequence[Persona]) -> list[Agent]:
        """Make the society, with empty memories.

        Raises:
            SettingError: the settings cannot work.
        """

    @abstractmethod
    def inherit(self, agent: Agent, pairs: Sequence[Pair], count: int) -> Iterable[Pair]:
        """The `count` prior memories that an agent is born with.

        Raises:
            SettingError: there are too few pairs.
        """

    def per_round(self, agents: Sequence[Agent]) -> int:
        """How many meetings a round has; by default one for each agent."""
        return len(agents)

    @abstractmethod
    def meet(self, agents: Sequence[Agent], round: int) -> list[Meeting]:
        """The meetings of a round, `per_round` of them, in an order that stays the same."""

    @abstractmethod
    async def play(self, episode: Episode) -> None:
        """Play one meeting through."""


def kinds() -> list[str]:
    """The kinds of worlds that can be named: files in this folder, and entry points."""
    return sorted({*_BUILT_IN, *entry_points(_GROUP)})


def world_of(kind: str) -> type[World]:
    """The world class of a kind: a name that `kinds` lists, or the path of a Python file.

    Raises:
        PluginError: it cannot be loaded; its text says why.
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
    if missing:
        raise PluginError(f"{kind}: the class World has no {missing[0]}; expected one")
    return found


_GROUP = "sandbox_society.worlds"
_BUILT_IN = ("grid", "scene")
