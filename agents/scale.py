"""Scales, stages and measures: what a world records, declared once.

A world declares its stages (what is recorded of an episode) and its scales (what is rated, by whom
and in which range). Tables, sums, pages, figures, reports, comparisons, dataset columns and the
stopping rule follow from that declaration, which is stored with the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field, model_validator

Better = Literal["high", "low"]
Subject = Literal["stage", "agent", "pair"]
Rater = Literal["observer", "peers"]

_NAME = r"^[a-z][a-z0-9_]{0,30}$"
_ENDS = "{low}: not at all. {high}: entirely."
_MOST_VALUES = 201  # of an integer scale: its labels are listed in a regular expression
_RESERVED = frozenset(
    (
        "agent",
        "agents",
        "author",
        "calls",
        "digest",
        "draft_ratings",
        "episode",
        "expected",
        "failed",
        "failed_at",
        "front",
        "id",
        "label",
        "mean_rating",
        "missing_ratings",
        "model",
        "models",
        "observations",
        "observer_model",
        "persona",
        "question",
        "question_source",
        "raters",
        "rating",
        "ratings",
        "reason",
        "round",
        "run",
        "scene",
        "scripted",
        "stage",
        "stages",
        "status",
        "text",
    )
)
"""Names of columns and keys that stand beside those of scales and stages."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Scale(_Part):
    """A rating scale.

    Attributes:
        name: in columns, file names and addresses.
        low, high: its ends; ratings outside are unparseable.
        integer: whole numbers only; otherwise numbers with at most two decimals.
        better: which end is the better one.
        ask: what the observer is asked, in the words of its prompt. Of a scale that peers rate on,
            the world's prompt template asks.
        rater: who rates: the observer, or the peers.
        subject: what is rated: the text of a stage, an agent in it, or a pair of agents.
        stages: the stages that are rated; empty: every stage of the world.
        same_as: the observer's scale that means the same, so that agreement can be measured.
    """

    name: str = Field(pattern=_NAME)
    low: float = 1
    high: float = 7
    integer: bool = True
    better: Better = "high"
    ask: str = ""
    rater: Rater = "observer"
    subject: Subject = "stage"
    stages: tuple[str, ...] = ()
    same_as: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Scale:
        if self.name in _RESERVED:
            raise ValueError(f"another name than {self.name}, which means something else")
        if not -1e6 <= self.low < self.high <= 1e6:
            raise ValueError("low below high, both between -1,000,000 and 1,000,000")
        if self.integer and (self.low % 1 or self.high % 1):
            raise ValueError("whole numbers for low and high, or integer: false")
        if self.integer and self.high - self.low >= _MOST_VALUES:
            raise ValueError(f"at most {_MOST_VALUES} whole numbers, or integer: false")
        return self

    @property
    def title(self) -> str:
        """The name as people read it."""
        return self.name.replace("_", " ")

    @property
    def range(self) -> str:
        """The range as prompts and people read it: ``1 to 7``."""
        return f"{plain_number(self.low)} to {plain_number(self.high)}"

    @property
    def form(self) -> str:
        """The name of the prompt template by which the observer is asked."""
        return f"observe_{self.name}"

    @property
    def question(self) -> str:
        """The question to the observer: `ask` with the ends of the range filled in.

        Where `ask` names none of ``{low}``, ``{middle}`` and ``{high}``, the meaning of the ends
        is added.
        """
        ask = self.ask or f"How would you score the {self.title}?"
        ends = {"low": self.low, "middle": (self.low + self.high) / 2, "high": self.high}
        if not any(f"{{{name}}}" in ask for name in ends):
            ask = f"{ask} {_ENDS}"
        for name, value in ends.items():
            ask = ask.replace(f"{{{name}}}", plain_number(value))
        return ask

    def gain(self, before: float, after: float) -> float:
        """By how much a rating improved: positive where it moved to the better end."""
        return after - before if self.better == "high" else before - after


def plain_number(number: float) -> str:
    """A number as people write it: without decimals where it has none."""
    return f"{int(number)}" if number == int(number) else f"{number:g}"


class Stage(_Part):
    """What is recorded of an episode at one point.

    Attributes:
        name: in columns and JSON.
        answer: whether its text answers the episode's question. Formats of datasets that train on
            answers use such stages only.
        suffix: ending of the columns about it in the dataset format `exchanges`; by default its
            name.
        form: the name of the prompt template whose reply is its text; None where it is not the
            reply to a single prompt. Rows of datasets name it.
    """

    name: str = Field(pattern=_NAME)
    answer: bool = True
    suffix: str | None = None
    form: str | None = None

    @property
    def title(self) -> str:
        """The name as people read it."""
        return self.name.replace("_", " ")

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if self.name in _RESERVED:
            raise ValueError(f"another name than {self.name}, which means something else")
        return self


