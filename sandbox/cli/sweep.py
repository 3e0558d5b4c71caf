"""The verb `sweep`: all runs of a study, settings times seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson, Set, show

if TYPE_CHECKING:
    from sandbox.sweep.plan import Plan


def sweep(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="a YAML file with the settings of the study")
    ],
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the runs, and play none")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Play a grid or a list of settings, times seeds, side by side; goes on if stopped."""
    from sandbox import api
    from sandbox.failing import is_failing
    from sandbox.sweep.plan import read_plan
    from sandbox.terminal.sweeps import SweepDisplay, sweep_view
    from sandbox.text import printable

    if dry_run:
        _list(read_plan(study, set_ or []), as_json)
        return
    try:
        with SweepDisplay() as display:
            done = api.sweep(study, settings=set_ or [], watch=display.watch)
    except KeyboardInterrupt:
        print("interrupted at once; type the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    show(as_json, done.as_dict(), lambda: sweep_view(done))
    for run in done.runs:
        if is_failing(run.episodes, run.episodes_failed):
            print(printable(f"{run.run}: {run.warnings[0]}"), file=sys.stderr)
    if done.status != "done":
        bad = [run.run for run in done.runs if run.status in ("done", "failed") and not run.good]
        reason = f"{len(bad)} failed: {', '.join(bad)}" if bad else done.status
        print(f"{reason}; type the same command again to go on", file=sys.stderr)
        raise typer.Exit(130 if done.status == "interrupted" else 1)


def _list(plan: Plan, as_json: bool) -> None:
    from sandbox.sweep.plan import check_place
    from sandbox.sweep.run import states_of
    from sandbox.terminal.sweeps import run_table

    check_place(plan)
    runs = list(states_of(plan).values())
    data = {"name": plan.settings.name, "runs": [run.as_dict() for run in runs]}
    show(as_json, data, lambda: run_table(runs))
