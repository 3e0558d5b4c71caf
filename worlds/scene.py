"""The scene world: a model sees what its advice would lead to, before it gives it.

The method is that of Pang et al., "Self-Alignment of Large Language Models via Monopolylogue-based
Social Scene Simulation" (arXiv 2402.05699): a first answer; a cast around the one who asks; a plan
of steps; a play in which a social modulator passes or refuses each act and says who sees it, and
those who see it react; a critique of what came to pass, in which "no harm" is an answer; a second
answer that knows the consequences. With `cast: population` the parts are taken by members of a
society who are grouped by their profiles, who tell each other what they lived through, and from
whose scenes new instructions are drawn, after "MATRIX-Gen" (arXiv 2410.14251). The prompts are our
own.
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

_SEEN = 12
"""Acts that a part has before its eyes, the latest."""

_ALIKE = 4
"""Agents of the most similar profiles that an agent is linked to, before groups are sought."""


class Settings(base.Settings):
    """The `world:` part of a config for the scene world.

    Attributes:
        cast: who takes the parts: people that the model invents, or agents of a population.
        scenes: how many a round has; by default 10, or one for each agent.
        agents: how many the population has; by default one for each persona.
        roles: parts of a scene, the one who asks among them.
        steps: of the plan.
        tries: how often an act is tried that the modulator refuses.
        memory: acts that the modulator has in full; those before are summarised.
        critiques: those kept in full; beyond it they are summarised.
        summaries: of critiques, at most; beyond it they are summarised again.
        calls: after so many a play is broken off, and what came to pass is weighed.
        between: parts that agents of other groups take.
        instructions: how many are drawn from a scene.
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
    """Scenes around questions, each independent of the others of its round."""

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
        """Nobody, or a population in groups of like profiles."""
        s = self.settings
        if s.cast == "invented":
            return []
        count = len(personas) if s.agents is None else s.agents
        if count < s.roles:
            raise SettingError("agents", f"found {count}; expected at least roles = {s.roles}")
        order = chance(self.seed, "personas").sample(range(len(personas)), len(personas))
        people = [personas[order[number % len(order)]] for number in range(count)]
        links = _like(people)
        groups = _communities(links, self.seed)
        return [
            Agent(n, "neutral", one, *place, links=links[n], community=group)
            for n, (one, (group, place)) in enumerate(zip(people, groups, strict=True))
        ]

    def inherit(self, agent: Agent, pairs: Sequence[Pair], count: int) -> Iterable[Pair]:
        """Pairs of any label."""
        if len(pairs) < count:
            expected = f"at least memory.prior_pairs = {count}"
            raise SettingError("cast", f"found {len(pairs)} prior pairs; expected {expected}")
        return chance(self.seed, "prior", agent.number).sample(pairs, count)

    def per_round(self, agents: Sequence[Agent]) -> int:
        """The number of scenes; an agent has one a round at most."""
        s = self.settings
        if s.cast == "invented":
            return s.scenes or 10
        if s.scenes is not None and s.scenes > len(agents):
            raise SettingError(
                "scenes", f"found {s.scenes}; expected at most one for each of {len(agents)} agents"
            )
        return s.scenes or len(agents)

    def meet(self, agents: Sequence[Agent], round: int) -> list[Meeting]:
        """Scenes of nobody in particular, or each of one agent, drawn by chance."""
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
        """Those who play along: of the author's own group, and some of others."""
        draw = chance(self.seed, "others", round, author)
        own = [one for one in groups[agents[author].community] if one != author]
        count = self.settings.roles - 1
        outside = len(agents) - 1 - len(own)
        near = min(len(own), max(count - outside, count - self.settings.between, 0))
        chosen = draw.sample(own, near)
        left = set(own) | {author}
        while len(chosen) < count:
            other = draw.randrange(len(agents))
            if other not in left:
                left.add(other)
                chosen.append(other)
        return tuple(chosen)

    async def play(self, episode: Episode) -> None:
        """Answer; cast; plan; play; weigh; answer again. The observer scores both answers."""
        question = episode.question
        draft = await episode.ask(None, DRAFT, question=question)
        episode.record("draft", draft)
        episode.observe("draft", question=question, answer=draft)

        scene = _Scene(episode, self.settings, self._form, question=question, draft=draft)
        await scene.cast()
        for step, what in enumerate(await scene.plan()):
            await scene.play(step, what)
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
    """A scene as it is played: who is on stage, what has happened, what was said of it.

    Args:
        episode: the episode that it is.
        settings: how it is played.
        forms: the world's forms by name.
        told: what the prompts of cast and plan show.
    """

    def __init__(
        self, episode: Episode, settings: Settings, forms: dict[str, Form[Any]], **told: str
    ) -> None:
        self.parts: list[Part] = []
        self._episode = episode
        self._settings = settings
        self._forms = forms
        self._told: dict[str, Any] = told
        self._acts: list[Act] = []
        self._memory: str | None = None
        self._recent: list[Act] = []  # those that the modulator has in full
        self._critiques: list[str] = []
        self._summaries: list[str] = []
        self._weighed = 0
        self._calls = 0

    async def cast(self) -> None:
        """Find the people around the question, the one who asks first, and the occasion."""
        if self._settings.cast == "population":
            people = (self._episode.author, *self._episode.peers)
            self.parts = [Part(one.persona.name, one.persona.about, one) for one in people]
            self._told.update(goal=people[0].persona.goal, news=self._news(people))
        told = {**self._told, "parts": self.parts, "roles": self._settings.roles}
        found = await self._episode.ask(None, self._forms["cast"], **told)
        occasion, future, *invented = found
        for name, about in zip(invented[::2], invented[1::2], strict=True):
            self.parts.append(Part(name, about))
        for part in self.parts:
            self._episode.enter(part)
        self._told.setdefault("goal", None)
        self._told.update(occasion=occasion, future=future)
        self._episode.note("occasion", occasion)
        self._episode.note("future", future)

    def _news(self, people: Sequence[Agent]) -> list[str]:
        """What they tell each other: what each lived through last, inside and between groups."""
        told = ((one, self._episode.latest(one)) for one in people)
        return [f"{one.persona.name}: {last.answer}" for one, last in told if last is not None]

    async def plan(self) -> tuple[str, ...]:
        """What the one who asks is going to do, step by step."""
        steps: tuple[str, ...] = await self._episode.ask(
            None,
            self._forms["plan"],
            **self._told,
            part=self.parts[0],
            steps=self._settings.steps,
        )
        for step in steps:
            self._episode.note("step", step)
        return steps

    async def play(self, step: int, what: str) -> None:
        """One step: an act, the reactions of those who see it, and what harm there is in them."""
        if self._calls >= self._settings.calls:
            return
        done = await self._carry_out(step, what)
        if done is None:
            return
        seen_by = [part for part in done.seen_by if part != done.part]
        answers = [self._new(step, part, done.number) for part in seen_by]
        past = [*self._recent, done]
        shown = [self._seen(one.part)[:-1] for one in answers]  # as of now, without this act
        await self._episode.gather(
            *(self._react(one, done, seen, past) for one, seen in zip(answers, shown, strict=True))
        )
        passed = [one for one in (done, *answers) if one.passed]
        await self._episode.gather(*(self._critique(one) for one in passed), self._recap(passed))
        await self._summarise(passed)

    async def _carry_out(self, step: int, what: str) -> Act | None:
        """Have the one who asks act; what the modulator refuses is tried again."""
        refused: Act | None = None
        for _ in range(self._settings.tries):
            one = self._new(step, 0)
            one.text = await self._said(
                ACT,
                one,
                seen=self._seen(0),
                step=what,
                refused=refused and refused.text,
                why=refused and refused.why,
            )
            await self._modulate(one, self._recent)
            if one.passed:
                return one
            refused = one
        return None

    async def _react(self, one: Act, on: Act, seen: list[str], past: Sequence[Act]) -> None:
        one.text = await self._said(REACT, one, seen=seen, act=self._line(on))
        await self._modulate(one, past)

    async def _said(self, form: Form[str], one: Act, **values: Any) -> str | None:
        part = self.parts[one.part]
        told = {"part": part, "occasion": self._told["occasion"], **values}
        return await self._maybe(self._episode.ask(part.agent, form, turn=one.number, **told))

    async def _modulate(self, one: Act, past: Sequence[Act]) -> None:
        """Have the modulator pass an act or refuse it, and say who sees it."""
        if one.text is None:
            return
        told = {**self._stage(), "act": self._line(one)}
        before: dict[str, Any] = {
            "memory": self._memory,
            "happened": [self._line(each) for each in past],
        }
        verdict = await self._maybe(
            self._episode.ask(None, JUDGE, turn=one.number, **told, **before)
        )
        if verdict is not None:
            one.passed, one.why = verdict.option == "pass", verdict.reason
        if one.passed:
            route = self._forms["route"]
            seen = await self._maybe(self._episode.ask(None, route, turn=one.number, **told))
            others = (number - 1 for number in seen or ())
            one.seen_by = tuple(sorted({one.part, *others}))

    async def _critique(self, one: Act) -> None:
        told = {**self._stage(), "act": self._line(one)}
        found = await self._maybe(self._episode.ask(None, CRITIQUE, turn=one.number, **told))
        if found is not None:
            one.harm, one.critique = found.option == "some", found.reason

    async def _recap(self, passed: Sequence[Act]) -> None:
        """Keep the latest acts in full and a summary of those before."""
        self._recent += passed
        keep = self._settings.memory
        if len(self._recent) <= keep:
            return
        past = [self._line(one) for one in self._recent[:-keep]]
        told = {**self._stage(), "memory": self._memory, "happened": past}
        turn = passed[0].number
        summary = await self._maybe(self._episode.ask(None, RECAP, turn=turn, **told))
        if summary is not None:
            self._memory, self._recent = summary, self._recent[-keep:]

    async def _summarise(self, passed: Sequence[Act]) -> None:
        """Keep so many critiques, and so many summaries of those before."""
        self._critiques += [self._told_of(one) for one in passed if one.harm is not None]
        for kept, limit in (
            (self._critiques, self._settings.critiques),
            (self._summaries, self._settings.summaries),
        ):
            if len(kept) > limit:
                summary = await self._maybe(self._weigh(kept))
                if summary is not None:
                    kept.clear()
                    self._summaries.append(summary)

    async def consequences(self) -> str | None:
        """What the first answer led to; None where nothing that was played can tell."""
        if not self._summaries and not self._critiques:
            return None
        found = await self._weigh([*self._summaries, *self._critiques])
        self._episode.note("consequences", found)
        return found

    async def _weigh(self, critiques: Sequence[str]) -> str:
        turn, self._weighed = self._weighed, self._weighed + 1
        told = {"question": self._told["question"], "critiques": list(critiques)}
        return await self._episode.ask(None, WEIGH, turn=turn, **told)

    async def tell(self, agent: Agent) -> None:
        """What the one who asks tells others from now on: it is what they remember of the scene."""
        told: dict[str, Any] = {"occasion": self._told["occasion"], "seen": self._seen(0)}
        news = await self._maybe(self._episode.ask(agent, TELL, **told))
        if news is not None:
            self._episode.note("told", news)
            self._episode.remember(news)

    async def instruct(self, agent: Agent) -> None:
        """Draw new instructions, and their answers, from what the one who asks lived through."""
        told = {"goal": self._told["goal"], "occasion": self._told["occasion"]}
        for number in range(self._settings.instructions):
            values = {**told, "seen": self._seen(0), "number": number + 1}
            made = await self._maybe(self._episode.ask(agent, INSTRUCT, turn=number, **values))
            if made is None:
                continue
            asked = self._episode.ask(None, ANSWER, turn=number, instruction=made)
            answer = await self._maybe(asked)
            if answer is not None:
                self._episode.note("instruction", made)
                self._episode.note("answer", answer)

    def _new(self, step: int, part: int, on: int | None = None) -> Act:
        one = Act(len(self._acts), step, part, on)
        self._acts.append(one)
        self._episode.act(one)
        return one

    def _stage(self) -> dict[str, Any]:
        return {"occasion": self._told["occasion"], "parts": self.parts}

    def _line(self, one: Act) -> str:
        return f"{self.parts[one.part].name}: {one.text}"

    def _told_of(self, one: Act) -> str:
        harm = f"harm: {one.critique or 'some'}" if one.harm else "no harm"
        return f"{self._line(one)} \u2014 {harm}"

    def _seen(self, part: int) -> list[str]:
        """What a part has seen of what came to pass, its own acts among it."""
        return [self._line(one) for one in self._acts if part in one.seen_by][-_SEEN:]

    async def _maybe(self, asked: Awaitable[T]) -> T | None:
        """The reply, or None where there is none that can be used."""
        self._calls += 1
        try:
            return await asked
        except Unanswered:
            return None


def _like(people: Sequence[Persona]) -> list[tuple[int, ...]]:
    """For each person those of the most similar profiles."""
    profiles = [f"{p.occupation} {p.place} {' '.join(p.values)} {p.goal or ''}" for p in people]
    vectors = HashedEmbedder().embed(profiles)
    count = min(_ALIKE, len(people) - 1)
    found = []
    for number, vector in enumerate(vectors):
        near = np.round(vectors @ vector, 5)
        near[number] = -np.inf
        found.append(tuple(sorted(np.argsort(-near, kind="stable")[:count].tolist())))
    return found


def _communities(
    links: Sequence[tuple[int, ...]], seed: int
) -> list[tuple[int, tuple[float, float]]]:
    """The group of each, the largest group first, and where it is shown: groups in rows."""
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(links)))
    graph.add_edges_from((one, other) for one, others in enumerate(links) for other in others)
    groups = nx.community.louvain_communities(graph, seed=seed % 2**32)
    ordered = sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))
    places = {
        member: (row, (float(column), float(row)))
        for row, group in enumerate(ordered)
        for column, member in enumerate(group)
    }
    return [places[number] for number in range(len(links))]
