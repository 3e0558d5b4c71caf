"""The verb `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson, show
from storage.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sandbox.backends.openai.examine import Trait
    from sandbox.doctor import Finding


def doctor(
    base_url: Annotated[
        str | None, typer.Argument(metavar="[BASE_URL]", help="examine this server of a model")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="the model of the server to call")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="the variable with the server's API key")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the installation: what is missing, and the command that installs it; or a server."""
    from sandbox.doctor import examine
    from storage.database import RUNS

    findings: Sequence[Finding | Trait]
    if base_url is not None:
        findings = _server(base_url, model, api_key_env)
    elif model is not None or api_key_env is not None:
        option = "--model" if model is not None else "--api-key-env"
        raise InputError(f"{option}: found no BASE_URL; expected the address of a server")
    else:
        findings = examine(RUNS)
    data = {"findings": [finding._asdict() for finding in findings]}
    show(as_json, data, lambda: _table(findings))
    if any(finding.needed and finding.found is None for finding in findings):
        raise typer.Exit(1)


def _server(base_url: str, model: str | None, api_key_env: str | None) -> list[Trait]:
    from pydantic import ValidationError

    from sandbox.backends.openai.examine import examine_server
    from sandbox.interrupts import run_coroutine

    try:
        work = examine_server(base_url, model, api_key_env or "OPENAI_API_KEY")
        return run_coroutine(work)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "--api-key-env" if "api_key_env" in first["loc"] else "BASE_URL"
        expected = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{place}: expected: {expected}") from None


def _table(findings: Sequence[Finding | Trait]) -> RenderableType:
    from sandbox.terminal import style

    table = style.table("", "", "")
    table.show_header = False
    for finding in findings:
        missing = "missing" if finding.needed else "not found"
        advice = "" if finding.found else finding.advice
        table.add_row(*map(style.plain, (finding.what, finding.found or missing, advice)))
    return table
