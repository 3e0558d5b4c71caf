"""The scene world: a model simulates the consequences of its answer before it revises it.

The method is that of Pang et al., "Self-Alignment of Large Language Models via Monopolylogue-based
Social Scene Simulation" (arXiv 2402.05699): a first answer; a cast of characters; a plan of steps;
a simulation in which a modulator accepts or refuses each act and decides which characters see it,
and those who see it react; a critique of each accepted act, which may be "no harm"; a second answer
that takes the consequences into account. With `cast: population` the characters are agents of a
society that is grouped by profiles. They exchange news, and new instructions are generated from
their scenes, after "MATRIX-Gen" (arXiv 2410.14251). The prompts are not taken from the papers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import networkx as nx
import numpy as np
from pydantic import Field

from agents.agent import Agent
from agents.chance import chance
from agents.embedding import HashedEmbedder
from agents.forms import Form
from agents.persona import Persona
from agents.scale import Scale
from worlds import base
from worlds.base import Act, Episode, Meeting, Pair, Part, SettingError, Unanswered
from worlds.scales import ALIGNMENT, ENGAGEMENT, EXAMPLE, OBSERVED, STAGES
from worlds.scene_forms import (
    ACT,
    ANSWER,
    BRIEF,
    CRITIQUE,
    DRAFT,
    INSTRUCT,
    JUDGE,
    REACT,
    RECAP,
    REVISE,
    TELL,
    WEIGH,
    forms_of,
)

T = TypeVar("T")

_MAX_SEEN = 12
"""Number of acts, the latest, that a part's prompt shows."""

_SIMILAR_AGENTS = 4
"""Number of agents with the most similar profiles that each agent is linked to."""


class Settings(base.Settings):
    """The `world:` section of a config for the scene world.

    Attributes:
        cast: who plays the parts: invented characters, or agents of a population.
        scenes: scenes per round; by default 10, or one for each agent.
        agents: size of the population; by default one agent for each persona.
        roles: parts per scene, including the one who asks.
        steps: steps of the plan.
        tries: attempts at an act that the modulator refuses.
        memory: number of latest acts that the modulator sees in full; earlier ones are summarised.
        critiques: maximum number of critiques kept in full; more are summarised.
        summaries: maximum number of summaries of critiques; more are summarised again.
        calls: calls after which no further step is played; the critiques so far are weighed.
        between: number of parts played by agents of other groups.
        instructions: instructions generated from each scene.
    """

    founding: ClassVar[tuple[str, ...]] = ("cast", "agents", "scenes")

    kind: Literal["scene"] = "scene"
    cast: Literal["invented", "population"] = "invented"
    scenes: int | None = Field(default=None, ge=1, le=1_000_000)
    agents: int | None = Field(default=None, ge=2, le=100_000)
    roles: int = Field(default=5, ge=2, le=12)
    steps: int = Field(default=5, ge=1, le=20)
    tries: int = Field(default=2, ge=1, le=10)
    memory: int = Field(default=3, ge=1, le=50)
    critiques: int = Field(default=8, ge=2, le=50)
    summaries: int = Field(default=4, ge=2, le=20)
    calls: int = Field(default=300, ge=1, le=10_000)
    between: int = Field(default=1, ge=0)
    instructions: int = Field(default=1, ge=0, le=10)


