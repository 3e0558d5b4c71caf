"""The verb `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli.options import AsJson, Run, show


def report(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="output file, .html or .md; default: NAME.html"),
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="F", help="html or md; default: by the file's extension")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an existing file")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a report of a run: one self-contained HTML page, or Markdown with figures."""
    from sandbox.reading.runs import open_run
    from sandbox.terminal.style import plain
    from sandbox.viewer.report.report import report as write_report
    from storage.database import parse_run

    with open_run(run) as reader:
        file = out or Path(f"{reader.run.name}.{'md' if format == 'md' else 'html'}")
        written = write_report(reader, parse_run(run), file.expanduser(), format, overwrite)
    show(as_json, written._asdict(), lambda: plain(written.summary))
