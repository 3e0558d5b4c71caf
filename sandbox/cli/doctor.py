"""The verb `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sandbox.cli.options import AsJson, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sandbox.doctor import Finding


def doctor(as_json: AsJson = False) -> None:
    """Check the installation: what is missing, and the command that installs it."""
    from sandbox.doctor import examine
    from storage.database import RUNS

    findings = examine(RUNS)
    data = {"findings": [finding._asdict() for finding in findings]}
    show(as_json, data, lambda: _table(findings))
    if any(finding.needed and finding.found is None for finding in findings):
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> RenderableType:
    from sandbox.terminal import style

    table = style.table("", "", "")
    table.show_header = False
    for finding in findings:
        missing = "missing" if finding.needed else "not found"
        advice = "" if finding.found else finding.advice
        table.add_row(*map(style.plain, (finding.what, finding.found or missing, advice)))
    return table