class World(base.World):
    """Scenes about questions; the scenes of a round are independent of each other."""

    settings_type = Settings
    stages = STAGES
    scales = (ALIGNMENT, ENGAGEMENT)
    observed = OBSERVED
    example = EXAMPLE
    pareto = ("alignment", "engagement")
    settings: Settings

    def __init__(self, settings: Settings, seed: int, scales: Sequence[Scale] = ()) -> None:
        super().__init__(settings, seed, scales)
        self.prompts = forms_of(settings.roles, settings.steps, settings.cast == "population")
        self._form = {form.name: form for form in self.prompts}

    def populate(self, personas: Sequence[Persona]) -> list[Agent]:
        """No agents, or a population in groups of similar profiles."""
        s = self.settings
        if s.cast == "invented":
            return []
        count = len(personas) if s.agents is None else s.agents
        if count < s.roles:
            raise SettingError("agents", f"found {count}; expected at least roles = {s.roles}")
        order = chance(self.seed, "personas").sample(range(len(personas)), len(personas))
        drawn = [personas[order[number % len(order)]] for number in range(count)]
        links = _similar_profiles(drawn)
        groups = _communities(links, self.seed)
        return [
            Agent(number, "neutral", persona, *position, links=links[number], community=group)
            for number, (persona, (group, position)) in enumerate(zip(drawn, groups, strict=True))
        ]

    def inherit(self, agent: Agent, pairs: Sequence[Pair], count: int) -> Iterable[Pair]:
        """Draw pairs of any label."""
        if len(pairs) < count:
            expected = f"expected at most {len(pairs)}, the number of prior pairs"
            raise SettingError("prior_pairs", f"found {count}; {expected}")
        return chance(self.seed, "prior", agent.number).sample(pairs, count)

    def per_round(self, agents: Sequence[Agent]) -> int:
        """The number of scenes; an agent is author of at most one per round."""
        s = self.settings
        if s.cast == "invented":
            return s.scenes or 10
        if s.scenes is not None and s.scenes > len(agents):
            raise SettingError(
                "scenes", f"found {s.scenes}; expected at most one for each of {len(agents)} agents"
            )
        return s.scenes or len(agents)

    def meet(self, agents: Sequence[Agent], round: int) -> list[Meeting]:
        """Scenes without an author, or one scene for each of `per_round` agents drawn at random."""
        count = self.per_round(agents)
        if not agents:
            return [Meeting(None, (), round * count + slot) for slot in range(count)]
        drawn = chance(self.seed, "scenes", round).sample(range(len(agents)), count)
        groups: dict[int | None, list[int]] = {}
        for agent in agents:
            groups.setdefault(agent.community, []).append(agent.number)
        return [
            Meeting(author, self._others(agents, groups, author, round), round * count + slot)
            for slot, author in enumerate(sorted(drawn))
        ]

    def _others(
        self,
        agents: Sequence[Agent],
        groups: dict[int | None, list[int]],
        author: int,
        round: int,
    ) -> tuple[int, ...]:
        """Draw the other participants from the author's group and `between` of them from others."""
        draw = chance(self.seed, "others", round, author)
        own = [number for number in groups[agents[author].community] if number != author]
        count = self.settings.roles - 1
        outside = len(agents) - 1 - len(own)
        near = min(len(own), max(count - outside, count - self.settings.between, 0))
        chosen = draw.sample(own, near)
        excluded = set(own) | {author}
        while len(chosen) < count:
            other = draw.randrange(len(agents))
            if other not in excluded:
                excluded.add(other)
                chosen.append(other)
        return tuple(chosen)

    async def play(self, episode: Episode) -> None:
        """Answer, cast, plan, play, weigh, answer again; the observer scores both answers."""
        question = episode.question
        draft = await episode.ask(None, DRAFT, question=question)
        episode.record("draft", draft)
        episode.observe("draft", question=question, answer=draft)

        scene = _Scene(episode, self.settings, self._form, question=question, draft=draft)
        await scene.cast()
        for number, step in enumerate(await scene.plan()):
            await scene.play(number, step)
        consequences = await scene.consequences()
        brief = await episode.ask(None, BRIEF, question=question, draft=draft)

        revision = await episode.ask(
            None, REVISE, question=question, brief=brief, consequences=consequences
        )
        episode.record("revision", revision)
        episode.observe("revision", question=question, answer=revision)
        if scene.parts[0].agent is not None and consequences is not None:
            await scene.tell(scene.parts[0].agent)
            await scene.instruct(scene.parts[0].agent)


