"""Open databases: addresses of runs, connection settings of SQLite, and locks for writing."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from sqlalchemy import URL, Engine, create_engine, event, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from storage.errors import InputError
from storage.migrations import check_readable, migrate, schema_version
from storage.secrets import hide_secrets
from storage.spacing import spaced
from storage.tables import runs

RUNS = Path("runs")


class Address(NamedTuple):
    """A database and the name of a run in it (None: the only run of the database)."""

    url: URL
    name: str | None

    def __str__(self) -> str:
        place = place_of(self.url)
        return f"{place}#{self.name}" if self.name else place

    @property
    def typed(self) -> str:
        """The shortest RUN argument that names this run, quoted where a shell needs it."""
        default = RUNS.absolute() / f"{self.name}.db"
        return str(self.name) if str(self.url.database) == str(default) else f"'{self}'"


def is_file(url: URL) -> bool:
    """Whether the URL names an SQLite file."""
    return url.get_backend_name() == "sqlite" and bool(url.database)


def parse_url(address: str) -> URL:
    """Parse a database URL or the path of an SQLite file.

    Raises:
        InputError: the URL is invalid, or its driver is not installed. The message contains no
            password.
    """
    shown = hide_secrets(address)
    if "://" not in address:
        if shown != address or "\0" in address:
            raise InputError(
                f"{shown}: found no path of a file; expected one, or a URL such as "
                "postgresql+psycopg://user@host/database"
            )
        return URL.create("sqlite", database=str(absolute(address)))
    try:
        url = make_url(address)
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        raise InputError(f"{shown}: needs a driver that is not installed: {error}") from None
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        line = hide_secrets(one_line(error))
        raise InputError(f"{shown}: not a usable database URL: {line}") from None
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise InputError(f"{shown}: found a database in memory; expected a file")
        url = url.set(database=str(Path(url.database).absolute()))
    return url


def parse_run(run: str) -> Address:
    """Parse RUN: a name under runs/, the path of a database file, or a URL, each with ``#name``.

    Raises:
        InputError: there is no such file, or the URL is invalid.
    """
    place, _, name = run.partition("#")
    if "://" in place:
        return Address(parse_url(place), name or None)
    path = _expanded(place)
    by_name = path.suffix != ".db" and os.sep not in place
    if by_name:
        path = RUNS / f"{place}.db"
    if not _is_file(path):
        raise InputError(
            f"{hide_secrets(run)}: no such run; expected a name under {RUNS}/, a file or a URL"
        )
    url = parse_url(str(path))
    if by_name and not name and place in run_names(url):
        name = place  # the file may contain other runs as well
    return Address(url, name or None)


def absolute(path: str) -> Path:
    """The absolute form of a path; ``~`` is the home folder, if there is one."""
    return _expanded(path).absolute()


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no home folder
        return Path(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or contains NUL
        return False


def address_of(run: str | Address) -> Address:
    """The address of a run that is given as an address or as a string for `parse_run`."""
    return run if isinstance(run, Address) else parse_run(run)


_PRAGMAS = ("busy_timeout = 30000", "cache_size = -65536", "temp_store = MEMORY")


def _connect_writing(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin by the `begin` event, see `_engine`
    for pragma in (*_PRAGMAS, "journal_mode = WAL", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("spaced", 1, spaced, deterministic=True)  # for the word index


def _connect_reading(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _engine(url: URL, write: bool) -> Engine:
    if not is_file(url):
        return create_engine(url)
    if write:
        engine = create_engine(url, paramstyle="named")  # rows are dicts, see `Writer`
        event.listen(engine, "connect", _connect_writing)
    else:
        uri = f"{Path(str(url.database)).as_uri()}?mode=ro"
        engine = create_engine(
            "sqlite+pysqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(uri, uri=True)
        )
        event.listen(engine, "connect", _connect_reading)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def one_line(error: BaseException) -> str:
    """The first line of an error's message, without the text that SQLAlchemy adds."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def place_of(url: URL) -> str:
    """The name of a database for messages: the path of the file, or the URL without passwords."""
    if is_file(url):
        return str(url.database)
    return hide_secrets(url.render_as_string(hide_password=True))


