"""Open databases: addresses of runs, their engines, and locks for writing."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from storage import files
from storage.bulk import copy_rows
from storage.errors import (
    Damaged,
    Gone,
    IncompleteWarning,
    InputError,
    StorageFault,
    Unreachable,
    damage,
    damage_reported,
)
from storage.files import FileState
from storage.locks import ServerLock, holder
from storage.migrations import check_readable, migrate, schema_version
from storage.secrets import hide_secrets
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
        return str(self.name) if str(self.url.database) == str(default) else shlex.quote(str(self))


def is_file(url: URL) -> bool:
    """Whether the URL names an SQLite file."""
    return url.get_backend_name() == "sqlite" and bool(url.database)


def exists(url: URL) -> bool:
    """Whether there is a file of this name; True for a server."""
    return not is_file(url) or _is_file(Path(str(url.database)))


def parse_url(address: str) -> URL:
    """Parse a database URL or the path of an SQLite file.

    What follows ``sqlite:///`` is a path as it is: no character of it has a meaning in URLs.

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
        return _file_url(address)
    scheme, _, path = address.partition("://")
    if scheme.partition("+")[0] == "sqlite":
        path = path.removeprefix("/")
        if not path or path == ":memory:":
            raise InputError(f"{shown}: found a database in memory; expected a file")
        if "\0" in path:
            raise InputError(f"{shown}: found a NUL character; expected a path")
        return _file_url(path)
    if scheme not in ("postgresql", "postgresql+psycopg"):
        raise InputError(
            f"{shown}: found a database of the kind {hide_secrets(_short(scheme))}; expected "
            "postgresql+psycopg://HOST/DATABASE, or a file"
        )
    try:
        url = make_url(address)
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        raise InputError(
            f"{shown}: needs a driver that is not installed: {error}; pip install 'psycopg[binary]'"
        ) from None
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        line = hide_secrets(one_line(error))
        raise InputError(f"{shown}: not a usable database URL: {line}") from None
    return url


def _file_url(path: str) -> URL:
    return URL.create("sqlite", database=str(absolute(path)))


def parse_run(run: str) -> Address:
    """Parse RUN: a name under runs/, the path of a database file, or a URL, each with ``#name``.

    A ``#`` may be part of a path: the longest part of RUN that is a file is the path.

    Raises:
        InputError: there is no such file, or the URL is invalid.
    """
    scheme, is_url, _ = run.partition("://")
    if is_url and scheme.partition("+")[0] != "sqlite":
        place, _, name = run.partition("#")
        return Address(parse_url(place), name or None)
    for place, name in _splits(run):
        path = Path(str(parse_url(place).database)) if is_url else _expanded(place)
        by_name = not is_url and os.sep not in place and not place.endswith(".db")
        if by_name:
            path = RUNS / f"{place}.db"
        if not _is_file(path):
            continue
        url = _file_url(str(path))
        if by_name and not name and place in run_names(url):
            name = place  # the file may contain other runs as well
        return Address(url, name or None)
    if run.endswith((".yaml", ".yml")) and _is_file(_expanded(run)):
        raise InputError(
            f"{hide_secrets(_short(run))}: found a YAML file; expected one run: if this is the "
            f"file of a sweep, `status {run}` lists its runs, by default {RUNS}/NAME/RUN.db"
        )
    raise InputError(
        f"{hide_secrets(_short(run))}: no such run; expected a name under {RUNS}/, a file or a URL"
    )


def parse_runs(runs: Sequence[str]) -> list[Address]:
    """Parse several RUN; a folder stands for all runs in the databases below it, by path.

    Raises:
        InputError: see `parse_run`, or there is no run below a folder.
    """
    addresses = []
    for run in runs:
        folder = folder_of(run)
        addresses += [parse_run(run)] if folder is None else _runs_below(folder)
    return addresses


def folder_of(run: str) -> Path | None:
    """The folder that RUN names; None if it names a run."""
    if "://" in run or not run or not _expanded(run).is_dir() or _is_run(run):
        return None
    return _expanded(run)


def databases_below(folder: Path) -> list[URL]:
    """The files of databases below a folder, by path, whether or not they can be read.

    Raises:
        InputError: there is none.
    """
    found = [_file_url(str(file)) for file in sorted(folder.rglob("*.db"))]
    if not found:
        raise _without_runs(folder)
    return found


