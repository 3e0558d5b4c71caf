"""SQLite files: how they are connected to, whether they are complete, and the lock for writing.

A file that is being written has a write-ahead log (``NAME.db-wal``) and its index (``-shm``) beside
it, and a lock file. When its writer is killed, the log stays: what it holds is part of the run.

The index belongs to processes that write, or may write, beside the file. So that looking at a run
never leaves a file behind, and needs no permission to write, a killed run is read without it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import Enum
from pathlib import Path

from storage.errors import Gone, InputError, damage
from storage.spacing import spaced

_PRAGMAS = ("busy_timeout = 30000", "cache_size = -65536", "temp_store = MEMORY")
_WRITING = ("journal_mode = WAL", "synchronous = NORMAL")


class FileState(Enum):
    """How the last writer has left an SQLite file."""

    CLOSED = "closed"
    KILLED = "killed"  # with its log
    WITHOUT_LOG = "without log"  # it was not closed, and its log is not there
    LOG_UNREADABLE = "log unreadable"


def real_path(path: str | Path | None) -> Path:
    """The path without symbolic links: SQLite keeps the companions of a file there."""
    return Path(os.path.realpath(str(path)))


def companion(path: Path, ending: str) -> Path:
    """The path of a file that lies beside a database: its log (``-wal``) or ``.lock``."""
    return path.with_name(path.name + ending)


def file_state(path: Path) -> FileState:
    """How a file was left, if no process writes it."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return FileState.CLOSED
    if not header.startswith(b"SQLite format 3\0") or header[18:20] != b"\2\2":
        return FileState.CLOSED
    log = companion(path, "-wal")
    with suppress(OSError):
        if log.stat().st_size:
            readable = os.access(log, os.R_OK)
            return FileState.KILLED if readable else FileState.LOG_UNREADABLE
    return FileState.WITHOUT_LOG


def what_is_missing(path: Path, state: FileState) -> str | None:
    """What cannot be read of a file that was left in this state, in one line; None: nothing."""
    log = companion(path, "-wal").name
    if state is FileState.WITHOUT_LOG:
        return (
            f"{path}: it was not closed, and {log} is not beside it: if it was copied without it, "
            f"its latest calls are missing; copy both files, or: sqlite3 {path.name} "
            "\"VACUUM INTO 'COPY.db'\""
        )
    if state is FileState.LOG_UNREADABLE:
        return (
            f"{path}: its writer was killed, and {log} cannot be read: the latest calls are missing"
        )
    return None


def is_written(path: Path) -> bool | None:
    """Whether a process is writing a file; None where its lock file cannot be opened."""
    try:
        lock = os.open(companion(path, ".lock"), os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(lock)
    return False


def connect_reading(path: Path) -> sqlite3.Connection:
    """Connect to a file without changing it or anything beside it.

    Raises:
        sqlite3.Error: it cannot be opened.
        Damaged: it is damaged.
    """
    written = is_written(path)
    if not written:
        # The file is not opened beforehand while a process writes it: to close it would release
        # the locks that SQLite holds, if that process is this one.
        state = file_state(path)
        if written is None and state is not FileState.CLOSED:
            with suppress(sqlite3.OperationalError):
                return _connect(path, "mode=ro")
        if state is FileState.KILLED:
            return _connect(path, "mode=ro&vfs=unix-none", "locking_mode = EXCLUSIVE")
        if state in (FileState.WITHOUT_LOG, FileState.LOG_UNREADABLE):
            return _connect(path, "immutable=1")
    return _connect(path, "mode=ro")


def connect_writing(path: Path) -> sqlite3.Connection:
    """Connect to an existing file for writing, with a write-ahead log.

    Raises:
        sqlite3.Error: it cannot be opened.
        Damaged: it is damaged.
    """
    connection = _connect(path, "mode=rw", *_WRITING)
    connection.create_function("spaced", 1, spaced, deterministic=True)  # for the word index
    return connection


def _connect(path: Path, how: str, *pragmas: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{how}",
        uri=True,
        isolation_level=None,  # transactions begin by the `begin` event, see `storage.database`
        check_same_thread=False,
    )
    try:
        # How it is locked comes first: the others read the file, and a log that is read without
        # an exclusive lock is deleted in the end, also that of a process that still writes.
        for pragma in (*pragmas, *_PRAGMAS, "schema_version"):
            _set(connection, pragma)
    except UnicodeDecodeError as error:  # in the message of an error about its schema
        connection.close()
        raise damage(error, str(path)) from None
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _set(connection: sqlite3.Connection, pragma: str) -> None:
    """Execute a pragma; a change of the journal's mode does not wait for a lock by itself."""
    until = time.monotonic() + _OPEN_PATIENCE
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.02)


_OPEN_PATIENCE = 5.0  # seconds


class Presence:
    """Notices when a file is deleted or replaced: SQLite goes on writing to what is gone.

    Args:
        path: an existing file.

    Attributes:
        path: the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = self._current()
        self._checked = time.monotonic()
        self._gone = False

    def _current(self) -> tuple[int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def check(self) -> None:
        """Check at most once a second.

        Raises:
            Gone: the file is not the one that was opened.
        """
        if time.monotonic() > self._checked + 1:
            self._checked = time.monotonic()
            self._gone = self._gone or not self.same
        if self._gone:
            raise Gone(f"{self.path} is gone: it was deleted or replaced while it was written")

    @property
    def same(self) -> bool:
        """Whether the file is the one that was opened."""
        return self._current() == self._identity


@contextmanager
def locked(path: Path, place: str) -> Iterator[None]:
    """Lock a file for writing, by a lock file that the operating system releases.

    Raises:
        InputError: another process has the lock, or the file has another name as well.
        OSError: the lock file cannot be opened.
    """
    lock_file = companion(path, ".lock")
    lock = _lock(lock_file, place)
    try:
        _refuse_hard_links(path, place)
        yield
    finally:
        lock_file.unlink(missing_ok=True)
        os.close(lock)


def _lock(lock_file: Path, place: str) -> int:
    until = time.monotonic() + _LOCK_PATIENCE
    while True:
        lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(lock, lock_file):
                return lock
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(lock)
                raise InputError(
                    f"{place}: another process is writing it; wait for it or stop it"
                ) from None
            time.sleep(0.05)
        except OSError:
            os.close(lock)
            raise
        os.close(lock)


_LOCK_PATIENCE = 0.5  # seconds: a reader has the lock for a moment, to see whether it is taken


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the path still names the opened file: its last owner deletes the lock file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _refuse_hard_links(path: Path, place: str) -> None:
    if path.is_file() and path.stat().st_nlink > 1:
        raise InputError(
            f"{place}: found a file with {path.stat().st_nlink} names (hard links), each of which "
            "another process may write; expected one: copy it to a file of its own"
        )


def merge_log(path: Path) -> bool:
    """Merge the write-ahead log into the file; returns False while a reader has it open."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection,
    ):
        return bool(connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0] == "delete")
    return False
