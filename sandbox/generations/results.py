"""The results of a study of generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.reading.records import Record

START = "start"
"""The name of the model of generation 1 in the evaluation."""


def trained_name(number: int) -> str:
    """The name of the model that generation `number` trains."""
    return f"generation-{number}"


def control_name(number: int) -> str:
    """The name of the control of generation `number`."""
    return f"control-{number}"


@dataclass(frozen=True, kw_only=True)
class Generation(Record):
    """One generation.

    Attributes:
        number: from 1.
        run: the name of its run.
        digest: of the run; None until it is done.
        scores: the means of the society's measures over all its episodes.
        episodes, episodes_failed: of the run.
        rows: the number of rows that the model was trained on; None until it is trained.
        data: the SHA-256 of these rows.
        control_rows, control_data: the same of the control; None without one.
        steps: the number of optimizer steps of the model and of its control.
        seconds: by phase, of the process that finished it.
    """

    number: int
    run: str
    digest: str | None = None
    measures: Mapping[str, float | None]
    episodes: int = 0
    episodes_failed: int = 0
    rows: int | None = None
    data: str | None = None
    control_rows: int | None = None
    control_data: str | None = None
    steps: int | None = None
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Study(Record):
    """A study of generations.

    Attributes:
        name: of the study.
        out: its folder.
        generations: those that are finished.
        evaluation: of all models so far, as `evaluate --json` prints it.
    """

    name: str
    out: str
    generations: Sequence[Generation]
    evaluation: Mapping[str, Any]
