"""Verifying a run: its journal is replayed without a model, and the digests are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from sandbox.backends.base import Call, Reply
from sandbox.concurrency import run_coroutine
from sandbox.config import Config
from sandbox.engine.journal import Journal
from sandbox.engine.run import Watch, play
from sandbox.engine.runner import Runner
from sandbox.reading.runs import Outcome, outcome
from storage import database
from storage.copying import copy_start
from storage.database import Address
from storage.digest import VERSION, digest
from storage.errors import InputError
from storage.reader import Reader
from storage.writer import Writer


class Verdict(NamedTuple):
    """What `verify` found: the run's outcome, and digests that should all be the run's.

    `of_tables` is made from the tables as they are now, `of_replay` from a replay of the journal.
    """

    outcome: Outcome
    of_tables: str
    of_replay: str

    @property
    def agrees(self) -> bool:
        """Whether the run is what it was when it ended, and follows from its journal."""
        return self.outcome.digest == self.of_tables == self.of_replay


def verify(
    address: Address, watch: Watch | None = None, *, allow: Collection[Path] = ()
) -> Verdict:
    """Replay a finished run from its journal, with no model, in a database of its own.

    Args:
        address: where the run lives.
        watch: gets the progress once, before the work begins.
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
        nobody = dict.fromkeys(dict(config.models.roles()), NoModel())
        runner = Runner.load(reader, writer, nobody, Journal(source, copy=True), config=config)
        run_coroutine(play(runner, watch))
        replayed = runner.progress.counts.replayed
        return Verdict(outcome(source, address, replayed), digest(source), digest(reader))


class NoModel:
    """Stands in for a model where every call must be in the journal."""

    model = "none"

    async def start(self) -> None:
        """Nothing to start."""

    async def answer(self, call: Call) -> Reply:
        """Refuse: this call should have been replayed."""
        raise InputError(f"call {call.name}: the journal does not hold it; expected a finished run")

    async def close(self) -> None:
        """Nothing to close."""
