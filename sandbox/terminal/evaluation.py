"""Evaluations in the terminal: the tables, and the progress of one run after another."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.text import Text

from sandbox.evaluation.results import Evaluation
from sandbox.evaluation.tables import TableShown, tables
from sandbox.progress import Progress
from sandbox.terminal.live import Display
from sandbox.terminal.style import plain, table


def evaluation_view(evaluation: Evaluation) -> RenderableType:
    """The tables of an evaluation, and what a reader has to know."""
    names = ", ".join(model.name for model in evaluation.models)
    head = f"{names}: {evaluation.questions:,} questions, {evaluation.samples} answers to each"
    parts: list[RenderableType] = [plain(head, "bold")]
    for shown in tables(evaluation):
        parts += [Text(), plain(shown.title, "bold"), plain(shown.about, "dim"), _table(shown)]
    notes = [plain(f"note: {note}", "yellow") for note in evaluation.notes]
    return Group(*parts, *([Text(), *notes] if notes else []))


def _table(shown: TableShown) -> RenderableType:
    filled = table(*shown.columns, right=shown.columns[shown.texts :])
    for row in shown.rows:
        filled.add_row(*map(plain, row))
    return filled


class Displays:
    """Context manager that shows the progress of one run after another; `watch` starts the next."""

    def __init__(self) -> None:
        self._display: Display | None = None

    def __enter__(self) -> Self:
        return self

    def watch(self, progress: Progress) -> None:
        """Show the progress of the next run, in place of the last one's."""
        self._end()
        self._display = Display().__enter__()
        self._display.watch(progress)

    def _end(self) -> None:
        if self._display is not None:
            self._display.__exit__(None, None, None)
            self._display = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
