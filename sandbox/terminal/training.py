"""Progress of a training: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from sandbox.text import duration
from sandbox.training.report import TrainProgress

_PLAIN_SECONDS = 5.0


class Steps:
    """Context manager that shows progress on standard error; `watch` is told of it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self._first: TrainProgress | None = None
        self._started = self._printed = 0.0
        self._last = ""

    @property
    def shown(self) -> bool:
        """Whether there was any work to show."""
        return self._first is not None

    def __enter__(self) -> Self:
        return self

    def watch(self, progress: TrainProgress) -> None:
        """Show how far a training is."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = progress, now
            if self._console.is_terminal:
                self._status = self._console.status("")
                self._status.start()
        words = self._words(progress, now)
        if self._status is not None:
            self._status.update(words)
        elif now - self._printed >= _PLAIN_SECONDS or progress.step == progress.steps:
            if words == self._last:
                return
            self._printed, self._last = now, words
            self._console.print(words, soft_wrap=True, markup=False, highlight=False)

    def _words(self, progress: TrainProgress, now: float) -> str:
        assert self._first is not None
        parts = [f"step {progress.step:,}/{progress.steps:,}", f"epoch {progress.epoch:.2f}"]
        if progress.loss is not None:
            parts.append(f"loss {progress.loss:.4f}")
        done = progress.step - self._first.step
        if done > 0 and progress.step < progress.steps:
            left = (progress.steps - progress.step) * (now - self._started) / done
            parts.append(f"remaining {duration(left)}")
        return " | ".join(parts)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
