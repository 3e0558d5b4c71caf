"""An episode as it is played: what a world asks of it becomes calls and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from agents.agent import Agent
from agents.forms import CallName, Form, Judgement
from agents.memory import Recalled
from agents.scale import Subject
from sandbox.engine.calls import Answered, Caller
from sandbox.engine.limits import Stopped
from sandbox.engine.scheduler import Planned
from sandbox.engine.society import Society
from storage import tables
from storage.errors import InputError
from storage.writer import Row, Writer
from worlds.base import Act, Part, Rated, Unanswered, World

T = TypeVar("T")


class PlayedEpisode:
    """Plays one meeting and hands its rows to the writer.

    Args:
        planned: who meets, in which round.
        world: plays it, and declares what it records.
        society: the agents and what they remember.
        caller: the way to the models.
        writer: where the rows go.
        forms: the world's forms as worded in this run, by name.
        attempts: how often a reply is asked for before it counts as missing.
        recorded: the episode is in the database already; only observations may be missing.
    """

    def __init__(
        self,
        planned: Planned,
        world: World,
        society: Society,
        caller: Caller,
        writer: Writer,
        forms: Mapping[str, Form[Any]],
        attempts: int,
        recorded: bool,
    ) -> None:
        self.planned = planned
        self._world = world
        self._declaration = world.declaration
        self._society = society
        self._caller = caller
        self._writer = writer
        self._forms = forms
        self._attempts = attempts
        self._recorded = recorded
        self._id = writer.base + planned.number
        self._question, self._question_id = society.question(planned.meeting)
        self._names: set[CallName] = set()
        self._observed_stages = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ratings: list[Row] = []
        self._observations: list[Row] = []
        self._parts: list[Part] = []
        self._acts: list[Act] = []
        self._notes: list[tuple[str, str]] = []
        self._depth = 0
        self._texts: dict[str, str] = {}
        self._learned: str | None = None
        self._failed_at: str | None = None

    @property
    def author(self) -> Agent:
        """Whose episode it is."""
        number = self.planned.meeting.author
        if number is None:
            raise RuntimeError("this episode has no author")
        return self._society.agents[number]

    @property
    def peers(self) -> Sequence[Agent]:
        """Who else takes part."""
        return [self._society.agents[number] for number in self.planned.meeting.peers]

    @property
    def question(self) -> str:
        """What it is about."""
        return self._society.question_index.texts[self._question]

    def recall(self, agent: Agent) -> Recalled | None:
        """What the agent remembers nearest to the question, as of the end of the round before."""
        return self._society.recall(agent, self._question, self.planned.round)

    def latest(self, agent: Agent) -> Recalled | None:
        """What the agent learned last, as of the end of the round before."""
        return self._society.latest(agent, self.planned.round)

    async def ask(
        self,
        agent: Agent | None,
        form: Form[T],
        *,
        past: Recalled | None = None,
        turn: int = 0,
        **values: Any,
    ) -> T:
        """Have an agent fill in a form, and ask again while the reply cannot be used."""
        answer = await self._ask(agent, form, past, turn, values)
        if answer.parsed.value is None:
            raise Unanswered(form.name, turn)
        return answer.parsed.value

    async def rate(
        self, agent: Agent, form: Form[Judgement], *, past: Recalled | None = None, **values: Any
    ) -> Rated:
        """Have a peer rate, and record the rating, also where there is none to be read."""
        answer = await self._ask(agent, form, past, 0, values)
        row = self._judged(answer)
        self._ratings.append({"rater": agent.number, **row})
        judged = answer.parsed.value
        return Rated(agent.number, *(judged or (None, None)))

    def observe(
        self, stage: str, *, agent: Agent | None = None, other: Agent | None = None, **values: Any
    ) -> None:
        """Have the observer rate a stage on every scale that applies to it, in the background."""
        turn, self._observed_stages = self._observed_stages, self._observed_stages + 1
        subject: Subject = "stage" if agent is None else "agent" if other is None else "pair"
        who = {"agent": _number(agent), "other": _number(other)}
        for scale in self._declaration.scales_for(stage, subject):
            place = {"stage": stage, "scale": scale.name, **who}
            score = self._score(place, self._forms[scale.form], turn, values)
            self._tasks.append(asyncio.create_task(score))

    async def _score(
        self, place: Row, form: Form[Judgement], turn: int, values: dict[str, Any]
    ) -> None:
        answer = await self._ask(None, form, None, turn, values, observing=True)
        self._observations.append({**place, **self._judged(answer)})

    def record(self, stage: str, text: str) -> None:
        """Record the text of a stage."""
        if stage not in (known := [one.name for one in self._declaration.stages]):
            raise RuntimeError(f"stage {stage}: not declared; the world has {', '.join(known)}")
        self._texts[stage] = text

    def remember(self, text: str) -> None:
        """Have the author learn this about the question."""
        self._learned = text

    def enter(self, part: Part) -> None:
        """Record somebody who takes part in a scene."""
        self._parts.append(part)

    def act(self, act: Act) -> None:
        """Record an act of a scene, as it is when the episode ends."""
        self._acts.append(act)

    def note(self, kind: str, text: str) -> None:
        """Record what else a scene has brought."""
        self._notes.append((kind, text))

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        """Wait for several calls that do not depend on each other.

        When the run is to stop, those under way are waited for: their replies are paid for.
        """
        tasks = [asyncio.ensure_future(call) for call in calls]
        try:
            return await asyncio.gather(*tasks)
        except Stopped:
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _ask(
        self,
        agent: Agent | None,
        form: Form[T],
        past: Recalled | None,
        turn: int,
        values: dict[str, Any],
        observing: bool = False,
    ) -> Answered[T]:
        number = None if agent is None else agent.number
        name = CallName(self.planned.round, self.planned.number, form.name, number, turn)
        if name in self._names:
            raise RuntimeError(f"call {name} is asked twice: tell the calls apart by `turn`")
        self._names.add(name)
        worded: Form[T] = self._forms[form.name]
        me = None if agent is None else agent.introduction
        adapter = None if agent is None else agent.persona.adapter
        try:
            prompt = worded.render({**values, "me": me, "past": past})
        except ValueError as error:
            raise InputError(f"call {name}: {error}") from None
        for attempt in range(self._attempts):
            again = name._replace(attempt=attempt)
            answer = await self._caller.call(
                again, worded, prompt, past, adapter, self._depth, observing
            )
            self._depth += not observing
            if answer.parsed.value is not None:
                break
        return answer

    def _judged(self, answer: Answered[Judgement]) -> Row:
        """The columns that a rating and an observation have in common."""
        judged, status = answer.parsed
        reason = judged.reason if judged else None
        return {
            "episode_id": self._id,
            "rating": judged.rating if judged else None,
            "reason_id": self._text_id(reason),
            "status": status.value,
            "call_id": answer.call_id,
        }

    def _text_id(self, text: str | None) -> int | None:
        return None if text is None else self._writer.base + self._writer.text(text)

    async def play(self) -> None:
        """Play to the end, or to the reply that is missing, and hand over the rows."""
        try:
            await self._world.play(self)
        except Unanswered as missing:
            self._failed_at = str(missing)
        if not self._recorded:
            self._record()

    def _record(self) -> None:
        writer = self._writer
        row = {
            "id": self._id,
            "run_id": writer.run_id,
            "round": self.planned.round,
            "author": self.planned.meeting.author,
            "question_id": self._question_id,
            "failed_at": self._failed_at,
            "observed": False,
        }
        writer.add(tables.episodes, row)
        for stage, text in self._texts.items():
            text_row = {"episode_id": self._id, "stage": stage, "text_id": self._text_id(text)}
            writer.add(tables.stage_texts, text_row)
        writer.add_all(tables.ratings, self._ratings)
        self._record_scene()
        if self._learned is not None:
            self._learn(self._learned)

    def _record_scene(self) -> None:
        """Hand over the rows of a scene, of which most episodes have none."""
        for table, rows in (
            (tables.parts, map(self._part_row, self._parts)),
            (tables.acts, map(self._act_row, self._acts)),
            (tables.notes, (self._note_row(*note) for note in self._notes)),
        ):
            for number, row in enumerate(rows):
                self._writer.add(table, {"episode_id": self._id, "number": number, **row})

    def _part_row(self, part: Part) -> Row:
        return {
            "name_id": self._text_id(part.name),
            "about_id": self._text_id(part.about),
            "agent": part.agent and part.agent.number,
        }

    def _act_row(self, act: Act) -> Row:
        return {
            "step": act.step,
            "part": act.part,
            "reacts_to": act.on,
            "text_id": self._text_id(act.text),
            "passed": act.passed,
            "why_id": self._text_id(act.why),
            "seen_by": ",".join(map(str, act.seen_by)),
            "harm": act.harm,
            "critique_id": self._text_id(act.critique),
        }

    def _note_row(self, kind: str, text: str) -> Row:
        return {"kind": kind, "text_id": self._text_id(text)}

    def _learn(self, answer: str) -> None:
        writer = self._writer
        text_id = self._writer.base + self._writer.text(answer)
        memory_id = writer.base + writer.new_id(tables.memories)
        place = self.planned.round, self._question
        self.author.memory.remember(*place, answer, memory_id, text_id - writer.base)
        row = {
            "id": memory_id,
            "run_id": writer.run_id,
            "agent": self.author.number,
            "round": self.planned.round,
            "question_id": self._question_id,
            "text_id": text_id,
            "episode_id": self._id,
        }
        writer.add(tables.memories, row)

    async def observed(self) -> None:
        """Wait for the observer's scores and hand them over."""
        await self.gather(*self._tasks)
        self._writer.add_all(tables.observations, self._observations)
        self._writer.mark_complete(self._id)

    def scores(self) -> Iterator[tuple[str, str, float]]:
        """The observer's ratings as (stage, scale, rating); unparseable ones are left out."""
        for row in self._observations:
            if row["rating"] is not None:
                yield row["stage"], row["scale"], row["rating"]

    async def drain(self) -> None:
        """Wait for the scores that are under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cancel(self) -> None:
        """Give up on scores that are outstanding."""
        for task in self._tasks:
            task.cancel()
        asyncio.gather(*self._tasks, return_exceptions=True)  # nobody asks what became of them


def _number(agent: Agent | None) -> int:
    """As the columns `agent` and `other` of an observation have it: -1 for nobody."""
    return -1 if agent is None else agent.number
