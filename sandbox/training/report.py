"""What a training tells while it goes on, and in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sandbox.reading.records import Record


class TrainProgress(NamedTuple):
    """How far a training is: steps of the optimiser, epochs, and the last loss, if there is one."""

    step: int
    steps: int
    epoch: float
    loss: float | None


Watch = Callable[[TrainProgress], None]
"""Called once before the first step and after each that is logged."""


@dataclass(frozen=True)
class TrainReport(Record):
    """The result of a training.

    Attributes:
        out: the folder with the model.
        method: the method.
        model: the model that was trained.
        rows: the rows that were trained on.
        left_out: those that leave no room for an answer within `max_length`.
        steps: of the optimiser.
        epochs: passes over the rows, with fractions.
        loss: the last one.
        eval_loss: on the export's other split; None without one.
        seconds: of this session.
        resumed_from_step: the step of the checkpoint that it went on from; None: from the start.
        data: digest, runs and further lineage of the rows.
        files: the names of the files in `out`.
    """

    out: str
    method: str
    model: str
    rows: int
    left_out: int
    steps: int
    epochs: float
    loss: float
    eval_loss: float | None
    seconds: float
    resumed_from_step: int | None
    data: Mapping[str, Any]
    files: Sequence[str]


class TrainingStopped(KeyboardInterrupt):
    """Raised when a signal stopped a training, after a checkpoint was written."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped at step {step:,} of {steps:,}")
