"""Options that several verbs share, and how a verb prints its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storage.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="a name under runs/, a database file, or URL#name"),
]
Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="names under runs/, database files, or URL#name"),
]
RunsOrFolders = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="as RUN elsewhere; a folder or STUDY.yaml: all its runs"),
]
ConfigFile = Annotated[
    Path | None, typer.Argument(help="a YAML config; default: the quickstart preset")
]
Name = Annotated[str | None, typer.Option(help="name of the new run")]
Database = Annotated[
    str | None,
    typer.Option(metavar="URL", help="database URL or file of the new run; default: runs/NAME.db"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="set a config key; repeatable"),
]
Rounds = Annotated[int | None, typer.Option(metavar="N", help="number of rounds")]
TotalRounds = Annotated[
    int | None, typer.Option(metavar="N", help="raise the total number of rounds to N")
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="continue although files or the program have changed since the run started",
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="request calls without a reply again"),
]
RetryUnparsed = Annotated[
    bool,
    typer.Option("--retry-unparsed", help="request calls with an unparseable reply again"),
]
Transport = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="set a config key that does not change what is said, such as an address; repeatable",
    ),
]
MaxCalls = Annotated[int | None, typer.Option(min=0, metavar="N", help="stop after N calls")]
MaxTokens = Annotated[int | None, typer.Option(min=0, metavar="N", help="stop after N tokens")]
MaxHours = Annotated[float | None, typer.Option(min=0, metavar="N", help="stop after N hours")]
AsJson = Annotated[
    bool, typer.Option("--json", help="print the result as one JSON object and nothing else")
]
BackendFiles = Annotated[
    list[Path] | None,
    typer.Option("--backend", metavar="FILE", help="load this backend file, which the run names"),
]
WorldFile = Annotated[
    Path | None,
    typer.Option("--world", metavar="FILE", help="load this world file, which the run names"),
]
CheckFiles = Annotated[
    list[Path] | None,
    typer.Option("--check", metavar="FILE", help="load this file of a check of the run's policy"),
]


_NARROWEST = 40
"""Columns that output has at least, whatever COLUMNS says: narrower tables show nothing."""


def plugin_files(
    run: str,
    backends: Sequence[Path] | None,
    world: Path | None,
    settings: Sequence[str] | None = None,
    checks: Sequence[Path] | None = None,
) -> list[Path]:
    """List the files that the options --backend, --world and --check name.

    Args:
        run: the run that they are for.
        backends: the values of --backend.
        world: the value of --world.
        settings: the values of --set, which may name further files.
        checks: the values of --check.

    Raises:
        InputError: there is no such run, or it does not name a file.
    """
    given = [
        *(("--backend", file) for file in backends or ()),
        *([("--world", world)] if world else []),
        *(("--check", file) for file in checks or ()),
    ]
    if not given:
        return []
    from sandbox import api

    named = api.plugin_files(run)
    for option, file in given:
        is_set = any(setting.endswith(file.name) for setting in settings or ())
        if file.expanduser().resolve() not in named and not is_set:
            known = ", ".join(map(str, named)) or "no file: the run names none"
            raise InputError(f"{option}: found {file}; expected {known}")
    return [file for _, file in given]


def show(as_json: bool, data: Any, picture: Callable[[], RenderableType]) -> None:
    """Print the result of a verb.

    Args:
        as_json: print `data` as one JSON object.
        data: the result.
        picture: renders the result for people; called only if `as_json` is false.
    """
    if as_json:
        print(json.dumps(data, ensure_ascii=True, default=str))
        return
    from rich.console import Console

    from sandbox.terminal.style import show as show_view

    console = Console()
    if console.width < _NARROWEST:
        console.width = _NARROWEST
    show_view(console, picture())
