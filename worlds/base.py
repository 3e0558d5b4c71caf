"""What a world is, and what an episode offers to the one who plays it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

import worlds
from agents.agent import Agent
from agents.forms import Form, Judgement
from agents.memory import Recalled
from agents.persona import Label, Persona

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
        """Have a peer rate, and record the rating, also where there is none to be read."""

    def observe(self, stage: str, scales: dict[str, Form[Judgement]], **values: Any) -> None:
        """Have the observer score one stage on several scales. Nobody waits for it."""

    def drafted(self, text: str) -> None:
        """Record the first answer."""

    def revised(self, text: str) -> None:
        """Record the final answer."""

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
    """The rules of a world. A subclass in ``worlds/NAME.py``, named `World`, is all it takes.

    Args:
        settings: the validated `world:` part of the config.
        seed: the run's seed.
    """

    settings_type: ClassVar[type[Settings]]
    forms: tuple[Form[Any], ...]

    def __init__(self, settings: Any, seed: int) -> None:
        self.settings = settings
        self.seed = seed

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
    """The kinds of worlds there are: each file in this folder that defines a world."""
    files = (file for folder in worlds.__path__ for file in Path(folder).glob("*.py"))
    defines = "\nclass World(base.World):"
    return sorted(file.stem for file in files if defines in file.read_text(encoding="utf-8"))


def world_of(kind: str) -> type[World]:
    """The world class of a kind, as `kinds` lists them."""
    world: type[World] = importlib.import_module(f"worlds.{kind}").World
    return world
