"""Sweeps in the terminal: a live display, plain lines elsewhere, and tables of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sandbox.reading.run_groups import yaml_value
from sandbox.sweep.progress import PLAYING, WAITING, SweepProgress
from sandbox.sweep.results import EngineUse, Sweep, SweepRun
from sandbox.terminal.live import LiveOrLines
from sandbox.terminal.style import dash, plain, rounded, table
from sandbox.text import duration, printable

_MOST_SHOWN = 16
"""Runs that the live display lists; the others are counted."""


def words(progress: SweepProgress) -> str:
    """The progress of a sweep in one line."""
    counts = progress.by_status()
    ended = (
        f"{counts[status]:,} {status}"
        for status in ("done", PLAYING, WAITING, "failed", "interrupted")
        if counts[status]
    )
    calls, seconds = progress.calls, progress.seconds
    in_flight = sum(run.played.in_flight for run in progress.runs.values() if run.status == PLAYING)
    parts = [
        f"{len(progress.runs):,} runs: {', '.join(ended)}",
        f"calls {calls:,} ({rounded(round(calls / max(seconds, 1e-6)))}/s)",
        f"in flight {in_flight:,}",
        duration(seconds),
    ]
    if progress.stopping:
        parts.append("stopping: waiting for replies (Ctrl-C again: stop now)")
    return " | ".join(parts)


class SweepDisplay(LiveOrLines):
    """Context manager that shows the progress of a sweep on standard error; `watch` starts it."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: SweepProgress | None = None
        self._told: set[str] = set()

    def watch(self, progress: SweepProgress) -> None:
        """Start to show the progress."""
        self._progress = progress
        self._begin()

    def _picture(self) -> RenderableType:
        assert self._progress is not None
        progress = self._progress
        grid = Table.grid(padding=(0, 1))
        playing = [(name, run) for name, run in progress.runs.items() if run.status == PLAYING]
        for name, run in playing[:_MOST_SHOWN]:
            played = run.played
            grid.add_row(
                plain(name),
                ProgressBar(played.episodes_total or 1, played.episodes, width=24),
                Text(f"{played.episodes:,}/{played.episodes_total:,}, calls {run.calls:,}"),
            )
        troubles = [plain(line, "yellow") for line in self._troubles()]
        return Group(Text(progress.name, style="bold"), plain(words(progress)), grid, *troubles)

    def _troubles(self) -> Iterator[str]:
        """A line about each run that has failed."""
        assert self._progress is not None
        for name, run in list(self._progress.runs.items()):
            if run.message and (run.status == "failed" or run.retried):
                times = "once" if run.retried == 1 else f"{run.retried} times"
                again = f", resumed {times}" if run.retried else ""
                yield printable(f"{name}: {run.message}{again}")

    def _lines(self, ended: bool) -> list[str]:
        assert self._progress is not None
        new = [line for line in self._troubles() if line not in self._told]
        self._told.update(new)
        return [words(self._progress), *new]


def sweep_view(sweep: Sweep) -> RenderableType:
    """The runs of a sweep, the use of its engines, and what to do next."""
    parts: list[RenderableType] = [run_table(sweep.runs), Text()]
    parts += [plain(_use(engine)) for engine in sweep.engines]
    speed = f"{sweep.calls:,} new calls in {duration(sweep.seconds)}"
    return Group(*parts, plain(f"{speed}; runs in {sweep.place}"))


def _use(engine: EngineUse) -> str:
    """How busy an engine was, in words."""
    if engine.busy_share is None:
        return f"{engine.model}: no call"
    return (
        f"{engine.model}: busy {engine.busy_share:.1%} of {duration(engine.seconds)}, "
        f"{engine.mean_in_flight:.1f} calls in flight on average"
    )


def run_table(runs: Sequence[SweepRun]) -> Table:
    """A line for each run of a study."""
    right = ("episodes", "calls", "time")
    rows = table("run", "status", *right, "settings", "digest", right=right)
    for run in runs:
        settings = ", ".join(f"{key} {yaml_value(value)}" for key, value in run.settings.items())
        failed = f" ({run.episodes_failed:,} failed)" if run.episodes_failed else ""
        rows.add_row(
            plain(run.run),
            plain(run.status, "" if run.status != "failed" else "red"),
            f"{run.episodes:,}{failed}",
            f"{run.calls:,}",
            duration(run.seconds),
            plain(settings),
            dash() if run.digest is None else plain(run.digest[:12]),
        )
    return rows
