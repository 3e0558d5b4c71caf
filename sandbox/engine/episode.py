"""Playing an episode: a world's requests become calls and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from agents.agent import Agent
from agents.forms import CallName, Form, Judgement, Parsed, Status
from agents.memory import Recalled
from agents.policy import Bounded, Policy, Rule
from agents.scale import Subject
from agents.shapes import Chosen
from sandbox.engine.bounds import Bounds, Breach, breaches
from sandbox.engine.calls import Answered, Caller
from sandbox.engine.limits import Stopped
from sandbox.engine.scheduler import Planned
from sandbox.engine.society import Society
from sandbox.engine.world_faults import reported
from storage import tables
from storage.errors import InputError
from storage.writer import Row, Writer
from worlds.base import Act, Part, Rated, Unanswered, Utterance, Verdict, World

T = TypeVar("T")


class PlayedEpisode:
    """Plays one meeting and passes its rows to the writer; a `worlds.base.Episode`.

    Args:
        planned: the meeting and its round.
        world: plays the episode, and declares its stages and scales.
        society: the agents and their memories.
        caller: sends the calls.
        writer: writes the rows.
        forms: the prompt templates of the run, by name.
        attempts: number of attempts at a usable reply before it counts as missing.
        recorded: the episode is stored already; only observations may be missing.
        bounds: the policy of the run; None for a run without one.
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
        *,
        bounds: Bounds | None = None,
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
        self._bounds = bounds
        self._id = writer.base + planned.number
        self._question, self._question_id = society.question(planned.meeting)
        self._names: set[CallName] = set()
        self._observed_stages = 0
        self._observed: set[tuple[str, int, int]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._ratings: list[Row] = []
        self._observations: list[Row] = []
        self._parts: list[Part] = []
        self._acts: list[Act] = []
        self._notes: list[tuple[str, str]] = []
        self._utterances: list[Utterance] = []
        self._verdicts: list[Verdict] = []
        self._breaches: list[Breach] = []
        self._depth = 0
        self._texts: dict[str, str] = {}
        self._learned: str | None = None
        self._failed_at: str | None = None
        self._shortened: set[Any] = set()

    @property
    def author(self) -> Agent:
        """The author.

        Raises:
            RuntimeError: the meeting has no author.
        """
        number = self.planned.meeting.author
        if number is None:
            raise RuntimeError("this episode has no author")
        return self._society.agents[number]

    @property
    def peers(self) -> Sequence[Agent]:
        """The other agents of the meeting."""
        return [self._society.agents[number] for number in self.planned.meeting.peers]

    @property
    def round(self) -> int:
        """The round, from 0."""
        return self.planned.round

    @property
    def slot(self) -> int:
        """The place of the meeting among those of its round, from 0."""
        return self.planned.number - self.planned.round * self._world.per_round(
            self._society.agents
        )

    @property
    def question(self) -> str:
        """The text of the question."""
        return self._society.question_index.texts[self._question]

    def recall(self, agent: Agent) -> Recalled | None:
        """Return the memories nearest to the question, as of the end of the previous round."""
        return self._society.recall(agent, self._question, self.planned.round)

    def latest(self, agent: Agent) -> Recalled | None:
        """Return the latest memory, as of the end of the previous round."""
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
        """Send a prompt to an agent's model; try again while the reply is unusable.

        Args:
            agent: the agent; None for the social model without a persona.
            form: the prompt template.
            past: the memory that the prompt shows.
            turn: distinguishes calls of one agent with the same template.
            values: variables of the template.

        Raises:
            Unanswered: no attempt gave a usable reply.
        """
        answer = await self._ask(agent, form, past, turn, values)
        if answer.parsed.value is None:
            raise Unanswered(form.name, turn)
        if answer.parsed.status is Status.SHORTENED:
            self._shortened.add(answer.parsed.value)
        return answer.parsed.value

    async def rate(
        self, agent: Agent, form: Form[Judgement], *, past: Recalled | None = None, **values: Any
    ) -> Rated:
        """Request a rating from a peer, and record it, also if it is missing."""
        answer = await self._ask(agent, form, past, 0, values)
        row = self._rating_row(answer)
        self._ratings.append({"rater": agent.number, **row})
        judgement = answer.parsed.value
        return Rated(agent.number, *(judgement or (None, None)))

    def observe(
        self, stage: str, *, agent: Agent | None = None, other: Agent | None = None, **values: Any
    ) -> None:
        """Start the observer's ratings of a stage on all scales that apply, in the background.

        Raises:
            RuntimeError: the world does not declare the stage, or the same is observed twice.
        """
        self._check_stage(stage)
        turn, self._observed_stages = self._observed_stages, self._observed_stages + 1
        subject: Subject = "stage" if agent is None else "agent" if other is None else "pair"
        subjects = (stage, _number(agent), _number(other))
        if subjects in self._observed:
            raise RuntimeError(f"stage {stage} is observed twice for the same agents")
        self._observed.add(subjects)
        for scale in self._declaration.scales_for(stage, subject):
            key = {
                "stage": stage,
                "scale": scale.name,
                "agent": _number(agent),
                "other": _number(other),
            }
            observation = self._observe(key, self._forms[scale.form], turn, values)
            self._tasks.append(asyncio.create_task(observation))

    async def _observe(
        self, key: Row, form: Form[Judgement], turn: int, values: dict[str, Any]
    ) -> None:
        by_author = self._declaration.scale(key["scale"]).rater == "author"
        rater = self.author if by_author else None
        answer = await self._ask(rater, form, None, turn, values, observing=not by_author)
        self._observations.append({**key, **self._rating_row(answer)})

    def record(self, stage: str, text: str) -> None:
        """Record the text of a stage.

        Raises:
            RuntimeError: the world does not declare the stage, or it is recorded twice.
            TypeError: the text is no string.
        """
        self._check_stage(stage)
        if stage in self._texts:
            raise RuntimeError(f"stage {stage} is recorded twice")
        if not isinstance(text, str):
            raise TypeError(f"the text of stage {stage} is {type(text).__name__}; expected str")
        self._texts[stage] = text

    def _check_stage(self, stage: str) -> None:
        declared = [known.name for known in self._declaration.stages]
        if stage not in declared:
            raise RuntimeError(f"stage {stage} is not declared; expected {', '.join(declared)}")

    def remember(self, text: str) -> None:
        """Store a text as the author's memory of the question when the episode ends."""
        self._learned = text

    def enter(self, part: Part) -> None:
        """Record a participant of a scene."""
        self._parts.append(part)

    def act(self, act: Act) -> None:
        """Record an act of a scene; later changes to it are stored as well."""
        self._acts.append(act)

    def note(self, kind: str, text: str) -> None:
        """Record another text of a scene."""
        self._notes.append((kind, text))

    async def judge(self, form: Form[T], *, turn: int = 0, **values: Any) -> T | None:
        """Send a prompt to the observer's model; None where no attempt gave a usable reply."""
        return (await self._ask(None, form, None, turn, values, observing=True)).parsed.value

    def utter(self, utterance: Utterance) -> None:
        """Record an utterance; later changes to it are stored as well."""
        self._utterances.append(utterance)

    def verdict(self, verdict: Verdict) -> None:
        """Record a verdict."""
        self._verdicts.append(verdict)

    @property
    def policy(self) -> Policy | None:
        """The policy of the run; None for a run without one."""
        return None if self._bounds is None else self._bounds.policy

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        """Run independent calls concurrently and return their results in order.

        If the session is stopped, calls in flight are waited for, since they cost money.
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
            raise RuntimeError(f"found a second call {name}; expected a distinct `turn`")
        self._names.add(name)
        template: Form[T] = self._forms[form.name]
        me = None if agent is None else agent.introduction
        adapter = None if agent is None else agent.persona.adapter
        try:
            prompt = template.render({**values, "me": me, "past": past})
        except ValueError as error:
            raise InputError(f"call {name}: {error}") from None
        for attempt in range(self._attempts):
            attempt_name = name._replace(attempt=attempt)
            answer = await self._caller.call(
                attempt_name, template, prompt, past, adapter, self._depth, observing
            )
            self._depth += not observing
            if answer.parsed.value is None:
                continue
            if self._bounds is None or observing or not template.bound:
                break
            last = attempt == self._attempts - 1
            kept = await self._within_bounds(attempt_name, template, answer, last)
            if kept is not None:
                return answer._replace(parsed=kept)
        return answer

    async def _within_bounds(
        self, name: CallName, form: Form[T], answer: Answered[T], last: bool
    ) -> Parsed[T] | None:
        """Check a reply against the policy, and record the rules that it breaks.

        Returns:
            What is seen of it: the reply, or what stands in its place. None: ask again.
        """
        assert self._bounds is not None

        async def ask_judge(rule: Rule, text: str) -> Parsed[Chosen]:
            return await self._ask_judge(name, rule, text)

        broken = await self._bounds.broken(form, answer.parsed.value, ask_judge)
        if not broken:
            return answer.parsed
        action = self._bounds.action(broken, last)
        self._breaches += breaches(name, answer.call_id, broken, action)
        if action == "ask_again":
            return None
        return self._bounds.replaced(answer.parsed, broken, action)

    async def _ask_judge(self, name: CallName, rule: Rule, text: str) -> Parsed[Chosen]:
        """Ask the judge of a rule about the reply of a call, as a call of the observer's model."""
        assert rule.check is not None
        form: Form[Chosen] = self._forms[rule.judge_form]
        meeting = self.planned.meeting
        agents = [None, meeting.author, *meeting.peers]
        place = list(self._forms).index(name.form) * _TURNS + name.turn
        turn = (place * len(agents) + agents.index(name.agent)) * 10 + name.attempt
        values = {"text": text, "rule": rule.text, "ask": rule.check.judge}
        return (await self._ask(None, form, None, turn, values, observing=True)).parsed

    def _rating_row(self, answer: Answered[Judgement]) -> Row:
        """Return the columns that ratings and observations have in common."""
        judgement, status = answer.parsed
        reason = judgement.reason if judgement else None
        return {
            "episode_id": self._id,
            "rating": judgement.rating if judgement else None,
            "reason_id": self._text_id(reason),
            "status": status.value,
            "call_id": answer.call_id,
        }

    def _text_id(self, text: str | None) -> int | None:
        return None if text is None else self._writer.base + self._writer.text(str(text))

    @property
    def failed_at(self) -> str | None:
        """The form without a usable reply; None where the episode was played to its end."""
        return self._failed_at

    async def play(self) -> None:
        """Play to the end, or to the first missing reply, and pass the rows to the writer."""
        try:
            with reported(self._world.settings.kind, f"play, episode {self.planned.number}"):
                await self._world.play(self)
        except Unanswered as missing:
            self._failed_at = str(missing)
        if not self._recorded:
            self._add_rows()

    def _add_rows(self) -> None:
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
            text_row = {
                "episode_id": self._id,
                "stage": stage,
                "text_id": self._text_id(text),
                "shortened": text in self._shortened,
                "rules": ",".join(text.rules) if isinstance(text, Bounded) else None,
                "refused": _is_refused(text),
            }
            writer.add(tables.stage_texts, text_row)
        writer.add_all(tables.ratings, self._ratings)
        self._add_numbered_rows()
        if self._learned is not None:
            self._add_memory(self._learned)

    def _add_numbered_rows(self) -> None:
        """Pass the rows of scenes, conversations and the policy to the writer; most have none."""
        for table, rows in (
            (tables.parts, map(self._part_row, self._parts)),
            (tables.acts, map(self._act_row, self._acts)),
            (tables.notes, (self._note_row(*note) for note in self._notes)),
            (tables.utterances, map(self._utterance_row, self._utterances)),
            (tables.verdicts, (one._asdict() for one in sorted(self._verdicts, key=_by_subject))),
            (tables.breaches, map(_breach_row, sorted(self._breaches, key=_by_name))),
        ):
            for number, row in enumerate(rows):
                self._writer.add(table, {"episode_id": self._id, "number": number, **row})

    def _utterance_row(self, utterance: Utterance) -> Row:
        return {
            "number": utterance.number,
            "kind": utterance.kind,
            "turn": utterance.turn,
            "candidate": utterance.candidate,
            "prompt_id": self._text_id(utterance.prompt),
            "text_id": self._text_id(utterance.text),
            "refused": _is_refused(utterance.text),
            "chosen": utterance.chosen,
            "score": utterance.score,
            "manner": utterance.manner,
            "request": utterance.request,
            "rule": utterance.rule,
        }

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
        shortened = text in self._shortened
        return {"kind": kind, "text_id": self._text_id(text), "shortened": shortened}

    def _add_memory(self, answer: str) -> None:
        writer, answer = self._writer, str(answer)
        text_number = writer.text(answer)
        memory_id = writer.base + writer.new_id(tables.memories)
        self.author.memory.remember(
            self.planned.round, self._question, answer, memory_id, text_number
        )
        row = {
            "id": memory_id,
            "run_id": writer.run_id,
            "agent": self.author.number,
            "round": self.planned.round,
            "question_id": self._question_id,
            "text_id": writer.base + text_number,
            "episode_id": self._id,
        }
        writer.add(tables.memories, row)

    async def finish_observations(self) -> None:
        """Wait for the observer's ratings and pass them to the writer: the episode is complete."""
        await self.gather(*self._tasks)
        self._writer.add_all(tables.observations, self._observations)
        self._writer.mark_complete(self._id)

    def scores(self) -> Iterator[tuple[str, str, float]]:
        """Yield the observer's ratings as (stage, scale, rating), without missing ones."""
        for row in self._observations:
            if row["rating"] is not None:
                yield row["stage"], row["scale"], row["rating"]

    async def drain(self) -> None:
        """Wait for the observations that are in progress."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cancel(self) -> None:
        """Cancel the observations that are in progress."""
        for task in self._tasks:
            task.cancel()
        asyncio.gather(*self._tasks, return_exceptions=True)  # retrieve their exceptions


_TURNS = 1000
"""More than the turns of any prompt template, so that the calls of judges have distinct names."""


def _is_refused(text: str | None) -> bool:
    """Whether a text is the policy's refusal, in place of a reply."""
    return isinstance(text, Bounded) and text.refused


def _breach_row(breach: Breach) -> Row:
    row = breach._asdict()
    del row["name"]
    return row


def _by_subject(verdict: Verdict) -> tuple[str, str, int]:
    """The order of verdicts, since replies of an episode arrive in any order."""
    return verdict.kind, verdict.subject, -1 if verdict.utterance is None else verdict.utterance


def _by_name(breach: Breach) -> tuple[Any, ...]:
    """The order of breaches, since replies of an episode arrive in any order."""
    name = breach.name
    return name.form, name.agent is not None, name.agent or 0, name.turn, name.attempt, breach.rule


def _number(agent: Agent | None) -> int:
    """Return the number in the columns `agent` and `other` of an observation; -1 for none."""
    return -1 if agent is None else agent.number