def open_for_reading(url: URL) -> Engine:
    """Open an existing database read-only.

    Raises:
        InputError: it does not exist, is not a database of runs, or has another schema version.
    """
    engine = _engine(url, write=False)
    try:
        check_readable(engine, place_of(url))
    except DBAPIError as error:
        raise InputError(f"{place_of(url)}: cannot be read: {one_line(error)}") from None
    return engine


def run_names(url: URL) -> list[str]:
    """The names of the runs in a database, in the order of their creation.

    Raises:
        InputError: it does not exist, is not a database of runs, or has a newer schema version.
    """
    engine = _engine(url, write=False)
    try:
        if schema_version(engine, place_of(url)) is None:
            return []
        with engine.connect() as connection:
            return list(connection.scalars(select(runs.c.name).order_by(runs.c.id)))
    except DBAPIError as error:
        raise InputError(f"{place_of(url)}: cannot be read: {one_line(error)}") from None
    finally:
        engine.dispose()


@contextmanager
def writing(url: URL) -> Iterator[Engine]:
    """Open a database for writing; create it if it is missing, migrate it to the current schema.

    An SQLite file is locked as a whole, by a lock file beside it that the operating system releases
    when the process ends. A file that is not a database of runs is not changed. On exit the WAL is
    merged into the file, unless a reader still has it open. On a server each run is locked on its
    own: see `claim`.

    Raises:
        InputError: it cannot be opened or written, is not a database of runs, has a newer schema
            version, or another process is writing it.
    """
    place = place_of(url)
    with ExitStack() as stack:
        try:
            if is_file(url):
                Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_file_lock(url))
                stack.enter_context(_remove_new_file_on_failure(Path(str(url.database))))
                _check_existing(url)
            engine = _engine(url, write=True)
            stack.callback(_close, url, engine)
            migrate(engine, place)
        except (DBAPIError, OSError) as error:
            raise InputError(f"{place}: cannot be written: {one_line(error)}") from None
        yield engine


@contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    lock = FileLock(f"{url.database}.lock", timeout=0.5)
    try:
        lock.acquire()
    except Timeout:
        message = f"{place_of(url)}: another process is writing it; wait for it or stop it"
        raise InputError(message) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def _remove_new_file_on_failure(path: Path) -> Iterator[None]:
    """Delete a file that did not exist before, if the block raises."""
    existed = path.exists()
    try:
        yield
    except BaseException:
        if not existed:
            path.unlink(missing_ok=True)
        raise


def _check_existing(url: URL) -> None:
    """Check the schema version read-only: opening a file for writing changes its header."""
    path = Path(str(url.database))
    if path.exists() and path.stat().st_size:
        engine = _engine(url, write=False)
        schema_version(engine, place_of(url))
        engine.dispose()


def _close(url: URL, engine: Engine) -> None:
    engine.dispose()
    if is_file(url):
        for _ in range(_CLOSE_ATTEMPTS):
            if _merge_wal(url):
                return
            time.sleep(_CLOSE_WAIT)


_CLOSE_ATTEMPTS, _CLOSE_WAIT = 80, 0.025  # two seconds: readers have the file open only briefly


def _merge_wal(url: URL) -> bool:
    """Merge the WAL into the file; returns False while a reader has it open."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(str(url.database))) as connection:
        return bool(connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0] == "delete")
    return False


@contextmanager
def claim(engine: Engine, run: str) -> Iterator[None]:
    """Lock one run of a PostgreSQL server for writing; an SQLite file is locked already.

    Raises:
        InputError: another process has the lock.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    key = zlib.crc32(run.encode()) - 2**31
    with engine.connect() as connection:
        query = text("SELECT pg_try_advisory_lock(7304, :key)")
        if not connection.scalar(query, {"key": key}):
            raise InputError(f"{run}: another process is writing this run; wait for it or stop it")
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(7304, :key)"), {"key": key})
            connection.commit()


def is_being_written(url: URL) -> bool:
    """Whether a process is writing this SQLite file; False for a server, where it is unknown."""
    path = Path(f"{url.database}.lock")
    if not is_file(url) or not path.exists():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True
