"""What every verb shares: one JSON object for scripts, or a picture for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from sandbox.terminal import render

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
Backends = Annotated[
    list[Path] | None,
    typer.Option(
        "--backend", metavar="FILE", help="a backend file that the run names; it is loaded"
    ),
]


def out(as_json: bool, data: Any, picture: Callable[[], RenderableType]) -> None:
    """Print what a verb has to say."""
    if as_json:
        print(json.dumps(data, ensure_ascii=True, default=str))
    else:
        render.show(Console(), picture())
