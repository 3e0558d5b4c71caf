"""The verbs of experiments: `fork`, `compare`, `estimate` and `calibrate`."""

from __future__ import annotations

from pathlib import Path
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
    rates: Annotated[
        Path | None, typer.Option(metavar="FILE", help="rates that calibrate wrote")
    ] = None,
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
        rates=rates,
    )
    show(as_json, figures.as_dict(), lambda: estimate_view(figures))
    if figures.sample.calls and figures.sample.failed == figures.sample.calls:
        raise typer.Exit(1)


def calibrate(
    config: ConfigFile = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="where to write the rates, as JSON")
    ] = Path("rates.json"),
    set_: Set = None,
    role: Annotated[str, typer.Option(metavar="ROLE", help="measure the model of this role")] = (
        "social"
    ),
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="least time of a step")
    ] = 5.0,
    max_running: Annotated[
        int, typer.Option(metavar="N", min=1, help="most calls to try at once")
    ] = 256,
    gpus: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="GPUs of a copy of the model")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an existing file")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the speed of a model, so that estimate can tell how long a run takes on many GPUs."""
    import sys

    from sandbox import api
    from sandbox.config import QUICKSTART
    from sandbox.files import check_new_file, new_file
    from sandbox.terminal.studies import rates_view

    check_new_file(out, overwrite)
    rates = api.calibrate(
        config or QUICKSTART,
        settings=set_ or [],
        role=role,
        effort=api.Effort(seconds, max_running, gpus),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    with new_file(out, overwrite) as file:
        file.write_text(rates.model_dump_json(indent=2) + "\n", encoding="utf-8")
    data = {"file": str(out), **rates.model_dump(mode="json")}
    show(as_json, data, lambda: rates_view(rates, out))
