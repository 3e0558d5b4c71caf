"""Verify a run: replay its journal without a model, and compare digests and every table."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from sandbox.backends.base import Call, Reply
from sandbox.config import Config
from sandbox.engine.journal import Journal
from sandbox.engine.run import Watch, play, refuse_unnamed_checks
from sandbox.engine.runner import Runner
from sandbox.interrupts import run_coroutine
from sandbox.reading.runs import Outcome, outcome
from sandbox.study.differences import Difference, differences, file_problems
from storage import database
from storage.copying import copy_start
from storage.database import Address
from storage.digest import VERSION, digest
from storage.errors import InputError, damage_reported
from storage.reader import Reader
from storage.writer import Writer

_LISTED = 20  # differences that a verdict lists


class Verdict(NamedTuple):
    """The result of `verify`.

    Attributes:
        outcome: the run's outcome, with its stored digest.
        of_tables: the digest computed from the current tables.
        of_replay: the digest of the replay of the journal.
        differences: values that differ from those of the replay, and what is wrong with the file;
            the first 20.
    """

    outcome: Outcome
    of_tables: str
    of_replay: str
    differences: tuple[Difference, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the run is unchanged since it ended, and its journal reproduces it."""
        same = self.outcome.digest == self.of_tables == self.of_replay
        return same and not self.differences


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
        Damaged: stored rows cannot be read.
    """
    with ExitStack() as stack:
        stack.enter_context(damage_reported(database.place_of(address.url)))
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
        refuse_unnamed_checks(source, allow)
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
        found = chain(file_problems(source), differences(source, reader, config))
        return Verdict(
            outcome(source, address, replayed),
            digest(source),
            digest(reader),
            tuple(islice(found, _LISTED)),
        )


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
