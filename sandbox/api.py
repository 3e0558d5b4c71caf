"""The same from Python: start, resume and read a run in a script or a notebook.

from sandbox import api
from sandbox.reading import views

api.run("worlds/presets/quickstart.yaml", name="mine", rounds=2)
with api.open_run("mine") as reader:
    print(views.society(reader)["rounds"])
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sandbox.backends.base import Backend
from sandbox.config import QUICKSTART, load_config
from sandbox.datasets import ExportReport
from sandbox.datasets import export as export_readers
from sandbox.engine.layers import Layer
from sandbox.engine.run import Outcome, create, prepare
from sandbox.engine.run import resume as resume_run
from sandbox.terminal.live import Display
from storage import database
from storage.database import parse_run
from storage.reader import Reader


def run(
    config: str | Path = QUICKSTART,
    *,
    name: str | None = None,
    db: str | Path | None = None,
    rounds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    backends: Mapping[str, Backend] | None = None,
    layers: Sequence[Layer] = (),
) -> Outcome:
    """Start a run and work on it until it is done or has to stop.

    Args:
        config: a YAML file.
        name: of the run, in place of the config's.
        db: a database URL or a path; the default is ``runs/NAME.db``.
        rounds: in place of the config's.
        settings: other keys to set, such as ``{"world.size": 10}``.
        quiet: show no progress.
        backends: by role, in place of those that the config names.
        layers: further layers that calls go through; see `sandbox.engine.layers`.

    Raises:
        InputError: something in the config cannot work, or the name is taken.
    """
    pairs = [f"{key}={_yaml(value)}" for key, value in (settings or {}).items()]
    loaded = load_config(Path(config), pairs, name=name, rounds=rounds)
    address = create(prepare(loaded, str(config)), None if db is None else str(db), backends)
    with Display(quiet) as display:
        return resume_run(
            address, display.watch, backends=backends, layers=layers, allow=loaded.files()
        )


def _yaml(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def resume(
    run: str,
    *,
    quiet: bool = True,
    backends: Mapping[str, Backend] | None = None,
    layers: Sequence[Layer] = (),
    allow: Collection[str | Path] = (),
) -> Outcome:
    """Go on where a run stopped.

    Args:
        run: a name under runs/, a database, or a URL#name.
        quiet: show no progress.
        backends: by role, in place of those that the config names.
        layers: further layers that calls go through; see `sandbox.engine.layers`.
        allow: files with Python code that the run's config names and that may be loaded.

    Raises:
        InputError: there is no such run, another process is writing it, or it needs a file that is
            not allowed.
    """
    files = [Path(file) for file in allow]
    with Display(quiet) as display:
        return resume_run(
            parse_run(run), display.watch, backends=backends, layers=layers, allow=files
        )


@contextmanager
def open_run(run: str) -> Iterator[Reader]:
    """Open a run for reading, also while another process works on it.

    Raises:
        InputError: there is no such run.
    """
    address = parse_run(run)
    engine = database.open_for_reading(address.url)
    try:
        yield Reader.find(engine, address.name, str(address))
    finally:
        engine.dispose()


def export(
    runs: str | Sequence[str],
    formats: str | Sequence[str],
    out: str | Path | None,
    *,
    overwrite: bool = False,
    choices: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Export runs as a dataset, into a folder of its own, whole or not at all.

    Args:
        runs: one or several, as for `open_run`.
        formats: one or several of `sandbox.datasets.FORMATS`.
        out: a new or an empty folder; None: nothing is kept, the report tells what would be there.
        overwrite: replace an earlier export.
        choices: those of `sandbox.datasets.choices.Choices`, such as ``{"min_rating": 6}``.

    Raises:
        InputError: there is no such run, a choice is wrong, or `out` cannot be used.
    """
    with ExitStack() as stack:
        wanted = [runs] if isinstance(runs, str) else runs
        readers = [stack.enter_context(open_run(run)) for run in wanted]
        named = [formats] if isinstance(formats, str) else formats
        place = None if out is None else Path(out)
        return export_readers(readers, named, place, overwrite=overwrite, **(choices or {}))
