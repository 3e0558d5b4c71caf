"""The verb `view`: pages served on a port, or written into a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson, show
from storage.errors import InputError

if TYPE_CHECKING:
    from sandbox.viewer.catalog import RunCatalog
    from sandbox.viewer.server import ServerAddress


def view(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="a folder: all runs below it; STUDY.yaml: those of a sweep; default: under runs/",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="address to listen on; default: 127.0.0.1; others than localhost require a token"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="port to listen on; default: 8765; 0: any free port"),
    ] = None,
    root_path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="path of the pages behind a reverse proxy, such as /sandbox; default: by the "
            "header X-Forwarded-Prefix",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="host name of a reverse proxy whose requests are answered; may be repeated",
        ),
    ] = None,
    static: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="write static pages into DIR instead of serving them"),
    ] = None,
    exchanges: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="with --static: the latest N of each run; default: 500"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="with --static: replace an earlier copy")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show runs in a browser, including runs in progress."""
    from sandbox.viewer.catalog import RunCatalog
    from sandbox.viewer.server import serve

    _refuse_idle_options(
        static is not None,
        {
            "--host": host,
            "--port": port,
            "--root-path": root_path,
            "--allow-host": allow_host or None,
        },
        {"--exchanges": exchanges, "--overwrite": overwrite or None},
    )
    catalog = RunCatalog([place for run in runs or () for place in _places(run)])
    if static is not None:
        _copy(catalog, static.expanduser(), exchanges or _EXCHANGES, overwrite, as_json)
        return

    def ready(address: ServerAddress) -> None:
        data = json.dumps({"url": address.url, "token": address.token})
        print(data if as_json else f"look at {address.url} (Ctrl-C stops)", flush=True)

    serve(
        catalog,
        host or _HOST,
        _PORT if port is None else port,
        ready,
        root_path or "",
        allow_host or (),
    )


def _places(run: str) -> list[str]:
    """What the catalog is given for an argument RUN, which may name the file of a study."""
    from sandbox.sweep.plan import is_study, viewable

    return viewable(Path(run)) if is_study(run) else [run]


_HOST, _PORT, _EXCHANGES = "127.0.0.1", 8765, 500


def _refuse_idle_options(
    static: bool, serving: Mapping[str, object], copying: Mapping[str, object]
) -> None:
    """Check that every option that is given has an effect: on a server, or on a copy."""
    idle = serving if static else copying
    found = next((option for option, value in idle.items() if value is not None), None)
    if found is not None:
        expected = "no --static, which serves nothing" if static else "it with --static DIR"
        raise InputError(f"{found}: expected {expected}")


def _copy(catalog: RunCatalog, folder: Path, limit: int, overwrite: bool, as_json: bool) -> None:
    from rich.text import Text

    from sandbox.viewer.copying import copy

    def watch(pages: int) -> None:
        if sys.stderr.isatty() and pages % 25 == 0:
            print(f"\r{pages:,} pages", end="", file=sys.stderr, flush=True)

    copied = copy(catalog, folder, limit, overwrite, watch)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    summary = f"{copied.files:,} files; open {folder / 'index.html'}"
    show(as_json, copied.as_dict(), lambda: Text(summary, overflow="ignore", no_wrap=True))
