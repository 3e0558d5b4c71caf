"""The journal: what was answered before, and the commits that everybody waits for."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import DBAPIError

from agents.forms import CallName
from sandbox.backends.base import BackendDown
from storage.database import one_line
from storage.reader import Journalled, Reader
from storage.writer import Writer

_GROUP_SECONDS = 0.005  # how long a reply waits for others to be committed with


class GroupCommit:
    """Commits what the writer holds, for all that wait for it at once."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._group: list[asyncio.Future[None]] = []

    def written(self, hurry: bool) -> asyncio.Future[None]:
        """Done once everything that the writer holds now is committed.

        Args:
            hurry: nobody else is on the way, so there is nothing to wait for.
        """
        loop = asyncio.get_running_loop()
        if not self._group:
            loop.call_later(0 if hurry else _GROUP_SECONDS, self._commit)
        waiting = loop.create_future()
        self._group.append(waiting)
        return waiting

    def _commit(self) -> None:
        group, self._group = self._group, []
        failure: Exception | None = None
        try:
            self._writer.commit()
        except (DBAPIError, FileNotFoundError) as error:
            failure = BackendDown(f"the database cannot be written: {one_line(error)}")
        except Exception as error:  # whatever it is, nobody may wait for ever
            failure = error
        for waiting in group:
            if waiting.done():
                continue
            if failure is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(failure)


class Journal:
    """The calls of earlier sittings, at hand for the episodes that are being played.

    Args:
        reader: the run that they are read from.
        copy: write what is replayed again (into another database).
        accept_changes: ask anew what was answered to another prompt.
    """

    def __init__(self, reader: Reader, *, copy: bool = False, accept_changes: bool = False) -> None:
        self._reader = reader
        self.copy = copy
        self.accept_changes = accept_changes
        self._begun = reader.episodes_with_calls(incomplete_only=not copy)
        self._calls: dict[int, dict[tuple[object, ...], Journalled]] = {}

    def open(self, episode: int) -> None:
        """Load the calls of an episode, where it has any."""
        if episode in self._begun:
            rows = self._reader.journal(episode)
            self._calls[episode] = {row.key: row for row in rows}

    def close(self, episode: int) -> None:
        """Let go of an episode's calls."""
        self._calls.pop(episode, None)

    def find(self, name: CallName) -> Journalled | None:
        """The call of this name, if it was made before."""
        calls = self._calls.get(name.episode)
        return calls.get((name.form, name.agent, name.turn, name.attempt)) if calls else None