class Measure(NamedTuple):
    """A number that an episode has, or lacks.

    Attributes:
        name: such as `draft_alignment`, `alignment_gain` or `peer_rating`.
        kind: `score` (the observer's rating of a stage; of agents or pairs their mean), `gain`
            (of the last rated stage over the first, positive where it is better), or `peers` (the
            mean of the peers' ratings).
        scale: the scale that it is on.
        stage: the stage that is rated; of a gain the last one.
        base: of a gain the first stage; None elsewhere.
    """

    name: str
    kind: Literal["score", "gain", "peers"]
    scale: Scale
    stage: str
    base: str | None = None

    @property
    def title(self) -> str:
        """The name as people read it."""
        return self.name.replace("_", " ")

    @property
    def low(self) -> float:
        """The lowest value that it can have."""
        return self.scale.low - self.scale.high if self.kind == "gain" else self.scale.low

    @property
    def high(self) -> float:
        """The highest value that it can have."""
        return self.scale.high - self.scale.low if self.kind == "gain" else self.scale.high


class Declaration(_Part):
    """What the episodes of a run record: stages in order, and scales, the main one first."""

    stages: tuple[Stage, ...]
    scales: tuple[Scale, ...]

    @model_validator(mode="after")
    def _check(self) -> Declaration:
        stages = [stage.name for stage in self.stages]
        for scale in self.scales:
            missing = [name for name in scale.stages if name not in stages]
            if missing:
                there = ", ".join(stages) or "none"
                raise ValueError(f"{scale.name}: stages: found {missing[0]}, expected {there}")
        names = [measure.name for measure in self.measures]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} would mean two things; expected other names")
        if sum(scale.rater == "peers" for scale in self.scales) > 1:
            raise ValueError("at most one scale that peers rate on")
        return self

    @property
    def observed(self) -> tuple[Scale, ...]:
        """The observer's scales."""
        return tuple(scale for scale in self.scales if scale.rater == "observer")

    @property
    def peers(self) -> Scale | None:
        """The scale that peers rate on, if they rate."""
        return next((scale for scale in self.scales if scale.rater == "peers"), None)

    @property
    def main(self) -> Scale | None:
        """The observer's first scale: the one that an overview shows."""
        return next(iter(self.observed), None)

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of the stages that answer the question."""
        return tuple(stage.name for stage in self.stages if stage.answer)

    def scale(self, name: str) -> Scale:
        """The scale of this name. Raises KeyError."""
        return next((one for one in self.scales if one.name == name), None) or _missing(name)

    def stages_of(self, scale: Scale) -> tuple[str, ...]:
        """The stages that are rated on a scale, in order."""
        return tuple(s.name for s in self.stages if not scale.stages or s.name in scale.stages)

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """All measures: of each scale its stages and its gain; the peers' last."""
        return (*(one for scale in self.observed for one in self._of(scale)), *self._of_peers())

    def _of(self, scale: Scale) -> Iterator[Measure]:
        stages = self.stages_of(scale)
        for stage in stages:
            yield Measure(f"{stage}_{scale.name}", "score", scale, stage)
        if len(stages) > 1:
            yield Measure(f"{scale.name}_gain", "gain", scale, stages[-1], stages[0])

    def _of_peers(self) -> Iterator[Measure]:
        if self.peers is not None:
            stage = next(iter(self.stages_of(self.peers)), "")
            yield Measure(self.peers.name, "peers", self.peers, stage)

    @cached_property
    def _asked(self) -> dict[tuple[str, Subject], tuple[Scale, ...]]:
        subjects: tuple[Subject, ...] = ("stage", "agent", "pair")
        return {
            (stage.name, subject): tuple(
                scale
                for scale in self.observed
                if scale.subject == subject and stage.name in self.stages_of(scale)
            )
            for stage in self.stages
            for subject in subjects
        }

    def asked(self, stage: str, subject: Subject) -> tuple[Scale, ...]:
        """The scales on which the observer rates a stage, or agents or pairs in it.

        Raises:
            KeyError: there is no such stage.
        """
        return self._asked[stage, subject]

    def same_as(self, measure: Measure) -> Measure | None:
        """The observer's measure that means the same as the peers' one, on the same range."""
        scale = measure.scale
        if measure.kind != "peers" or scale.same_as is None or not scale.integer:
            return None
        name = f"{measure.stage}_{scale.same_as}"
        found = next((one for one in self.measures if one.name == name), None)
        same = found is not None and (found.low, found.high) == (scale.low, scale.high)
        return found if same and found is not None and found.scale.integer else None

    def measure(self, name: str) -> Measure:
        """The measure of this name. Raises KeyError."""
        return next((one for one in self.measures if one.name == name), None) or _missing(name)

    def final(self, scale: Scale) -> Measure | None:
        """The measure of the last stage that is rated on a scale."""
        stages = self.stages_of(scale)
        return self.measure(f"{stages[-1]}_{scale.name}") if stages else None

    def gain(self, scale: Scale) -> Measure | None:
        """The measure of the gain on a scale; None where only one stage is rated."""
        name = f"{scale.name}_gain"
        return next((one for one in self.measures if one.name == name), None)


def _missing(name: str) -> NoReturn:
    raise KeyError(name)