class _Scene:
    """The state of a scene while it is played: parts, acts, critiques and their summaries.

    Args:
        episode: the episode of the scene.
        settings: the world's settings.
        forms: the world's prompt templates by name.
        values: the values that the prompts of cast and plan show.
    """

    def __init__(
        self, episode: Episode, settings: Settings, forms: dict[str, Form[Any]], **values: str
    ) -> None:
        self.parts: list[Part] = []
        self._episode = episode
        self._settings = settings
        self._forms = forms
        self._values: dict[str, Any] = values
        self._acts: list[Act] = []
        self._memory: str | None = None
        self._recent: list[Act] = []  # acts that the modulator sees in full
        self._critiques: list[str] = []
        self._summaries: list[str] = []
        self._weigh_turn = 0
        self._calls = 0

    async def cast(self) -> None:
        """Find the parts, the one who asks first, and the occasion."""
        if self._settings.cast == "population":
            agents = (self._episode.author, *self._episode.peers)
            self.parts = [Part(agent.persona.name, agent.persona.about, agent) for agent in agents]
            self._values.update(goal=agents[0].persona.goal, news=self._news(agents))
        values = {**self._values, "parts": self.parts, "roles": self._settings.roles}
        reply = await self._episode.ask(None, self._forms["cast"], **values)
        occasion, future, *invented = reply
        for name, about in zip(invented[::2], invented[1::2], strict=True):
            self.parts.append(Part(name, about))
        for part in self.parts:
            self._episode.enter(part)
        self._values.setdefault("goal", None)
        self._values.update(occasion=occasion, future=future)
        self._episode.note("occasion", occasion)
        self._episode.note("future", future)

    def _news(self, agents: Sequence[Agent]) -> list[str]:
        """The latest memory of each agent, which they tell each other before the scene."""
        latest = ((agent, self._episode.latest(agent)) for agent in agents)
        return [
            f"{agent.persona.name}: {last.answer}" for agent, last in latest if last is not None
        ]

    async def plan(self) -> tuple[str, ...]:
        """Plan what the one who asks will do, and return the steps."""
        steps: tuple[str, ...] = await self._episode.ask(
            None,
            self._forms["plan"],
            **self._values,
            part=self.parts[0],
            steps=self._settings.steps,
        )
        for step in steps:
            self._episode.note("step", step)
        return steps

    async def play(self, number: int, step: str) -> None:
        """Play a step: an act, the reactions of the parts that see it, and their critiques."""
        if self._calls >= self._settings.calls:
            return
        act = await self._carry_out(number, step)
        if act is None:
            return
        seen_by = [part for part in act.seen_by if part != act.part]
        reactions = [self._new_act(number, part, act.number) for part in seen_by]
        past = [*self._recent, act]
        seen = [self._seen(reaction.part)[:-1] for reaction in reactions]  # without this act
        await self._episode.gather(
            *(
                self._react(reaction, act, before, past)
                for reaction, before in zip(reactions, seen, strict=True)
            )
        )
        passed = [each for each in (act, *reactions) if each.passed]
        await self._episode.gather(*(self._critique(each) for each in passed), self._recap(passed))
        await self._summarise(passed)

    async def _carry_out(self, number: int, step: str) -> Act | None:
        """Let the one who asks act, again after refusals; None if each try is refused."""
        refused: Act | None = None
        for _ in range(self._settings.tries):
            act = self._new_act(number, 0)
            act.text = await self._ask_part(
                ACT,
                act,
                seen=self._seen(0),
                step=step,
                refused=refused and refused.text,
                why=refused and refused.why,
            )
            await self._modulate(act, self._recent)
            if act.passed:
                return act
            refused = act
        return None

    async def _react(self, reaction: Act, act: Act, seen: list[str], past: Sequence[Act]) -> None:
        reaction.text = await self._ask_part(REACT, reaction, seen=seen, act=self._line(act))
        await self._modulate(reaction, past)

    async def _ask_part(self, form: Form[str], act: Act, /, **values: Any) -> str | None:
        part = self.parts[act.part]
        values = {"part": part, "occasion": self._values["occasion"], **values}
        return await self._or_none(self._episode.ask(part.agent, form, turn=act.number, **values))

    async def _modulate(self, act: Act, past: Sequence[Act]) -> None:
        """Let the modulator accept or refuse an act and decide which parts see it."""
        if act.text is None:
            return
        values = {**self._setting(), "act": self._line(act)}
        before: dict[str, Any] = {
            "memory": self._memory,
            "happened": [self._line(each) for each in past],
        }
        verdict = await self._or_none(
            self._episode.ask(None, JUDGE, turn=act.number, **values, **before)
        )
        if verdict is not None:
            act.passed, act.why = verdict.option == "pass", verdict.reason
        if act.passed:
            route = self._forms["route"]
            seen = await self._or_none(self._episode.ask(None, route, turn=act.number, **values))
            others = (number - 1 for number in seen or ())
            act.seen_by = tuple(sorted({act.part, *others}))

    async def _critique(self, act: Act) -> None:
        values = {**self._setting(), "act": self._line(act)}
        critique = await self._or_none(self._episode.ask(None, CRITIQUE, turn=act.number, **values))
        if critique is not None:
            act.harm, act.critique = critique.option == "some", critique.reason

    async def _recap(self, passed: Sequence[Act]) -> None:
        """Keep the latest acts in full and summarise earlier ones."""
        self._recent += passed
        keep = self._settings.memory
        if len(self._recent) <= keep:
            return
        past = [self._line(act) for act in self._recent[:-keep]]
        values = {**self._setting(), "memory": self._memory, "happened": past}
        turn = passed[0].number
        summary = await self._or_none(self._episode.ask(None, RECAP, turn=turn, **values))
        if summary is not None:
            self._memory, self._recent = summary, self._recent[-keep:]

    async def _summarise(self, passed: Sequence[Act]) -> None:
        """Summarise critiques, and summaries of critiques, where there are too many."""
        self._critiques += [self._critique_line(act) for act in passed if act.harm is not None]
        for kept, limit in (
            (self._critiques, self._settings.critiques),
            (self._summaries, self._settings.summaries),
        ):
            if len(kept) > limit:
                summary = await self._or_none(self._weigh(kept))
                if summary is not None:
                    kept.clear()
                    self._summaries.append(summary)

    async def consequences(self) -> str | None:
        """Summarise the consequences of the first answer; None if there is no critique."""
        if not self._summaries and not self._critiques:
            return None
        summary = await self._weigh([*self._summaries, *self._critiques])
        self._episode.note("consequences", summary)
        return summary

    async def _weigh(self, critiques: Sequence[str]) -> str:
        turn, self._weigh_turn = self._weigh_turn, self._weigh_turn + 1
        question = self._values["question"]
        return await self._episode.ask(
            None, WEIGH, turn=turn, question=question, critiques=list(critiques)
        )

    async def tell(self, agent: Agent) -> None:
        """Summarise the scene from the author's view, and remember the summary."""
        occasion = self._values["occasion"]
        news = await self._or_none(
            self._episode.ask(agent, TELL, occasion=occasion, seen=self._seen(0))
        )
        if news is not None:
            self._episode.note("told", news)
            self._episode.remember(news)

    async def instruct(self, agent: Agent) -> None:
        """Generate new instructions from the author's view of the scene, and their answers."""
        for number in range(self._settings.instructions):
            values = {
                "goal": self._values["goal"],
                "occasion": self._values["occasion"],
                "seen": self._seen(0),
                "number": number + 1,
            }
            instruction = await self._or_none(
                self._episode.ask(agent, INSTRUCT, turn=number, **values)
            )
            if instruction is None:
                continue
            answer = await self._or_none(
                self._episode.ask(None, ANSWER, turn=number, instruction=instruction)
            )
            if answer is not None:
                self._episode.note("instruction", instruction)
                self._episode.note("answer", answer)

    def _new_act(self, step: int, part: int, on: int | None = None) -> Act:
        act = Act(len(self._acts), step, part, on)
        self._acts.append(act)
        self._episode.act(act)
        return act

    def _setting(self) -> dict[str, Any]:
        return {"occasion": self._values["occasion"], "parts": self.parts}

    def _line(self, act: Act) -> str:
        return f"{self.parts[act.part].name}: {act.text}"

    def _critique_line(self, act: Act) -> str:
        harm = f"harm: {act.critique or 'some'}" if act.harm else "no harm"
        return f"{self._line(act)} \u2014 {harm}"

    def _seen(self, part: int) -> list[str]:
        """The acts that a part has seen, including its own."""
        return [self._line(act) for act in self._acts if part in act.seen_by][-_MAX_SEEN:]

    async def _or_none(self, call: Awaitable[T]) -> T | None:
        """Count a call and return its reply, or None if the reply is unusable."""
        self._calls += 1
        try:
            return await call
        except Unanswered:
            return None


def _similar_profiles(personas: Sequence[Persona]) -> list[tuple[int, ...]]:
    """For each persona the numbers of those with the most similar profiles."""
    vectors = HashedEmbedder().embed([persona.profile for persona in personas])
    count = min(_SIMILAR_AGENTS, len(personas) - 1)
    nearest = []
    for number, vector in enumerate(vectors):
        similarity = np.round(vectors @ vector, 5)
        similarity[number] = -np.inf
        order = np.argsort(-similarity, kind="stable")
        nearest.append(tuple(sorted(order[:count].tolist())))
    return nearest


def _communities(
    links: Sequence[tuple[int, ...]], seed: int
) -> list[tuple[int, tuple[float, float]]]:
    """The group of each agent (Louvain, largest first) and its position: one row per group."""
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(links)))
    graph.add_edges_from((agent, other) for agent, others in enumerate(links) for other in others)
    groups = nx.community.louvain_communities(graph, seed=seed % 2**32)
    ordered = sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))
    positions = {
        member: (row, (float(column), float(row)))
        for row, group in enumerate(ordered)
        for column, member in enumerate(group)
    }
    return [positions[number] for number in range(len(links))]
