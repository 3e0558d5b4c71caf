"""The verb `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.api import open_run
from sandbox.cli.options import AsJson
from sandbox.cli.options import out as show
from sandbox.terminal.scene import plain
from storage.database import parse_run


def report(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a name under runs/, a database, a URL#name")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="ends in .html or .md")],
    format: Annotated[
        str | None, typer.Option(metavar="F", help="html, md; default: by the name")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a report: one page with the figures that can be mailed, or Markdown."""
    from sandbox.viewer.report.report import (
        report as write,  # here, so that no other verb waits for it
    )

    with open_run(run) as reader:
        made = write(reader, parse_run(run), out.expanduser(), format, overwrite)
    show(as_json, made._asdict(), lambda: plain(made.words))
