"""The lock for writing one run of a PostgreSQL server.

A session of its own holds an advisory lock as long as the run is written. When that session ends
(the server was restarted, the network was cut, somebody ended it), the lock is free, and another
process may take it. So every transaction of the writer first looks whether the lock is still its
own, and holds a second lock, the fence, until it ends. Who takes the lock waits for the fence, so
that no transaction of the former writer ends later.
"""

from __future__ import annotations

import select
import threading
import zlib
from contextlib import suppress

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from storage.errors import InputError, StorageFault, Taken, Unreachable

_LOCK, _FENCE = 7304, 7305  # classes of advisory locks; the key is a hash of the run's name

_TAKE = text("SELECT pg_try_advisory_lock(:lock, :key)")
_RELEASE = text("SELECT pg_advisory_unlock(:lock, :key)")
_WAIT = text("SELECT pg_advisory_lock(:fence, :key), pg_advisory_unlock(:fence, :key)")
_PID = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid = :lock AND objid = CAST(:object AS oid)"
)
_HOLDER = text(_PID)
_ENTER = text(
    "SELECT CASE WHEN CAST(pg_advisory_xact_lock_shared(:fence, :key) AS TEXT) IS NOT NULL "
    f"THEN ({_PID}) END"
)  # one round trip; CASE looks for the lock's holder after it has the fence


def _values(run: str) -> dict[str, int]:
    key = zlib.crc32(run.encode()) - 2**31
    return {"lock": _LOCK, "fence": _FENCE, "key": key, "object": key % 2**32}


def holder(connection: Connection, run: str) -> int | None:
    """The server process of the session that writes a run; None if there is none."""
    found: int | None = connection.scalar(_HOLDER, _values(run))
    return found


class ServerLock:
    """The lock of one run.

    Args:
        engine: connects to the server; a connection of its own is taken from it.
        run: the name of the run.

    Raises:
        InputError: another process has the lock.
    """

    def __init__(self, engine: Engine, run: str) -> None:
        self._run = run
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._values = _values(run)
        self._turn = threading.Lock()
        self._session: Connection | None = None
        self._process: int | None = None
        try:
            self._take()
        except Taken as error:
            raise InputError(f"{error}; wait for it or stop it") from None

    def enter(self, connection: Connection) -> None:
        """Begin a transaction of the writer: for the event `begin` of its engine.

        Raises:
            Taken: another process has the lock.
            Unreachable: the lock was lost at this moment, or the server cannot be reached; a
                further transaction tries to take it again.
        """
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return
        with self._turn:
            if not self._alive():
                self._take()
            if connection.scalar(_ENTER, self._values) != self._process:
                self._drop()
                raise Unreachable(f"{self._run}: the session with the lock for writing has ended")

    def _alive(self) -> bool:
        """Whether nothing says that the session has ended: the server sends nothing else to it."""
        if self._session is None or self._session.invalidated:
            return False
        socket = self._session.connection.dbapi_connection.fileno()  # type: ignore[union-attr]
        waiting = select.poll()
        waiting.register(socket, select.POLLIN)
        return not waiting.poll(0)

    def _take(self) -> None:
        self.release()
        session = self._engine.connect()
        try:
            if not session.scalar(_TAKE, self._values):
                if holder(session, self._run) in (None, self._process):
                    raise Unreachable(f"{self._run}: the server still holds the former lock")
                raise Taken(f"{self._run}: another process is writing this run")
            self._process = session.scalar(text("SELECT pg_backend_pid()"))
            session.scalar(_WAIT, self._values)
        except BaseException:
            session.invalidate()
            session.close()
            raise
        self._session = session

    def release(self) -> None:
        """Release the lock: the session ends."""
        if self._session is not None:
            with suppress(SQLAlchemyError, StorageFault):
                self._session.scalar(_RELEASE, self._values)
        self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(SQLAlchemyError, StorageFault):
                session.invalidate()
                session.close()