def _runs_below(folder: Path) -> list[Address]:
    urls = databases_below(folder)
    found = [Address(url, name) for url in urls for name in run_names(url)]
    if not found:
        raise _without_runs(folder)
    return found


def _without_runs(folder: Path) -> InputError:
    shown = _short(str(folder))
    return InputError(f"{shown}: found a folder without runs; expected a database below")


def _is_run(run: str) -> bool:
    """Whether a word is the name of a run under runs/, and not only of a folder."""
    return os.sep not in run and _is_file(RUNS / f"{run}.db")


def _splits(run: str) -> Iterator[tuple[str, str]]:
    """A run as place and name: all of it is a place, or the name follows one of its ``#``."""
    yield run, ""
    end = run.rfind("#")
    while end >= 0:
        yield run[:end], run[end + 1 :]
        end = run.rfind("#", 0, end)


def _short(run: str) -> str:
    return run if len(run) <= _LONGEST_SHOWN else f"{run[:_LONGEST_SHOWN]}..."


_LONGEST_SHOWN = 200


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


_opened: list[str] = []


def last_opened() -> str | None:
    """The name of the database that this process opened last; None: none."""
    return _opened[-1] if _opened else None


def _engine(url: URL, write: bool) -> Engine:
    _opened[:] = [place_of(url)]
    if not is_file(url):
        engine = create_engine(url, pool_pre_ping=True, connect_args=_server_settings(url))
        copy_rows(engine)
    elif write:
        path = files.real_path(url.database)
        connect = partial(files.connect_writing, path)
        engine = create_engine(url, paramstyle="named", creator=connect)  # see `Writer`
    else:
        connect = partial(files.connect_reading, files.real_path(url.database))
        engine = create_engine("sqlite+pysqlite://", poolclass=NullPool, creator=connect)
    if is_file(url):
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    event.listen(engine, "handle_error", partial(_translate, url))
    return engine


def _server_settings(url: URL) -> dict[str, Any]:
    """Settings by which both ends of a connection notice within a minute that it was cut."""
    if url.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    probes = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    server = {f"tcp_{name}": value for name, value in probes.items()}
    settings = {
        "connect_timeout": 10,
        **probes,
        "tcp_user_timeout": 60_000,
        "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
    }
    return {name: value for name, value in settings.items() if name not in url.query}


_DAMAGE = {1, 11, 20}
"""SQLite's codes ERROR (such as a table that is not there), CORRUPT and MISMATCH."""

_CANNOT_OPEN = 14


def _translate(url: URL, context: Any) -> None:
    """Raise a fault of the database in place of the driver's error, where it is one."""
    error, place = context.original_exception, place_of(url)
    if isinstance(error, UnicodeDecodeError):
        raise damage(error, place)
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGE or "decode to UTF-8" in str(error):
            raise Damaged(f"{place}: the database is damaged: {one_line(error)}")
        if code == _CANNOT_OPEN and not files.real_path(url.database).exists():
            raise Gone(f"{place} is gone: there is no such file any more")
    elif not is_file(url) and (context.is_disconnect or context.connection is None):
        raise Unreachable(f"{place}: cannot be reached: {one_line(error)}")


