"""A small world of its own: one stage, in which agents and pairs are rated."""

from __future__ import annotations

from pathlib import Path

from stored import Run

from sandbox.config import PRESETS, load_config
from sandbox.engine.run import create, prepare, resume

WORLD = '''\
"""Two agents talk; the observer rates each of them, and the pair."""

from typing import Literal

from agents.agent import Agent
from agents.forms import Form
from agents.scale import Scale, Stage
from agents.shapes import Line
from worlds import base
from worlds.base import Meeting

SAY = Form(
    "say",
    "You talk with somebody. Reply in one line.",
    "<you>{{ me }}</you>\\n<question>{{ question }}</question>\\nYou say:",
    Line(),
    {"me": "", "question": ""},
)


class Settings(base.Settings):
    kind: str


class World(base.World):
    settings_type = Settings
    stages = (Stage(name="small_talk", answer=False),)
    scales = (
        Scale(name="calm", low=0, high=10, subject="agent", ask="How calm is {{ name }}?"),
        Scale(name="distance", low=-1, high=1, integer=False, better="low", subject="pair"),
    )
    prompts = (SAY,)
    observed = "{{ name }}\\n{{ talk }}\\n"
    unit = "person"
    example = {"name": "Ada", "talk": "Hello."}

    def populate(self, personas):
        return [Agent(n, "neutral", one, n, 0) for n, one in enumerate(personas[:6])]

    def inherit(self, agent, pairs, count):
        return []

    def meet(self, agents, round):
        return [Meeting(n, ((n + 1) % 6,), round * 6 + n) for n in range(6)]

    async def play(self, episode):
        two = (episode.author, *episode.peers)
        said = [await episode.ask(one, SAY, question=episode.question) for one in two]
        talk = "\\n".join(said)
        episode.record("small_talk", talk)
        for one in two:
            episode.observe("small_talk", agent=one, name=one.persona.name, talk=talk)
        episode.observe("small_talk", agent=two[0], other=two[1], name="both", talk=talk)
'''


def make_talk(folder: Path) -> Run:
    """A run of 18 talks in three rounds."""
    world = folder / "talk.py"
    world.write_text(WORLD, encoding="utf-8")
    settings = [f"world={{kind: {world}}}", "rounds=3", "name=small"]
    config = load_config(PRESETS / "scene.yaml", settings)
    address = create(prepare(config), str(folder / "run.db"))
    assert resume(address, allow=[world]).status == "done"
    return Run(folder / "run.db", "small")
