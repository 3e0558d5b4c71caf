"""Progress of a run: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sandbox.progress import Progress
from sandbox.terminal.style import rounded
from sandbox.text import duration, printable

_PLAIN_SECONDS = 5.0
_REFRESH = 5  # pictures a second


class Rates:
    """Progress and speed since the display started."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._started = time.monotonic()
        self._warned: set[str] = set()

    def _per_second(self, count: int) -> float:
        until = self.progress.finished or time.monotonic()
        return count / max(1e-6, until - self._started)

    def words(self, ended: bool = False) -> str:
        """The progress in one line; `ended` after the session."""
        return " | ".join([*self.work(), *self.state(ended)])

    def work(self) -> list[str]:
        """What is done, and the speed."""
        p, counts = self.progress, self.progress.counts
        tokens = counts.tokens_in + counts.tokens_out
        hit_rate = counts.tokens_cached / max(1, counts.tokens_in)
        cached = f", {hit_rate:.0%} of prompts from the prefix cache"
        return [
            f"round {min(p.round, p.rounds):,} of {p.rounds:,}",
            f"episodes {p.episodes:,}/{p.episodes_total:,}"
            + (f" ({p.episodes_failed:,} failed)" if p.episodes_failed else ""),
            f"calls {counts.calls:,} ({rounded(round(self._per_second(counts.calls)))}/s)",
            f"tokens {rounded(tokens)} ({rounded(round(self._per_second(tokens)))}/s)"
            + (cached if counts.tokens_cached else ""),
        ]

    def state(self, ended: bool = False) -> list[str]:
        """Calls in flight, failures, and the remaining time; `ended`: failures alone."""
        counts = self.progress.counts
        parts = [] if ended else [f"in flight {counts.in_flight:,}"]
        parts.append(f"calls failed {counts.failed:,}, unparsed {counts.unparsed:,}")
        if counts.replayed:
            parts.append(f"replayed {counts.replayed:,}")
        if ended:
            return parts
        left = self._left()
        if self.progress.stopping:
            parts.append("stopping: waiting for replies (Ctrl-C again: stop now)")
        elif left is not None:
            parts.append(f"remaining {duration(left)}")
        return parts

    def troubles(self) -> list[str]:
        """Why most episodes fail, if they do, and what calls wait for, a line for each reason."""
        failing = self.progress.failing()
        lines = [] if failing is None else [f"warning: {printable(failing)}"]
        return [*lines, *(printable(row.words()) for row in self.progress.counts.waiting()[:3])]

    def new_warnings(self) -> list[str]:
        """The warnings that have not been returned before."""
        found = self.progress.counts.warnings()
        new = [f"warning: {printable(found[name])}" for name in found if name not in self._warned]
        self._warned.update(found)
        return new

    def _left(self) -> float | None:
        calls = self.progress.calls_left()
        rate = self._per_second(self.progress.counts.calls)
        return None if calls is None or not rate else calls / rate


def in_lines(parts: Sequence[str], width: int) -> list[str]:
    """Parts side by side, in as many lines as they need: no part is split between lines."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(_GAP) + len(part) <= width:
            lines[-1] += _GAP + part
        else:
            lines.append(part)
    return lines


_GAP = "   "


class LiveOrLines(ABC):
    """Context manager that shows progress on standard error: live in a terminal, lines elsewhere.

    A subclass begins to show by `_begin`, once it has something to show.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def _begin(self) -> None:
        """Begin to show."""
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._picture, refresh_per_second=_REFRESH
            )
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._print_lines, daemon=True)
            self._thread.start()

    @abstractmethod
    def _picture(self) -> RenderableType:
        """What a terminal shows now."""

    @abstractmethod
    def _lines(self, ended: bool) -> list[str]:
        """What is printed elsewhere every few seconds, and at the end."""

    def _is_over(self) -> bool:
        """Whether only the last lines are still to be printed."""
        return False

    def _print_lines(self) -> None:
        while not self._stop.wait(_PLAIN_SECONDS) and not self._is_over():
            self._print(ended=False)

    def _print(self, ended: bool) -> None:
        print("\n".join(self._lines(ended)), file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.stop()
        elif self._thread is not None:
            self._thread.join()
            self._print(ended=True)


class Display(LiveOrLines):
    """Context manager that shows progress on standard error; `watch` starts it.

    Args:
        warn: leave the warnings of the session on the screen at its end; false where a summary that
            has them follows.
    """

    def __init__(self, warn: bool = True) -> None:
        super().__init__()
        self._warn = warn
        self._rates: Rates | None = None
        self._warnings: list[str] = []

    @property
    def shown(self) -> bool:
        """Whether there was any work to show."""
        return self._rates is not None

    def watch(self, progress: Progress) -> None:
        """Start to show the progress of a run."""
        self._rates = Rates(progress)
        self._begin()

    def _picture(self) -> Group:
        assert self._rates is not None
        progress = self._rates.progress
        ended = self._stop.is_set() or progress.finished is not None
        self._warnings += self._rates.new_warnings()
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(progress.run, style="bold"),
            ProgressBar(
                total=progress.episodes_total,
                completed=progress.episodes,
                width=max(10, min(40, self._console.width - len(progress.run) - 32)),
            ),
            Text(f"{progress.agents:,} agents, {duration(progress.clock.seconds())}"),
        )
        lines = [
            Text(line, style="dim")
            for parts in (self._rates.work(), self._rates.state(ended))
            for line in in_lines(parts, self._console.width)
        ]
        warnings = self._warnings if self._warn or not ended else []
        troubles = [] if ended else self._rates.troubles()
        lines += [Text(line, style="yellow") for line in (*warnings, *troubles)]
        return Group(head, *lines)

    def _lines(self, ended: bool) -> list[str]:
        assert self._rates is not None
        if ended:
            warnings = self._rates.new_warnings() if self._warn else []
            return [self._rates.words(ended=True), *warnings]
        return [self._rates.words(), *self._rates.troubles(), *self._rates.new_warnings()]

    def _is_over(self) -> bool:
        assert self._rates is not None
        return self._rates.progress.finished is not None
