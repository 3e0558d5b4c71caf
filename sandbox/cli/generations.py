"""The verb `generations`: a society, its data, training, evaluation, and the next society."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson, Set, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sandbox.generations import Study


def generations(
    config: Annotated[
        Path, typer.Argument(metavar="STUDY", help="a YAML file with the settings of the study")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder of the study; goes on there")],
    count: Annotated[int, typer.Option(metavar="N", help="number of generations")] = 2,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Run societies whose model is trained on what the society before said; goes on if stopped."""
    from sandbox import api

    try:
        study = api.generations(config, out, count, settings=set_ or [], say=_say)
    except api.PhaseFailed as failed:
        if as_json:  # its line is on the standard error stream already
            print(json.dumps({"error": str(failed)}))
        if failed.status != 2:
            print("type the same command again to go on", file=sys.stderr)
        raise typer.Exit(failed.status) from None
    except KeyboardInterrupt:
        print("interrupted; type the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    show(as_json, study.as_dict(), lambda: _view(study))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _view(study: Study) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from sandbox.generations.table import HEADS, SOCIETY, rows, society_rows
    from sandbox.terminal import style

    tables: list[RenderableType] = []
    for heads, body in ((SOCIETY, society_rows(study)), (HEADS, rows(study))):
        table = style.table(*heads)
        for row in body:
            table.add_row(*map(style.plain, row))
        tables += [table, Text()]
    return Group(*tables, Text(f"{study.out}/README.md"))
