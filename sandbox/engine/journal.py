"""The journal: replies of earlier sessions, and group commits of new ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from agents.forms import CallName
from sandbox.backends.base import BackendDown
from storage.database import one_line
from storage.errors import Unreachable
from storage.reader import Journalled, Reader
from storage.writer import Writer

_GROUP_SECONDS = 0.005  # how long a commit waits for further replies
_PATIENCE_SECONDS = 600.0  # how long a server of databases may be away
_PAUSE_SECONDS = 0.5  # before the first further attempt; doubled up to `_LONGEST_PAUSE`
_LONGEST_PAUSE = 5.0  # as long as the lock of a server that is back may be free

T = TypeVar("T")


async def patiently(action: Callable[[], Awaitable[T]]) -> T:
    """Repeat what fails because a database server is away, as a restart or a cut network does.

    Raises:
        Unreachable: it is still away after ten minutes.
    """
    until, pause = time.monotonic() + _PATIENCE_SECONDS, _PAUSE_SECONDS
    while True:
        try:
            return await action()
        except Unreachable:
            if time.monotonic() + pause > until:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


class GroupCommit:
    """Group commit: one transaction for all replies that arrive within a few milliseconds.

    A thread writes a group, and replies that arrive meanwhile are the next one. While the server of
    the database is away, rows wait in the writer and calls in flight go on. Once it was away too
    long, every further group tries once: they would wait one after another.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._group: list[asyncio.Future[None]] = []
        self._gave_up = False
        self._writing: asyncio.Task[None] | None = None

    def written(self, hurry: bool) -> asyncio.Future[None]:
        """Return a future that is done once all pending rows are committed.

        Args:
            hurry: commit at once, since no other call is in flight.
        """
        waiting = asyncio.get_running_loop().create_future()
        self._group.append(waiting)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_groups(hurry))
        return waiting

    async def _write_groups(self, hurry: bool) -> None:
        await asyncio.sleep(0 if hurry else _GROUP_SECONDS)
        while self._group:
            group, self._group = self._group, []
            failure = await self._failure()
            for waiting in group:
                if waiting.done():
                    continue
                if failure is None:
                    waiting.set_result(None)
                else:
                    waiting.set_exception(failure)
        self._writing = None

    async def _failure(self) -> Exception | None:
        """Write all that is queued; returns why it could not be written."""
        try:
            if self._gave_up:
                await self._write()
            else:
                await patiently(self._write)
        except (DBAPIError, Unreachable) as error:
            self._gave_up = isinstance(error, Unreachable)
            return BackendDown(f"the database cannot be written: {one_line(error)}")
        except Exception as error:  # any error must reach those that wait
            return error
        return None

    async def _write(self) -> None:
        self._writer.take()
        try:
            written = asyncio.get_running_loop().run_in_executor(None, self._writer.write)
        except RuntimeError:  # the interpreter is ending, and starts no thread any more
            self._writer.write()
        else:
            await written


class Journal:
    """The calls of earlier sessions, loaded for the episodes that are being played.

    Args:
        reader: the run to read them from.
        copy: write replayed calls again (into another database).
        accept_changes: request a call again if its prompt has changed, and delete the calls of an
            episode that it no longer makes.
        asked_again: number of calls that were deleted to be requested again, by taking the run
            back; None if it was not: memories then have other ids than the calls refer to.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        copy: bool = False,
        accept_changes: bool = False,
        asked_again: int | None = None,
    ) -> None:
        self._reader = reader
        self.copy = copy
        self.accept_changes = accept_changes
        self.asked_again = asked_again
        self._with_calls = reader.episodes_with_calls(incomplete_only=not copy)
        self._calls: dict[int, dict[tuple[object, ...], Journalled]] = {}

    async def open(self, episode: int) -> None:
        """Load the calls of an episode, if it has any."""
        if episode in self._with_calls:
            rows = await patiently(lambda: self._read(episode))
            self._calls[episode] = {row.key: row for row in rows}

    async def _read(self, episode: int) -> list[Journalled]:
        return self._reader.journal(episode)

    def close(self, episode: int) -> None:
        """Discard the calls of an episode."""
        self._calls.pop(episode, None)

    def find(self, name: CallName) -> Journalled | None:
        """Return the journalled call of this name, if there is one, the first time it is asked."""
        calls = self._calls.get(name.episode)
        return calls.pop((name.form, name.agent, name.turn, name.attempt), None) if calls else None

    def superfluous(self, episode: int) -> list[int]:
        """List the calls of an episode, played to its end, that it no longer makes."""
        if not self.accept_changes:
            return []
        return [call.call_id for call in self._calls.get(episode, {}).values()]
