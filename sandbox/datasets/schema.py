"""The stages and scales of the runs that are exported together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from agents.scale import Declaration, Scale, Stage
from storage.errors import InputError

PERSONAL = "personal"
"""The kind of the world in which users score the answers of conversations."""


class RunSchema(NamedTuple):
    """The stages and scales of one run.

    Attributes:
        run: the name of the run.
        world: the kind of its world.
        declaration: its stages and scales.
    """

    run: str
    world: str
    declaration: Declaration

    @property
    def conversations(self) -> bool:
        """Whether users write their own messages and score what is answered."""
        return self.world == PERSONAL


class Schema:
    """The union of the stages and scales of several runs.

    Attributes:
        runs: the schema of each run.

    Args:
        runs: at least one.
    """

    def __init__(self, runs: Sequence[RunSchema]) -> None:
        self.runs = tuple(runs)

    @cached_property
    def conversations(self) -> bool:
        """Whether a run has conversations of users."""
        return any(run.conversations for run in self.runs)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, unique by name, in the order of the runs."""
        by_name: dict[str, Stage] = {}
        for run in self.runs:
            for stage in run.declaration.stages:
                by_name.setdefault(stage.name, stage)
        return tuple(by_name.values())

    @cached_property
    def observed(self) -> tuple[Scale, ...]:
        """The observer's scales, unique by name."""
        by_name: dict[str, list[Scale]] = {}
        for run in self.runs:
            for scale in run.declaration.observed:
                by_name.setdefault(scale.name, []).append(scale)
        return tuple(map(_merged, by_name.values()))

    @cached_property
    def peers(self) -> Scale | None:
        """The scale of the peers' ratings; None without peers."""
        scales = [run.declaration.peers for run in self.runs if run.declaration.peers is not None]
        return _merged(scales) if scales else None

    @cached_property
    def main(self) -> Scale | None:
        """The main scale of the first run that has one."""
        return next(iter(self.observed), None)

    @cached_property
    def of_stages(self) -> tuple[Scale, ...]:
        """The observer's scales that rate the text of a stage, not agents in it."""
        return tuple(scale for scale in self.observed if scale.subject == "stage")

    @cached_property
    def of_answers(self) -> tuple[Scale, ...]:
        """The observer's scales that rate an answer."""
        rated = {
            scale.name
            for run in self.runs
            for scale in run.declaration.observed
            if set(run.declaration.answers).intersection(run.declaration.stages_of(scale))
        }
        return tuple(scale for scale in self.of_stages if scale.name in rated)

    @cached_property
    def first_answers(self) -> tuple[str, ...]:
        """The first stage that answers the question, of every run that has one."""
        firsts = (run.declaration.answers[:1] for run in self.runs)
        return tuple(dict.fromkeys(name for names in firsts for name in names))

    @cached_property
    def peer_stages(self) -> tuple[str, ...]:
        """The stages that peers rate."""
        rated = (
            run.declaration.stages_of(run.declaration.peers)[:1]
            for run in self.runs
            if run.declaration.peers is not None
        )
        return tuple(dict.fromkeys(name for names in rated for name in names))

    def scale(self, name: str) -> Scale | None:
        """The observer's scale with this name; None if there is none."""
        return next((scale for scale in self.observed if scale.name == name), None)

    @cached_property
    def rated(self) -> tuple[tuple[Stage, Scale], ...]:
        """Pairs of a stage and a scale on which the observer rates it, in order."""
        pairs = {
            (stage, scale.name)
            for run in self.runs
            for scale in run.declaration.observed
            for stage in run.declaration.stages_of(scale)
        }
        return tuple(
            (stage, scale)
            for stage in self.stages
            for scale in self.observed
            if (stage.name, scale.name) in pairs
        )

    @cached_property
    def rates_agents(self) -> bool:
        """Whether the observer rates agents or pairs of agents, not only texts."""
        return any(scale.subject != "stage" for scale in self.observed)

    @cached_property
    def conflicts(self) -> dict[str, str]:
        """Scales whose ratings are not comparable across runs, each with the reason.

        Two runs declare different ranges or directions. The peers' scale counts as the same scale
        whatever its name.
        """
        first: dict[str, tuple[str, Scale]] = {}
        problems: dict[str, str] = {}
        for run in self.runs:
            for key, scale in _by_key(run.declaration):
                known, other = first.setdefault(key, (run.run, scale))
                if _range(scale) != _range(other):
                    problems.setdefault(
                        key,
                        f"{scale.name} is {_range(other)} in run {known} and {_range(scale)} in "
                        f"run {run.run}",
                    )
        return problems

    def conflict(self, scale: Scale) -> str | None:
        """Why the ratings on a scale are not comparable across runs; None if they are."""
        return self.conflicts.get(_key(scale))

    def check_ratings(self, format: str) -> None:
        """Check that ratings are comparable across runs.

        Raises:
            InputError: a scale has different ranges or directions.
        """
        for problem in self.conflicts.values():
            raise InputError(
                f"format {format}: found two ranges: {problem}; expected one range, or a separate "
                "export of each run"
            )


def _merged(scales: Sequence[Scale]) -> Scale:
    """The scale with one name in several runs, as the first run declares it.

    It has integer ratings, and rates texts of stages, only if it does so in every run.
    """
    subjects = (scale.subject for scale in scales if scale.subject != "stage")
    changed = {
        "integer": all(scale.integer for scale in scales),
        "subject": next(subjects, "stage"),
    }
    return scales[0].model_copy(update=changed)


def _key(scale: Scale) -> str:
    return "peers" if scale.rater == "peers" else f"observer/{scale.name}"


def _by_key(declaration: Declaration) -> Iterator[tuple[str, Scale]]:
    for scale in declaration.scales:
        yield _key(scale), scale


def _range(scale: Scale) -> str:
    kind = "whole numbers" if scale.integer else "numbers"
    return f"{kind} from {scale.range}, {scale.better}er is better"


def number_type(scale: Scale | None) -> str:
    """The column type of ratings on a scale."""
    return "int64" if scale is None or scale.integer else "float64"


def typed(rating: float | None, scale: Scale | None) -> float | None:
    """Convert a rating to the type of its column: an int on an integer scale, else a float."""
    if rating is None:
        return None
    return int(rating) if scale is None or scale.integer else float(rating)


def worst_end(scale: Scale) -> float:
    """The worse end of a scale."""
    return scale.low if scale.better == "high" else scale.high


def share_of(scale: Scale, share: float) -> float:
    """The rating at a share of the range from the worse end, rounded to two decimals."""
    width = (scale.high - scale.low) * share
    return round(scale.low + width if scale.better == "high" else scale.high - width, 2)


def goodness(rating: float, scale: Scale) -> float:
    """The rating, negated if lower is better, so that higher is always better."""
    return rating if scale.better == "high" else -rating


def below(scale: Scale) -> str:
    """The preposition for worse ratings: "rated below 5", or "above" if lower is better."""
    return "below" if scale.better == "high" else "above"
