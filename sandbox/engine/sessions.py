"""The history of a run: a row for each session, from its start to its end.

A session that was killed has no end. The next one marks it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from sandbox import __version__
from sandbox.config import Config
from sandbox.engine.settings import Changes, without_secrets
from storage import tables
from storage.reader import Reader
from storage.rewinding import finish, rewind
from storage.tables import first_id


class Changed(NamedTuple):
    """What a session changes in the run before it is played on.

    Attributes:
        config: the run's config, with its changes.
        settings: the changed settings.
        again: the first round to play again; None for none.
        retry: statuses of calls to request again, from that round on.
    """

    config: Config
    settings: Changes
    again: int | None
    retry: Collection[str]


class SessionRow(NamedTuple):
    """A session that is under way: its run, its number, and the first id of its calls."""

    run_id: int
    number: int
    first_call: int

    def end(self, reader: Reader, values: Mapping[str, Any]) -> None:
        """Store how the session ended.

        Args:
            reader: the run.
            values: columns of the run; `status` and `message` are those of the session too.
        """
        r, s = tables.runs, tables.sessions
        with reader.engine.begin() as connection:
            if values["status"] == "done":
                finish(connection, reader)
            connection.execute(update(r).where(r.c.id == self.run_id).values(**values))
            end = {
                "ended": _now(),
                "status": values["status"],
                "message": values["message"],
                "calls": _calls_from(connection, self.run_id, self.first_call),
            }
            this = update(s).where(_of(self.run_id), s.c.number == self.number)
            connection.execute(this.values(**end))


def begin(reader: Reader, changed: Changed) -> SessionRow:
    """Store the start of a session, with everything that it changes, in one transaction."""
    run_id, changes = reader.run.id, changed.settings
    r = tables.runs
    running = update(r).where(r.c.id == run_id).values(status="running", message=None)
    with reader.engine.begin() as connection:
        connection.execute(running)  # writes first: SQLite does not wait to make a reader a writer
        _mark_killed(connection, run_id)
        if changed.again is not None:
            deleted = rewind(connection, reader, changed.again, changed.retry)
            changes = changes | {"calls to request again": [None, deleted]}
        if changed.settings:
            _store_config(connection, run_id, changed.config)
        return _insert(connection, run_id, changes)


def _store_config(connection: Connection, run_id: int, config: Config) -> None:
    r, m = tables.runs, tables.models
    connection.execute(update(r).where(r.c.id == run_id).values(config=config.as_json()))
    for role, settings in config.models.roles():
        model = update(m).where(m.c.run_id == run_id, m.c.role == role)
        connection.execute(model.values(settings=settings.model_dump_json()))


def _insert(connection: Connection, run_id: int, changes: Changes) -> SessionRow:
    s, c = tables.sessions, tables.calls
    last = connection.scalar(select(func.max(s.c.number)).where(_of(run_id)))
    newest = connection.scalar(select(func.max(c.c.id)).where(_in_run(run_id, c.c.id)))
    row = SessionRow(
        run_id,
        0 if last is None else int(last) + 1,
        first_id(run_id) if newest is None else int(newest) + 1,
    )
    values = {
        **row._asdict(),
        "started": _now(),
        "status": "running",
        "calls": 0,
        "code_version": __version__,
        "changes": json.dumps(without_secrets(changes)) if changes else None,
    }
    connection.execute(insert(s).values(values))
    return row


def _mark_killed(connection: Connection, run_id: int) -> None:
    """Mark the latest session if it has no end, and count its calls."""
    s = tables.sessions
    query = select(s.c.number, s.c.first_call).where(_of(run_id), s.c.status == "running")
    for number, first_call in connection.execute(query).all():
        calls = _calls_from(connection, run_id, first_call)
        one = update(s).where(_of(run_id), s.c.number == number)
        connection.execute(one.values(status="killed", calls=calls))


def _of(run_id: int) -> ColumnElement[bool]:
    return tables.sessions.c.run_id == run_id


def _in_run(run_id: int, column: Any) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = column.between(first_id(run_id), first_id(run_id + 1) - 1)
    return condition


def _calls_from(connection: Connection, run_id: int, first_call: int) -> int:
    c = tables.calls
    query = select(func.count()).where(c.c.id >= first_call, _in_run(run_id, c.c.id))
    return int(connection.scalar(query) or 0)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
