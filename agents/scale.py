"""Scales, stages and measures: the declaration of what a world records.

A world declares its stages (the texts that an episode records) and its scales (what is rated, by
whom and in which range). Tables, summaries, pages, figures, reports, comparisons, dataset columns
and the stopping rule follow from that declaration, which is stored with the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple, NoReturn

from pydantic import Field, model_validator

from agents.section import Section

Better = Literal["high", "low"]
Subject = Literal["stage", "agent", "pair"]
Rater = Literal["observer", "peers", "author"]

_NAME = r"^[a-z][a-z0-9_]{0,30}$"
_ENDS = "{low}: not at all. {high}: entirely."
_MAX_VALUES = 201  # of an integer scale: its values are listed in a regular expression
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
        "missing",
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
"""Column names and keys that the names of scales and stages must not clash with."""


class Scale(Section):
    """A rating scale.

    Attributes:
        name: used in columns, file names and URLs.
        low, high: the range; ratings outside it are unparseable.
        integer: whole numbers only; otherwise numbers with at most two decimals.
        better: which end of the range is better.
        ask: the question in the observer's prompt. For the peers' scale the world's own prompt
            template asks.
        rater: who rates: the observer, the peers, or the author of the episode (the user in a world
            of conversations), who rates stages as the observer does.
        subject: what is rated: the text of a stage, an agent in it, or a pair of agents.
        stages: the stages that are rated; empty for every stage of the world.
        same_as: for the peers' scale, the observer's scale with the same meaning, so that
            agreement can be measured.
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
            raise ValueError(f"another name than {self.name}, which is reserved")
        if not -1e6 <= self.low < self.high <= 1e6:
            raise ValueError("low below high, both between -1,000,000 and 1,000,000")
        if any(round(end, 2) != end for end in (self.low, self.high)):
            raise ValueError("at most two decimals for low and high, as ratings have")
        if self.integer and (self.low % 1 or self.high % 1):
            raise ValueError("whole numbers for low and high, or integer: false")
        if self.integer and self.high - self.low >= _MAX_VALUES:
            raise ValueError(f"at most {_MAX_VALUES} whole numbers, or integer: false")
        return self

    @property
    def title(self) -> str:
        """The name for display, without underscores."""
        return self.name.replace("_", " ")

    @property
    def range(self) -> str:
        """The range for prompts and display: ``1 to 7``."""
        return f"{plain_number(self.low)} to {plain_number(self.high)}"

    @property
    def who(self) -> str:
        """Who rates, for display: observer, peers, or user."""
        return "user" if self.rater == "author" else self.rater

    @property
    def whose(self) -> str:
        """The genitive of who rates, for display."""
        return {"author": "the users'", "peers": "the peers'"}.get(self.rater, "the observer's")

    @property
    def form(self) -> str:
        """The name of the observer's prompt template for this scale."""
        return f"observe_{self.name}"

    @property
    def question(self) -> str:
        """The question to the observer: `ask` with the ends of the range inserted.

        If `ask` contains none of ``{low}``, ``{middle}`` and ``{high}``, a sentence with the
        meaning of both ends is appended.
        """
        ask = self.ask or f"How would you score the {self.title}?"
        ends = {"low": self.low, "middle": (self.low + self.high) / 2, "high": self.high}
        if not any(f"{{{name}}}" in ask for name in ends):
            ask = f"{ask} {_ENDS}"
        for name, value in ends.items():
            ask = ask.replace(f"{{{name}}}", plain_number(value))
        return ask

    def gain(self, before: float, after: float) -> float:
        """The improvement of a rating: positive where it moved towards the better end."""
        return after - before if self.better == "high" else before - after


def plain_number(number: float) -> str:
    """Format a number, without decimals where it has none; every digit of a rating is kept."""
    return f"{int(number)}" if number == int(number) else f"{number:.12g}"


class Stage(Section):
    """A text that each episode records.

    Attributes:
        name: used in columns and JSON.
        answer: whether the text answers the episode's question. Dataset formats that train on
            answers use only such stages.
        suffix: suffix of its columns in the dataset format `exchanges`; by default its name.
        form: the name of the prompt template whose reply is the text; None where it is not a single
            reply. Dataset rows name it.
    """

    name: str = Field(pattern=_NAME)
    answer: bool = True
    suffix: str | None = None
    form: str | None = None

    @property
    def title(self) -> str:
        """The name for display, without underscores."""
        return self.name.replace("_", " ")

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if self.name in _RESERVED:
            raise ValueError(f"another name than {self.name}, which is reserved")
        return self


