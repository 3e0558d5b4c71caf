"""The catalog: which runs are shown, and how one is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError

from storage import database
from storage.database import Address
from storage.errors import InputError
from storage.reader import Reader


class Entry(NamedTuple):
    """A run on the catalog.

    Attributes:
        key: what it is called in addresses: its name, made unique.
        address: where it lives; its name is None where the database cannot be read.
        problem: why it cannot be shown; None where it can.
    """

    key: str
    address: Address
    problem: str | None = None


class RunCatalog:
    """Runs to be shown; nothing is opened for writing.

    Args:
        runs: runs as `parse_run` reads them; none: all under ``runs/``, also those that come later.

    Raises:
        InputError: there is no such run.
    """

    def __init__(self, runs: Sequence[str] = ()) -> None:
        self._given = [database.parse_run(run) for run in runs]
        for address in self._given:
            database.open_for_reading(address.url).dispose()
        self._engines: dict[URL, Engine] = {}
        self._names: dict[URL, tuple[object, list[str]]] = {}
        self._lock = Lock()

    def entries(self) -> list[Entry]:
        """What there is now, in the order of the command line, else by name."""
        found: dict[str, Entry] = {}
        for one in self._all():
            key, number = one.key, 1
            while one.key in found:
                number += 1
                one = one._replace(key=f"{key}~{number}")
            found[one.key] = one
        return list(found.values())

    def _all(self) -> Iterator[Entry]:
        files = sorted(database.RUNS.glob("*.db")) if not self._given else ()
        for address in self._given or (Address(database.parse_url(str(f)), None) for f in files):
            try:
                names = [address.name] if address.name else self._names_in(address.url)
            except (InputError, DBAPIError) as error:
                name = Path(str(address.url.database)).stem
                yield Entry(name, address, database.one_line(error))
                continue
            yield from (Entry(name, Address(address.url, name)) for name in names)

    def _names_in(self, url: URL) -> list[str]:
        """The runs of a database, looked up again once its files have changed."""
        seen = _state(url)
        known = self._names.get(url)
        if known is None or known[0] != seen or seen is None:
            known = self._names[url] = (seen, database.run_names(url))
        return known[1]

    def open(self, key: str) -> Reader:
        """A reader of the run of this key; see `entry` and `reader`."""
        return self.reader(self.entry(key))

    def entry(self, key: str) -> Entry:
        """The run of this key.

        Raises:
            KeyError: there is no such run.
        """
        found = next((one for one in self.entries() if one.key == key), None)
        if found is None:
            raise KeyError(key)
        return found

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
        """Let go of all databases."""
        for engine in self._engines.values():
            engine.dispose()


def _state(url: URL) -> object:
    """What changes when an SQLite file does; None for a server, of which it is not known."""
    if not database.is_file(url):
        return None
    found = []
    for path in (str(url.database), f"{url.database}-wal"):
        try:
            stat = Path(path).stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((0, 0, 0))
    return found
