"""The catalog of the runs that are served."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError

from storage import database
from storage.database import Address
from storage.errors import InputError, NotThere, StorageFault
from storage.reader import Reader

LOOK_AGAIN = 2.0
"""Seconds after which a folder is looked through again for databases."""


class Entry(NamedTuple):
    """A run in the catalog.

    Attributes:
        key: its unique name in URLs.
        address: the database and the name of the run; the name is None if the database cannot be
            read.
        problem: why it cannot be opened; None if it can.
    """

    key: str
    address: Address
    problem: str | None = None


class RunCatalog:
    """The runs that are served; all databases are opened read-only.

    Args:
        runs: references that `parse_run` accepts, and folders: all databases below one, including
            those created later and those that cannot be read; empty: all databases under
            ``runs/`` likewise.

    Raises:
        InputError: a run does not exist or cannot be read, or there is no database below a folder.
        Damaged: the database of a run is damaged.
    """

    def __init__(self, runs: Sequence[str] = ()) -> None:
        self._given = [database.folder_of(run) or database.parse_run(run) for run in runs]
        self._below: dict[Path, tuple[float, list[URL]]] = {}
        for place in self._given:
            if isinstance(place, Path):
                self._databases(place)
            else:
                database.open_for_reading(place.url).dispose()
        self._engines: dict[URL, Engine] = {}
        self._names: dict[URL, tuple[object, list[str]]] = {}
        self._lock = Lock()

    def entries(self) -> list[Entry]:
        """The current runs, in the order of the command line, otherwise by name."""
        by_key: dict[str, Entry] = {}
        for entry in self._all():
            unique, number = entry, 1
            while unique.key in by_key:
                number += 1
                unique = entry._replace(key=f"{entry.key}~{number}")
            by_key[unique.key] = unique
        return list(by_key.values())

    def _all(self) -> Iterator[Entry]:
        for address in self._addresses():
            try:
                names = [address.name] if address.name else self._names_in(address.url)
            except (InputError, StorageFault, DBAPIError) as error:
                name = Path(str(address.url.database)).stem
                yield Entry(name, address, database.one_line(error))
                continue
            yield from (Entry(name, Address(address.url, name)) for name in names)

    def _addresses(self) -> Iterator[Address]:
        """The given runs, and of a folder the databases that are there now."""
        if not self._given:
            files = sorted(database.RUNS.glob("*.db"))
            yield from (Address(database.parse_url(str(file)), None) for file in files)
        for place in self._given:
            if isinstance(place, Path):
                yield from (Address(url, None) for url in self._databases(place))
            else:
                yield place

    def _databases(self, folder: Path) -> list[URL]:
        """The databases below a folder, which may be large: looked for again after a while."""
        now = time.monotonic()
        if folder not in self._below:
            self._below[folder] = now, database.databases_below(folder)
        elif now - self._below[folder][0] > LOOK_AGAIN:
            try:
                found = database.databases_below(folder)
            except InputError:
                found = []
            self._below[folder] = now, found
        return self._below[folder][1]

    def _names_in(self, url: URL) -> list[str]:
        """The names of the runs in a database, cached until its files change."""
        state = file_state(url)
        cached = self._names.get(url)
        if cached is None or cached[0] != state or state is None:
            cached = self._names[url] = (state, database.run_names(url))
        return cached[1]

    def open(self, key: str) -> Reader:
        """The reader of the run with this key; see `entry` and `reader`."""
        return self.reader(self.entry(key))

    def entry(self, key: str) -> Entry:
        """The run with this key.

        Raises:
            NotThere: there is no such run.
        """
        entry = next((entry for entry in self.entries() if entry.key == key), None)
        if entry is None:
            raise NotThere(f"There is no run {key} here.")
        return entry

    def reader(self, entry: Entry) -> Reader:
        """A reader of a run.

        Raises:
            InputError: its database cannot be read.
        """
        if entry.problem is not None:
            raise InputError(entry.problem)
        return Reader.find(self._engine(entry.address.url), entry.address.name, str(entry.address))

    def _engine(self, url: URL) -> Engine:
        with self._lock:
            if url not in self._engines:
                self._engines[url] = database.open_for_reading(url)
            return self._engines[url]

    def close(self) -> None:
        """Close all database connections."""
        for engine in self._engines.values():
            engine.dispose()


def file_state(url: URL) -> object:
    """A value that changes with an SQLite file; None for a database server."""
    if not database.is_file(url):
        return None
    stats = []
    for path in (str(url.database), f"{url.database}-wal"):
        try:
            stat = Path(path).stat()
            stats.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            stats.append((0, 0, 0))
    return stats
