"""The verb `doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson
from sandbox.text import printable
from storage.errors import InputError

if TYPE_CHECKING:
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

    findings: list[Finding | Trait] = []

    def found(finding: Finding | Trait) -> None:
        findings.append(finding)
        if not as_json:
            print(printable(_line(finding)), flush=True)

    if base_url is not None:
        _examine_server(base_url, model, api_key_env, found)
    elif model is not None or api_key_env is not None:
        option = "--model" if model is not None else "--api-key-env"
        raise InputError(f"{option}: found no BASE_URL; expected the address of a server")
    else:
        for finding in examine(RUNS):
            found(finding)
    if as_json:
        print(json.dumps({"findings": [finding._asdict() for finding in findings]}))
    if any(finding.needed and finding.found is None for finding in findings):
        raise typer.Exit(1)


def _examine_server(
    base_url: str, model: str | None, api_key_env: str | None, found: Callable[[Trait], None]
) -> None:
    from pydantic import ValidationError

    from sandbox.backends.openai.config import DEFAULT_KEY
    from sandbox.backends.openai.examine import examine_server
    from sandbox.interrupts import run_coroutine

    async def work() -> None:
        async with aclosing(examine_server(base_url, model, api_key_env or DEFAULT_KEY)) as traits:
            async for trait in traits:
                found(trait)

    try:
        run_coroutine(work())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "--api-key-env" if "api_key_env" in first["loc"] else "BASE_URL"
        expected = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{place}: expected: {expected}") from None


_WIDTH = 30
"""Columns of what is examined."""


def _line(finding: Finding | Trait) -> str:
    missing = "missing" if finding.needed else "not found"
    advice = f": {finding.advice}" if finding.advice else ""
    return f"{finding.what:<{_WIDTH}}  {finding.found or missing + advice}"
