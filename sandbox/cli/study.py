"""The verbs of experiments: `fork`, `compare` and `estimate`."""

from __future__ import annotations

from typing import Annotated

import typer

from sandbox.cli.options import (
    AcceptChanges,
    AsJson,
    BackendFiles,
    CheckFiles,
    ConfigFile,
    Database,
    Name,
    Rounds,
    Run,
    RunsOrFolders,
    Set,
    TotalRounds,
    WorldFile,
    plugin_files,
    show,
)
from sandbox.cli.run import play


def fork(
    run: Run,
    at: Annotated[
        int, typer.Option(metavar="ROUND", help="the last round to keep, counted from 0")
    ],
    set_: Set = None,
    name: Name = None,
    db: Database = None,
    rounds: TotalRounds = None,
    accept_changes: AcceptChanges = False,
    backend: BackendFiles = None,
    world: WorldFile = None,
    check: CheckFiles = None,
    as_json: AsJson = False,
) -> None:
    """Start a new run from the state of another one after a round, with changed settings."""
    from sandbox import api

    address = api.fork(
        run,
        at,
        settings=set_ or [],
        name=name,
        db=db,
        rounds=rounds,
        accept_changes=accept_changes,
        allow=plugin_files(run, backend, world, set_, check),
    )
    files = api.plugin_files(address)  # the original's, which are allowed, and those of --set
    play(address, as_json, accept_changes=accept_changes, allow=files)


def compare(runs: RunsOrFolders, as_json: AsJson = False) -> None:
    """Compare runs, grouped by config: means, and differences with confidence intervals."""
    from sandbox import api
    from sandbox.terminal.studies import comparison_view

    comparison = api.compare(runs)
    show(as_json, comparison.as_dict(), lambda: comparison_view(comparison))


def estimate(
    config: ConfigFile = None,
    set_: Set = None,
    rounds: Rounds = None,
    episodes: Annotated[
        int, typer.Option(metavar="N", help="number of episodes to play as a sample")
    ] = 32,
    tokens_in_per_second: Annotated[
        float | None, typer.Option(metavar="X", help="prompt throughput of one GPU")
    ] = None,
    tokens_out_per_second: Annotated[
        float | None, typer.Option(metavar="X", help="generation throughput of one GPU")
    ] = None,
    gpus: Annotated[int | None, typer.Option(metavar="N", help="number of GPUs")] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate calls, tokens, time and disk space of a config from a sample of its episodes."""
    from sandbox import api
    from sandbox.config import QUICKSTART
    from sandbox.terminal.studies import estimate_view

    figures = api.estimate(
        config or QUICKSTART,
        rounds=rounds,
        settings=set_ or [],
        episodes=episodes,
        tokens_in_per_second=tokens_in_per_second,
        tokens_out_per_second=tokens_out_per_second,
        gpus=gpus,
    )
    show(as_json, figures.as_dict(), lambda: estimate_view(figures))
    if figures.sample.calls and figures.sample.failed == figures.sample.calls:
        raise typer.Exit(1)
