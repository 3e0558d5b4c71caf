"""The verb `train`; its settings are those of `sandbox.training.settings.TrainSettings`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sandbox.training import TrainReport


def train(
    export: Annotated[
        Path,
        typer.Argument(metavar="EXPORT", help="a folder that `export` wrote; cpo: or its .json"),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder of the trained model")],
    method: Annotated[str | None, typer.Option(help="sft, cpo, dpo, kto or reward")] = None,
    model: Annotated[str | None, typer.Option(help="a folder, or a name on the hub")] = None,
    preset: Annotated[
        str | None, typer.Option(help="published recipe: liu-readme, liu-model-card, matrix")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="seed of all that is drawn")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML of settings")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting, or TRL's argument; repeatable"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on an export; typed again, it goes on from the last checkpoint."""
    from sandbox import api
    from sandbox.terminal.training import Steps
    from sandbox.text import command, printable

    with Steps() as steps:
        try:
            report = api.train(
                export,
                out,
                method=method,
                model=model,
                preset=preset,
                seed=seed,
                config=config,
                settings=set_ or (),
                watch=steps.watch,
            )
        except KeyboardInterrupt as stopped:
            again = command(*map(shlex.quote, sys.argv[1:]))
            line = f"{str(stopped) or 'interrupted'}; go on with: {again}"
            print(printable(line), file=sys.stderr)
            if as_json:
                print(json.dumps({"error": line}))
            raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") != "0":  # of several processes the first one tells the result
        return
    show(as_json, report.as_dict(), lambda: _summary(report))
    if not steps.shown:
        print("already trained: there is nothing left to do", file=sys.stderr)


def _summary(report: TrainReport) -> RenderableType:
    from rich.console import Group

    from sandbox.terminal import style
    from sandbox.text import duration

    table = style.table("", "")
    table.show_header = False
    rows = f"{report.rows:,}"
    if report.left_out:
        rows += f" ({report.left_out:,} left out: no room for an answer within max_length)"
    step = report.resumed_from_step
    shown = {
        "method": report.method,
        "model": report.model,
        "rows": rows,
        "steps": f"{report.steps:,}" + ("" if step is None else f" (resumed from {step:,})"),
        "epochs": f"{report.epochs:g}",
        "loss of the last step": f"{report.loss:.4f}",
        "loss on the other split": "" if report.eval_loss is None else f"{report.eval_loss:.4f}",
        "time": duration(report.seconds),
        "data": report.data["digest"],
        "out": report.out,
    }
    for key, value in shown.items():
        if value:
            table.add_row(key, style.plain(value))
    notes = []
    if report.data["scripted"]:
        notes.append(style.plain(f"The data: {style.SCRIPTED}"))
    return Group(*notes, table)
