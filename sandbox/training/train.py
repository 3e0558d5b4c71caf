"""Trains a model on an export, so that a process can be killed at any moment and started again."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from agents.plugins import exception_line
from sandbox.text import short
from sandbox.training import trainers
from sandbox.training.card import card, versions
from sandbox.training.checkpoints import TRAINING, Place, check_same, write_json
from sandbox.training.data import TrainingData, read_export
from sandbox.training.report import TrainingStopped, TrainReport, Watch
from sandbox.training.settings import TrainSettings
from storage.errors import InputError, StorageFault

QUESTIONS = "questions.jsonl"
"""The distinct questions that a model was trained on, so that an evaluation can avoid them."""

_REPEATED_SECONDS = 1.0


def train(
    export: Path, settings: TrainSettings, out: Path, watch: Watch | None = None
) -> TrainReport:
    """Train a model on an export, or go on with a training that was stopped.

    Args:
        export: a folder that `export` wrote; for `cpo` also its JSON file alone.
        settings: the settings; see `load_settings`.
        out: a new or an empty folder, or that of a training with the same settings and data.
        watch: told of progress.

    Raises:
        InputError: a library is missing, or the export, the model or a setting cannot be used.
        TrainingStopped: a signal stopped it; a KeyboardInterrupt.
    """
    started = time.monotonic()
    data = read_export(export.expanduser(), settings.method)
    trainers.check_libraries()
    from sandbox.training.callbacks import Recorder

    place = Place(out)
    record = {"settings": settings.model_dump(mode="json"), "data": data.lineage()}
    with ExitStack() as stack:
        stack.enter_context(trainers.quiet())
        arguments = trainers.make_arguments(settings, place.checkpoints)
        if arguments.process_index == 0:
            stack.enter_context(place.locked())
        done = place.finished()
        if done is not None:
            check_same(done, record, place.out)
            return TrainReport(**{**done["report"], "out": str(place.out)})
        place.check(record)
        stop = threading.Event()
        prepared = trainers.prepare(settings, data, arguments, [Recorder(place, stop, watch)])
        with arguments.main_process_first(local=False):
            latest = place.start(record)
        _run(prepared.trainer, arguments, latest, stop)
        report = _report(settings, data, prepared, place, latest, started)
        return _publish(settings, report, record, data, prepared, place)


def _run(trainer: Any, arguments: Any, latest: Path | None, stop: threading.Event) -> None:
    """Train to the last step.

    Raises:
        InputError: the memory does not suffice, or nothing can be learnt.
        TrainingStopped: it was asked to stop.
    """
    from sandbox.training.callbacks import LastStepDone

    with _asked_to_stop(stop), suppress(LastStepDone):
        try:
            trainer.train(resume_from_checkpoint=None if latest is None else str(latest))
        except RuntimeError as error:
            if "inline_container" in str(error):  # what torch says where a file cannot be written
                _refuse_full_disk(Path(arguments.output_dir).parent)
            if "out of memory" not in str(error):
                raise
            reason = short(exception_line(error), 200)
            raise InputError(
                f"per_device_train_batch_size: {arguments.per_device_train_batch_size}: {reason}; "
                "expected less, or a smaller max_length, or lora"
            ) from None
    state = trainer.state
    if state.global_step < state.max_steps:
        raise TrainingStopped(state.global_step, state.max_steps)
    _check_learnt(state.log_history)


def _refuse_full_disk(out: Path) -> NoReturn:
    free = shutil.disk_usage(out).free
    raise StorageFault(
        f"{out}: a checkpoint cannot be written: {free:,} bytes are free on the disk; make room, "
        "and the same command goes on"
    ) from None


@contextmanager
def _asked_to_stop(stop: threading.Event) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM ask for a stop after the step; a later one interrupts.

    A launcher of several processes repeats a signal that they have all got from the terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first = math.inf

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        if time.monotonic() - first > _REPEATED_SECONDS:
            raise KeyboardInterrupt
        first = min(first, time.monotonic())
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _check_learnt(history: list[dict[str, Any]]) -> None:
    """Check that losses are numbers, and that there was something to learn."""
    steps = [entry for entry in history if "loss" in entry]
    lost = next((entry for entry in steps if not math.isfinite(entry["loss"])), None)
    if lost is not None:
        raise InputError(
            f"learning_rate: the loss is {lost['loss']} at step {lost['step']}; expected a lower "
            "rate, in another folder"
        )
    if steps and not any(entry.get("grad_norm", 1) for entry in steps):
        raise InputError("nothing was learnt: every gradient is 0; expected rows with answers")


def _report(
    settings: TrainSettings,
    data: TrainingData,
    prepared: trainers.Prepared,
    place: Place,
    latest: Path | None,
    started: float,
) -> TrainReport:
    trainer = prepared.trainer
    state = trainer.state
    held_out = trainer.evaluate() if trainer.eval_dataset is not None else {}
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return TrainReport(
        out=str(place.out),
        method=settings.method,
        model=settings.model,
        rows=len(data.train) - prepared.left_out,
        left_out=prepared.left_out,
        steps=state.global_step,
        epochs=round(state.epoch, 4),
        loss=losses[-1],
        eval_loss=held_out.get("eval_loss"),
        seconds=round(time.monotonic() - started, 3),
        resumed_from_step=None if latest is None else int(latest.name.rpartition("-")[2]),
        data=data.lineage(),
        files=(),
    )


def _publish(
    settings: TrainSettings,
    report: TrainReport,
    record: dict[str, Any],
    data: TrainingData,
    prepared: trainers.Prepared,
    place: Place,
) -> TrainReport:
    """Write the model and what belongs to it, and put it in its place."""
    trainer, folder = prepared.trainer, place.partial
    _save(trainer, settings.lora is not None and settings.lora.merge, folder)
    if trainer.is_world_process_zero():
        (folder / "training_args.bin").unlink(missing_ok=True)
        lines = (json.dumps({"question": one}, ensure_ascii=False) for one in data.questions)
        (folder / QUESTIONS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / "README.md").write_text(card(settings, report, data), encoding="utf-8")
        names = {path.name for path in folder.iterdir()} | {TRAINING}
        report = TrainReport(**{**vars(report), "files": sorted(names)})
        written = {**record, "report": report.as_dict(), "versions": versions()}
        write_json(folder / TRAINING, written)
        place.publish()
    trainer.accelerator.wait_for_everyone()
    return report


def _save(trainer: Any, merge: bool, folder: Path) -> None:
    """Write the model, or its adapter, and the tokenizer."""
    if not merge:
        trainer.save_model(str(folder))
    elif trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.merge_and_unload().save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
