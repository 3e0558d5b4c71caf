"""The callback of a trainer: progress, complete checkpoints, and stopping. Imports transformers."""

from __future__ import annotations

from threading import Event
from typing import Any

import torch
from transformers import TrainerCallback

from sandbox.training.checkpoints import Place
from sandbox.training.report import TrainProgress, Watch


class LastStepDone(Exception):
    """Raised where a trainer would take one step more than it should.

    It does so if it goes on from a checkpoint of its last step, in the midst of an epoch.
    """


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Marks checkpoints that are complete, reports progress, and stops when asked.

    Args:
        place: the folder of the training.
        stop: set to stop after the step, with a checkpoint.
        watch: told of progress, in the main process.
    """

    def __init__(self, place: Place, stop: Event, watch: Watch | None) -> None:
        self._place = place
        self._stop = stop
        self._watch = watch
        self._loss: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Report where the training starts."""
        self._tell(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Report progress."""
        self._loss = (logs or {}).get("loss", self._loss)
        self._tell(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Refuse a step after the last one."""
        if state.global_step >= state.max_steps:
            raise LastStepDone

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Save and stop if that was asked of any process."""
        stop = self._stop.is_set()
        if args.world_size > 1:
            flag = torch.tensor(int(stop), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            stop = bool(flag.item())
        if stop:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Mark the checkpoint as complete, once every process has written its part."""
        args.distributed_state.wait_for_everyone()
        if state.is_world_process_zero:
            self._place.completed(state.global_step)

    def _tell(self, state: Any) -> None:
        if self._watch is not None and state.is_world_process_zero:
            progress = TrainProgress(
                state.global_step, state.max_steps, state.epoch or 0.0, self._loss
            )
            self._watch(progress)
