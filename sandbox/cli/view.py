"""The verb `view`: pages on a port of this machine, or as files in a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sandbox.cli.options import AsJson, out

if TYPE_CHECKING:
    from sandbox.viewer.server import Place
    from sandbox.viewer.shelf import Shelf


def view(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="default: all under runs/")
    ] = None,
    host: Annotated[
        str, typer.Option(help="address to listen at; others than this machine need a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8765,
    static: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write the pages there, and serve nothing")
    ] = None,
    exchanges: Annotated[
        int, typer.Option(min=1, help="with --static: so many of each run, the latest")
    ] = 500,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="with --static: replace an earlier copy")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at runs in a browser, also while they go on."""
    from sandbox.viewer.server import serve  # here, so that no other verb waits for a web server
    from sandbox.viewer.shelf import Shelf

    shelf = Shelf(runs or ())
    if static is not None:
        _copy(shelf, static.expanduser(), exchanges, overwrite, as_json)
        return

    def ready(place: Place) -> None:
        told = json.dumps({"url": place.url, "token": place.token})
        print(told if as_json else f"look at {place.url} (Ctrl-C stops)", flush=True)

    serve(shelf, host, port, ready)


def _copy(shelf: Shelf, folder: Path, most: int, overwrite: bool, as_json: bool) -> None:
    from sandbox.viewer.copying import copy

    def watch(pages: int) -> None:
        if sys.stderr.isatty() and pages % 25 == 0:
            print(f"\r{pages:,} pages", end="", file=sys.stderr, flush=True)

    made = copy(shelf, folder, most, overwrite, watch)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    words = f"{made.files:,} files; open {folder / 'index.html'}"
    out(as_json, made.as_dict(), lambda: Text(words, overflow="ignore", no_wrap=True))
