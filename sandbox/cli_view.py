"""The verb `view`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sandbox.output import AsJson
from sandbox.viewer.server import Place, serve
from sandbox.viewer.shelf import Shelf


def view(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="default: all under runs/")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen at; others ask for a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8765,
    as_json: AsJson = False,
) -> None:
    """Look at runs in a browser, also while they go on."""

    def ready(place: Place) -> None:
        told = json.dumps({"url": place.url, "token": place.token})
        print(told if as_json else f"look at {place.url} (Ctrl-C stops)", flush=True)

    serve(Shelf(runs or ()), host, port, ready)
