"""The world of answers: a model is asked bare questions, as nobody in particular.

It has no agents, no memory and no prompt around a question, so that a model is asked as its
training data asks. A round is a sample: every round asks the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from agents.agent import Agent
from agents.forms import Form, FreeText
from agents.persona import Persona
from agents.scale import Stage
from worlds import base
from worlds.base import Episode, Meeting, Pair

ANSWER = Form(
    name="answer",
    system="",
    user="{{ question }}",
    reply=FreeText(),
    example={"question": "A question?"},
    bound=False,
)
"""The question alone: there is no system message."""


class Settings(base.Settings):
    """The `world:` section of a config for the world of answers.

    Attributes:
        questions: how many questions a round asks, from the beginning of the list.
    """

    founding: ClassVar[tuple[str, ...]] = ("questions",)

    kind: Literal["answers"] = "answers"
    questions: int = Field(default=20, ge=1, le=1_000_000)


class World(base.World):
    """A model answers each question once a round."""

    settings_type = Settings
    stages = (Stage(name="answer", form="answer"),)
    settings: Settings
    prompts = (ANSWER,)

    def populate(self, personas: Sequence[Persona]) -> list[Agent]:
        """Nobody lives here."""
        return []

    def inherit(self, agent: Agent, pairs: Sequence[Pair], count: int) -> Iterable[Pair]:
        """There is no agent that could have memories."""
        return ()

    def per_round(self, agents: Sequence[Agent]) -> int:
        """An episode for each question."""
        return self.settings.questions

    def meet(self, agents: Sequence[Agent], round: int) -> list[Meeting]:
        """The questions in order, the same in every round."""
        return [Meeting(None, (), question) for question in range(self.settings.questions)]

    async def play(self, episode: Episode) -> None:
        """Ask the question and record the answer."""
        answer = await episode.ask(None, ANSWER, question=episode.question)
        episode.record("answer", answer)