class Measure(NamedTuple):
    """A number that an episode has; it may be missing.

    Attributes:
        name: such as `draft_alignment`, `alignment_gain` or `peer_rating`.
        kind: `score` (the observer's rating of a stage; the mean over agents or pairs), `gain`
            (last rated stage minus first, positive where better), or `peers` (the mean of the
            peers' ratings).
        scale: the scale of the ratings.
        stage: the rated stage; for a gain the last one.
        base: for a gain the first rated stage; otherwise None.
    """

    name: str
    kind: Literal["score", "gain", "peers"]
    scale: Scale
    stage: str
    base: str | None = None

    @property
    def title(self) -> str:
        """The name for display, without underscores."""
        return self.name.replace("_", " ")

    @property
    def low(self) -> float:
        """The lowest possible value."""
        return self.scale.low - self.scale.high if self.kind == "gain" else self.scale.low

    @property
    def high(self) -> float:
        """The highest possible value."""
        return self.scale.high - self.scale.low if self.kind == "gain" else self.scale.high


class Declaration(Section):
    """The stages of a run in order, and its scales, the main scale first."""

    stages: tuple[Stage, ...]
    scales: tuple[Scale, ...]

    @model_validator(mode="after")
    def _check(self) -> Declaration:
        stages = [stage.name for stage in self.stages]
        for scale in self.scales:
            missing = [name for name in scale.stages if name not in stages]
            if missing:
                expected = ", ".join(stages) or "none"
                raise ValueError(f"{scale.name}: stages: found {missing[0]}, expected {expected}")
        names = [measure.name for measure in self.measures]
        ambiguous = next((name for name in names if names.count(name) > 1), None)
        if ambiguous is not None:
            raise ValueError(f"found two measures {ambiguous}; expected other names")
        if sum(scale.rater == "peers" for scale in self.scales) > 1:
            raise ValueError("at most one scale that peers rate on")
        return self

    @property
    def observed(self) -> tuple[Scale, ...]:
        """The scales on which stages are rated: the observer's and the author's."""
        return tuple(scale for scale in self.scales if scale.rater != "peers")

    @property
    def peers(self) -> Scale | None:
        """The peers' scale; None where peers do not rate."""
        return next((scale for scale in self.scales if scale.rater == "peers"), None)

    @property
    def main(self) -> Scale | None:
        """The observer's first scale, which overviews show."""
        return next(iter(self.observed), None)

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of the stages that answer the question of the episode."""
        return tuple(stage.name for stage in self.stages if stage.answer)

    def scale(self, name: str) -> Scale:
        """The scale of this name. Raises KeyError."""
        return next((scale for scale in self.scales if scale.name == name), None) or _raise_missing(
            name
        )

    def stages_of(self, scale: Scale) -> tuple[str, ...]:
        """The stages that are rated on a scale, in order."""
        return tuple(s.name for s in self.stages if not scale.stages or s.name in scale.stages)

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """All measures: for each observer's scale its scores and its gain, then the peers' mean."""
        observed = (measure for scale in self.observed for measure in self._measures_of(scale))
        return (*observed, *self._measures_of_peers())

    def _measures_of(self, scale: Scale) -> Iterator[Measure]:
        stages = self.stages_of(scale)
        for stage in stages:
            yield Measure(f"{stage}_{scale.name}", "score", scale, stage)
        if len(stages) > 1:
            yield Measure(f"{scale.name}_gain", "gain", scale, stages[-1], stages[0])

    def _measures_of_peers(self) -> Iterator[Measure]:
        if self.peers is not None:
            stage = next(iter(self.stages_of(self.peers)), "")
            yield Measure(self.peers.name, "peers", self.peers, stage)

    @cached_property
    def _scales_by_subject(self) -> dict[tuple[str, Subject], tuple[Scale, ...]]:
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

    def scales_for(self, stage: str, subject: Subject) -> tuple[Scale, ...]:
        """The scales on which the observer rates a stage, or the agents or pairs in it.

        Raises:
            KeyError: there is no such stage.
        """
        return self._scales_by_subject[stage, subject]

    def same_as(self, measure: Measure) -> Measure | None:
        """The observer's measure with the same meaning as the peers', if the ranges are equal."""
        scale = measure.scale
        if measure.kind != "peers" or scale.same_as is None or not scale.integer:
            return None
        name = f"{measure.stage}_{scale.same_as}"
        found = next((other for other in self.measures if other.name == name), None)
        same = found is not None and (found.low, found.high) == (scale.low, scale.high)
        return found if same and found is not None and found.scale.integer else None

    def measure(self, name: str) -> Measure:
        """The measure of this name. Raises KeyError."""
        return next(
            (measure for measure in self.measures if measure.name == name), None
        ) or _raise_missing(name)

    def final(self, scale: Scale) -> Measure | None:
        """The score of the last stage that is rated on a scale; None where no stage is."""
        stages = self.stages_of(scale)
        return self.measure(f"{stages[-1]}_{scale.name}") if stages else None

    def gain(self, scale: Scale) -> Measure | None:
        """The measure of the gain on a scale; None where only one stage is rated."""
        name = f"{scale.name}_gain"
        return next((measure for measure in self.measures if measure.name == name), None)


def _raise_missing(name: str) -> NoReturn:
    raise KeyError(name)
