"""Verify a run: replay its journal without a model, and compare the digests."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from sandbox.backends.base import Call, Reply
from sandbox.config import Config
from sandbox.engine.journal import Journal
from sandbox.engine.run import Watch, play
from sandbox.engine.runner import Runner
from sandbox.interrupts import run_coroutine
from sandbox.reading.runs import Outcome, outcome
from storage import database
from storage.copying import copy_start
from storage.database import Address
from storage.digest import VERSION, digest
from storage.errors import InputError
from storage.reader import Reader
from storage.writer import Writer


class Verdict(NamedTuple):
    """The result of `verify`: the run's outcome, and digests that should equal its stored digest.

    `of_tables` is computed from the current tables, `of_replay` from a replay of the journal.
    """

    outcome: Outcome
    of_tables: str
    of_replay: str

    @property
    def agrees(self) -> bool:
        """Whether the run is unchanged since it ended, and its journal reproduces it."""
        return self.outcome.digest == self.of_tables == self.of_replay


def verify(
    address: Address, watch: Watch | None = None, *, allow: Collection[Path] = ()
) -> Verdict:
    """Replay a finished run from its journal, without a model, in a temporary database.

    Args:
        address: the run.
        watch: called once with the progress before the replay starts.
        allow: files with Python code that the run's config names and that may be loaded.

    Raises:
        InputError: the run is not finished, a call of the replay is not in the journal, or the run
            needs a file that is not allowed.
    """
    with ExitStack() as stack:
        original = database.open_for_reading(address.url)
        stack.callback(original.dispose)
        source = Reader.find(original, address.name, str(address))
        name = source.run.name
        if source.run.status != "done":
            raise InputError(f"{address}: not finished; expected `resume` first")
        if source.run.digest_version != VERSION:
            raise InputError(
                f"{address}: its digest is of version {source.run.digest_version}; expected "
                f"{VERSION}, the version that this program computes"
            )
        config = Config.from_json(source.run.config, allow)
        config.refuse_unloaded()
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-verify-"))
        url = database.parse_url(str(Path(folder) / "replay.db"))
        engine = stack.enter_context(database.writing(url))
        copy_start(source, engine)
        reader = Reader.find(engine, name, str(address))
        writer = Writer(engine, reader.run.id)
        writer.open()
        no_models = dict.fromkeys(dict(config.models.roles()), NoModel())
        runner = Runner.load(reader, writer, no_models, Journal(source, copy=True), config=config)
        run_coroutine(play(runner, watch), runner.interrupt)
        replayed = runner.progress.counts.replayed
        return Verdict(outcome(source, address, replayed), digest(source), digest(reader))


class NoModel:
    """A backend for replays in which every call must be in the journal."""

    model = "none"

    async def start(self) -> None:
        """Nothing to start."""

    async def answer(self, call: Call) -> Reply:
        """Refuse: this call should have been replayed."""
        raise InputError(
            f"call {call.name}: not in the journal; expected the journal of a finished run"
        )

    async def close(self) -> None:
        """Nothing to close."""