def _refused(url: URL, what: str, error: BaseException) -> InputError:
    """Say that a database cannot be used; a `StorageFault` names its place itself."""
    if isinstance(error, StorageFault):
        return InputError(str(error))
    return InputError(f"{_short(place_of(url))}: {what}: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """The first line of an error's message, without the text that SQLAlchemy adds."""
    cause = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def place_of(url: URL) -> str:
    """The name of a database for messages: the path of the file, or the URL without passwords."""
    if is_file(url):
        return str(url.database)
    return hide_secrets(url.render_as_string(hide_password=True))


def open_for_reading(url: URL) -> Engine:
    """Open an existing database read-only; nothing is written, not even beside the file.

    Issues an `IncompleteWarning` if a part of it is missing: see `missing_part`.

    Raises:
        InputError: it does not exist, is not a database of runs, or has another schema version.
        Damaged: it is damaged.
    """
    engine = _engine(url, write=False)
    try:
        with damage_reported(place_of(url)):
            check_readable(engine, place_of(url))
    except (DBAPIError, Unreachable, Gone) as error:
        raise _refused(url, "cannot be read", error) from None
    missing = missing_part(url)
    if missing is not None:
        warnings.warn(missing, IncompleteWarning, stacklevel=2)
    return engine


def missing_part(url: URL) -> str | None:
    """What of a database cannot be read, in one line; None if there is nothing."""
    if not is_file(url):
        return None
    path = files.real_path(url.database)
    if files.is_written(path):
        return None
    return files.what_is_missing(path, files.file_state(path))


def run_names(url: URL) -> list[str]:
    """The names of the runs in a database, in the order of their creation.

    Raises:
        InputError: it does not exist, is not a database of runs, or has a newer schema version.
        Damaged: it is damaged.
    """
    engine = _engine(url, write=False)
    try:
        with damage_reported(place_of(url)), engine.connect() as connection:
            if schema_version(engine, place_of(url)) is None:
                return []
            return list(connection.scalars(select(runs.c.name).order_by(runs.c.id)))
    except (DBAPIError, Unreachable, Gone) as error:
        raise _refused(url, "cannot be read", error) from None
    finally:
        engine.dispose()


@contextmanager
def writing(url: URL) -> Iterator[Engine]:
    """Open a database for writing; create it if it is missing, migrate it to the current schema.

    An SQLite file is locked as a whole, by a lock file beside it that the operating system releases
    when the process ends. A file that is not a database of runs is not changed. One that was not
    closed is checked first. On exit the log is merged into the file, unless a reader still has it
    open. On a server each run is locked on its own: see `claim`.

    Raises:
        InputError: it cannot be opened or written, is not a database of runs, has a newer schema
            version, or another process is writing it.
        Damaged: it is damaged.
        Gone: the file was deleted or replaced meanwhile.
    """
    place = place_of(url)
    with ExitStack() as stack:
        try:
            if is_file(url):
                stack.enter_context(_writable_file(url))
            engine = _engine(url, write=True)
            stack.callback(engine.dispose)
            if is_file(url):
                presence = files.Presence(files.real_path(url.database))
                stack.callback(_close, presence, engine)
                event.listen(engine, "begin", lambda _: presence.check())
            migrate(engine, place)
        except (DBAPIError, OSError, Unreachable) as error:
            raise _refused(url, "cannot be written", error) from None
        yield engine


@contextmanager
def _writable_file(url: URL) -> Iterator[None]:
    """Lock a file, check it, and create it if it is missing; a new one is deleted on an error."""
    path, place = files.real_path(url.database), place_of(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path, place):
        existed = path.exists()
        if existed:
            _check_existing(url, path)
        else:
            path.touch()
        try:
            yield
        except BaseException:
            if not existed:
                path.unlink(missing_ok=True)
            raise


def _check_existing(url: URL, path: Path) -> None:
    """Check a file read-only: opening it for writing changes its header."""
    if not path.stat().st_size:
        return
    place = place_of(url)
    state = files.file_state(path)
    engine = _engine(url, write=False)
    with damage_reported(place):
        schema_version(engine, place)
    if state is not FileState.CLOSED:
        with engine.connect() as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if found != "ok":
            raise Damaged(f"{place}: the database is damaged: {found.splitlines()[-1]}")
    missing = files.what_is_missing(path, state)
    if missing is not None:
        warnings.warn(missing, IncompleteWarning, stacklevel=2)


def _close(presence: files.Presence, engine: Engine) -> None:
    engine.dispose()
    for _ in range(_CLOSE_ATTEMPTS):
        if not presence.same or files.merge_log(presence.path):
            return
        time.sleep(_CLOSE_WAIT)


_CLOSE_ATTEMPTS, _CLOSE_WAIT = 80, 0.025  # two seconds: readers have the file open only briefly


@contextmanager
def claim(engine: Engine, run: str) -> Iterator[None]:
    """Lock one run of a PostgreSQL server for writing; an SQLite file is locked already.

    Every transaction of the engine then makes sure that the lock is held: see `storage.locks`.

    Raises:
        InputError: another process has the lock.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    lock = ServerLock(engine, run)
    event.listen(engine, "begin", lock.enter)
    try:
        yield
    finally:
        event.remove(engine, "begin", lock.enter)
        lock.release()


def is_being_written(connection: Connection, url: URL, run: str) -> bool | None:
    """Whether a process is writing a run, or the file that it is in; None where it is unknown.

    Args:
        connection: to the database.
        url: its address.
        run: the name of the run.
    """
    if is_file(url):
        return files.is_written(files.real_path(url.database))
    return None if connection.dialect.name != "postgresql" else holder(connection, run) is not None
